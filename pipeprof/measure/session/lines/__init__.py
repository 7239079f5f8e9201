"""Lines of the sampled threads, on their way into the record."""
