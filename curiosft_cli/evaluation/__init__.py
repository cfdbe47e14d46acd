"""From samples to numbers: saved samples, scores, intervals, results. No torch."""
