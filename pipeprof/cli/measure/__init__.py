"""Verbs that make runs, or look at the machine."""
