"""What a child process is started with."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from curiosft_cli.run.cpu_allocator import cpu_allocator_environment
from curiosft_cli.run.processes import usable_cores


@pytest.mark.parametrize(("limit", "cores"), [("max 100000", 8), ("350000 100000", 3), ("50000 100000", 1)])
def test_the_cores_are_those_of_the_affinity_and_of_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert usable_cores(tmp_path) == 8
    (tmp_path / "cpu.max").write_text(limit + "\n")
    assert usable_cores(tmp_path) == cores


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the variables are glibc's")
def test_a_trainer_s_memory_is_used_again() -> None:
    """64 MiB taken and given back eight times: 16,384 pages each time, or once."""
    code = """
from resource import RUSAGE_SELF, getrusage
before = getrusage(RUSAGE_SELF).ru_minflt
for _ in range(8):
    b"x" * 2**26
print(getrusage(RUSAGE_SELF).ru_minflt - before)
"""

    def faults(environment: dict[str, str], first: str = "") -> int:
        plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
        return int(subprocess.check_output([sys.executable, "-c", first + code], env=plain | environment))

    assert faults(cpu_allocator_environment()) < faults({}) / 4
    now = "from curiosft_cli.run.cpu_allocator import set_cpu_allocator; set_cpu_allocator("
    assert faults({}, f"{now})") < faults({}) / 4
    assert faults({}, f"{now}); set_cpu_allocator(sharded=True)") > faults({}) / 2
