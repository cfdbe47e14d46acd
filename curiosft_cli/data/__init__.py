"""Where problems come from: records, files, the hub, benchmarks, and the prompts that carry them. No torch."""
