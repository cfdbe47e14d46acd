"""Settings that must stand before torch or vLLM is imported, and the fixtures that several rooms share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine makes a test slow, not wrong.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(autouse=True)
def forgotten_hub() -> Iterator[None]:
    """No test sees a data set that another one put in the hub's place."""
    yield
    from curiosft_cli.data.hub import hub_table

    hub_table.cache_clear()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random two-layer Qwen2 with a byte-level tokenizer, tied head."""
    from tiny import build_tiny_model

    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "model")
