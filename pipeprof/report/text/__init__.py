"""Output of the terminal."""
