"""Mechanisms and lines, on made runs."""
