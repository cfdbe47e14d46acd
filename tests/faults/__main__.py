"""`python -m faults` (with `tests` on the module path): run the groups, print a JSON line for each, and the table.

    --seed N     of everything that is drawn. It is printed, so that a failure can be repeated.
    --kills N, --inputs N
                 how many signals and malformed inputs
    --only NAME  one group; may be repeated
    --folder DIR where everything happens, to look at it afterwards; default: a temporary folder

A whole run puts the table into docs/reliability.md. Exit code 1 if a fault did not come out as promised.
"""

from __future__ import annotations

import argparse
import functools
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from faults.disk import disk
from faults.engines import engines
from faults.graders import graders
from faults.kills import kills
from faults.malformed import malformed
from faults.planted import planted
from faults.ranks import ranks
from faults.report import Group, table, write_page
from faults.servers import servers
from faults.stages import Models
from faults.tampering import tampering

KILLS, INPUTS = 100, 300


def main() -> int:
    """Run the chosen groups."""
    parser = argparse.ArgumentParser(prog="make faults ARGS=...", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--inputs", type=int, default=INPUTS)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", action="append")
    parser.add_argument("--folder", type=Path)
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", flush=True)
    groups = {
        "kills": functools.partial(kills, seed=chosen.seed, jobs=chosen.jobs, times=chosen.kills),
        "ranks": functools.partial(ranks, jobs=chosen.jobs),
        "malformed": functools.partial(malformed, seed=chosen.seed, jobs=chosen.jobs, times=chosen.inputs),
        "servers": functools.partial(servers, jobs=chosen.jobs),
        "disk": functools.partial(disk, seed=chosen.seed),
        "engines": engines,
        "graders": functools.partial(graders, seed=chosen.seed),
        "planted": functools.partial(planted, jobs=chosen.jobs),
        "tampering": functools.partial(tampering, seed=chosen.seed, jobs=chosen.jobs),
    }
    ended = []
    with tempfile.TemporaryDirectory(prefix="curiosft-faults-") as temporary:
        folder = (chosen.folder or Path(temporary)).resolve()
        models = _models(folder)
        for group in chosen.only or groups:
            begun = time.monotonic()
            ended.append(Group(group, groups[group](folder / group, models), time.monotonic() - begun))
            print(ended[-1].as_json(), flush=True)
    text = table(ended, chosen.seed)
    print(text)
    if not chosen.only and (chosen.kills, chosen.inputs) == (KILLS, INPUTS):
        write_page(text)
    failures = [failure for group in ended for row in group.rows for failure in row.failures]
    print("\n".join(["", *failures]), file=sys.stderr)
    return 1 if failures else 0


def _models(folder: Path) -> Models:
    """Make the models in a process of its own: this one forks, so it must not have computed anything."""
    folder.mkdir(parents=True, exist_ok=True)
    code = "import sys, pathlib; from faults.stages import build_models; build_models(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, capture_output=True)
    return Models(folder / "tiny", folder / "box.toml")


if __name__ == "__main__":
    sys.exit(main())
