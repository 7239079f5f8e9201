"""Samples the Python stacks of workers."""
