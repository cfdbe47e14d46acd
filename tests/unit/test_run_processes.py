"""What a child process is started with."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from curiosft_cli.run.cpu_memory import memory_environment


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

    def faults(environment: dict[str, str]) -> int:
        plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
        return int(subprocess.check_output([sys.executable, "-c", code], env=plain | environment))

    assert faults(memory_environment()) < faults({}) / 4
