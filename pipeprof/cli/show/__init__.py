"""Verbs that read runs."""
