"""Standstills, clocks that are set and signals: events from outside that a run has to survive."""
