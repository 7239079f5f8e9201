"""The day with a device: all that waits for one, one after the other. See `__main__`."""
