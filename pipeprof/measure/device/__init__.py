"""Devices that torch computes on, behind one contract: streams, timed events, memory and names."""
