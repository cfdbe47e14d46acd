"""Floor 4: who generates text. The only imports of vllm stand in this package."""
