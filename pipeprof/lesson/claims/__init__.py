"""The claims of the lecture, each with what was measured for it."""
