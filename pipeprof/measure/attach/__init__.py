"""Observation of a job that runs already: the way in, what runs inside it, and the way out."""
