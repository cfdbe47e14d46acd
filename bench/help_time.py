"""Wall time of `curiosft --help` against a bare `python -c pass`, interleaved; one JSON line, medians in seconds."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time


def wall_s(command: list[str]) -> float:
    """Seconds that the command takes."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    commands = {"help": [sys.executable, "-m", "curiosft_cli.cli", "--help"], "python": [sys.executable, "-c", "pass"]}
    for command in commands.values():
        wall_s(command)
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            times[name].append(wall_s(command))
    medians = {f"{name}_s": round(statistics.median(values), 3) for name, values in times.items()}
    print(json.dumps({"measured": "wall time, median", "rounds": rounds, **medians}))


if __name__ == "__main__":
    main()
