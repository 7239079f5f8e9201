"""Reasons why a place is expensive: the lines its time was spent in, the mechanisms that counters show."""
