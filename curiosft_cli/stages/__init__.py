"""Floor 5: the four jobs, each readable top-down as its algorithm."""
