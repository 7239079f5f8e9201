"""Storage: real, remote and emulated, behind one contract."""
