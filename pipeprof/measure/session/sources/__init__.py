"""Reads what sources of batches say about themselves."""
