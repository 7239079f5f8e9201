"""Tuning: search with the simulator, confirm by measuring. The only part of this room that measures."""
