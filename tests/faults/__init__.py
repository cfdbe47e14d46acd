"""Real faults against real processes, apart from the test suite: `make faults` (docs/reliability.md)."""

import os

# Before anything loads torch or the hub's libraries, and for every child.
os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
