"""Floor 2: configuration, run folder, metrics and progress, launching, the error type. No torch."""
