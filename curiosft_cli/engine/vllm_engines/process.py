"""Keep what an embedded vLLM does to its process from the trainer that lives in the same one."""

from __future__ import annotations

import random
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any


@contextmanager
def process_left_alone() -> Generator[None]:
    """Around vLLM's start, which seeds every global generator and replaces torch's thread control by a warning."""
    import numpy
    import torch

    set_num_threads, python_state, numpy_state = torch.set_num_threads, random.getstate(), numpy.random.get_state()
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        try:
            yield
        finally:
            torch.set_num_threads = set_num_threads
            random.setstate(python_state)
            numpy.random.set_state(numpy_state)


@contextmanager
def process_group_kept() -> Generator[None]:
    """Around vLLM's end: it may destroy its own process groups, not the default one, which is the trainer's."""
    import torch.distributed

    distributed: Any = torch.distributed
    destroy = distributed.destroy_process_group
    distributed.destroy_process_group = lambda group=None: destroy(group) if group is not None else None
    try:
        yield
    finally:
        distributed.destroy_process_group = destroy


@contextmanager
def cpu_step() -> Generator[None]:
    """Around a step on a CPU: the sampler draws from torch's global generator, seeds or not, and compiles itself.

    Compiled, it needs a C++ compiler on the machine and some seconds at first, for a few milliseconds a step.
    """
    import torch

    with torch.random.fork_rng(devices=[]), torch.compiler.set_stance("force_eager"):
        yield
