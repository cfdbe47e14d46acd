"""Real faults against real processes, apart from the test suite: `make faults` (docs/reliability.md)."""
