"""vLLM inside this process, and vLLM servers. The only imports of vllm."""
