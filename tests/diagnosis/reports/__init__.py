"""Public reports of slow input pipelines, rebuilt as plain training scripts: an exam with known answers."""
