"""Two ranks, each with a shard of the trainer and an engine of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from curiosft_cli.run.processes import free_port

pytest.importorskip("vllm")
pytestmark = pytest.mark.e2e


def test_each_rank_samples_with_the_gathered_weights(tiny_model: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    program = [str(Path(__file__).with_name("engine_two_ranks.py")), str(tiny_model)]
    finished = subprocess.run(
        [*launcher, "--master_port", str(free_port()), *program], capture_output=True, text=True, timeout=500
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "rank 0 agrees" in finished.stdout
    assert "rank 1 agrees" in finished.stdout
