"""Floor 5: what a user runs beside the pipeline."""
