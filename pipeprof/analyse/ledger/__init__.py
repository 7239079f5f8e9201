"""Owners of each nanosecond: the walk over the graph, and the two tilings that come out of it."""
