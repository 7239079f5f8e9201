"""Counts and times of one process, beside the batches that it makes."""
