"""Seeded fuzzing of all that comes from outside: `python -m tests.fuzz`; a few hundred cases are tests."""
