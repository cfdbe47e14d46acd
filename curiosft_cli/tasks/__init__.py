"""Floor 3: the text side, without torch: records, prompts, data sources, benchmarks, grading, metrics."""
