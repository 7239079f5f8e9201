"""Makes and opens the data sets that a scenario names."""
