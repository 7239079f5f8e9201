"""Sensors of this machine: what can be read again and again while a run lasts."""
