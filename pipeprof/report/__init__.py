"""Outputs, one file a format, all of the same input. Drawing never analyses."""
