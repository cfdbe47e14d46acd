"""Protect the trainer from what an embedded vLLM does to their common process."""

from __future__ import annotations

import random
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any


@contextmanager
def global_state_kept() -> Generator[None]:
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
