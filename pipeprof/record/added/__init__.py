"""Files that are added to a run directory after the run."""
