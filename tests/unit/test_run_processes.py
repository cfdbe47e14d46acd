"""What a child process is started with."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from curiosft_cli.run.processes import AVX512, memory_environment, numpy_environment


@pytest.mark.parametrize(("vendor", "set_"), [("AuthenticAMD", True), ("GenuineIntel", False)])
def test_only_amd_goes_without_avx512(tmp_path: Path, vendor: str, set_: bool) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\nvendor_id\t: {vendor}\n")
    assert bool(numpy_environment(file)) == set_


def test_elsewhere_nothing_is_set(tmp_path: Path) -> None:
    assert numpy_environment(tmp_path / "none") == {}


def test_this_numpy_takes_the_names_and_still_selects() -> None:
    code = "import numpy; a = numpy.arange(9999.0)[::-1].copy(); a.partition(9000); print(a[9000:].min())"
    environment = os.environ | {"NPY_DISABLE_CPU_FEATURES": AVX512}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "9000.0\n"


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
