"""Assembles a scenario into a measured run."""
