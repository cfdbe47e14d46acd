"""CurioSFT: entropy-preserving supervised fine-tuning, its baselines, and the RL and evaluation that follow it."""

__version__ = "0.1.0"
