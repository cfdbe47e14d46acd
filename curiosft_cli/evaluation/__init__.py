"""Benchmark tasks, saved samples, their scores, confidence intervals, result folders. No torch."""
