"""Sample and grade benchmarks with checkpoints."""
