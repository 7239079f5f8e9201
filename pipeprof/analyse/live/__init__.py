"""A run while it is being written: the ends of its streams, and the analysis of its last seconds."""
