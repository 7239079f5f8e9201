"""Counts and times of one process, apart from the batches that it makes."""
