"""Accelerators: a CPU, a GPU or an emulated device, behind one contract."""
