"""Observation of a job that is already running: the way in, what runs inside it, and the way out."""
