"""Verbs for scenario files."""
