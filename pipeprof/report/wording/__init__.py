"""Words that all outputs share: a run's facts and lines of text, what to do, how to read a figure."""
