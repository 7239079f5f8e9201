"""Reading of a run's demands: what each stage needs, as if it were alone."""
