"""Problems: their records, files, hub data sets, benchmarks and prompts. No torch."""
