"""Reinforcement learning with verifiable rewards: GRPO and the hybrid methods."""
