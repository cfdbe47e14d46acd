"""Choose the checkpoint that rl starts from."""
