"""Inference engines and endpoints. The only imports of vllm stand in this package."""
