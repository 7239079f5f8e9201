"""The pipeline's graph walked forwards with other knobs: predictions, fixes, tuning."""
