"""The slow checks: processes of their own load torch, train, generate, and talk to each other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator

from curiosft_cli.run.processes import free_port, isolated
from curiosft_cli.run.text import shortened
from curiosft_cli.tools.doctor.finding import Asked, Finding
from curiosft_cli.tools.doctor.probe import NAMES

PROBE = "curiosft_cli.tools.doctor.probe"
REINSTALL = "Install torch and transformers again (docs/install.md)."


def training(asked: Asked, limit_s: float = 120.0) -> Iterator[Finding]:
    """torch against the driver, bfloat16, a training step and a generation, each as soon as it is known."""
    left = list(NAMES)
    with tempfile.TemporaryFile("w+") as said:
        wanted = {getattr(asked.config, stage).precision for stage in asked.stages - {"rephrase"}} & {"bfloat16"}
        command = [sys.executable, "-m", PROBE, *sorted(asked.stages | wanted)]
        child = subprocess.Popen(command, env=isolated(os.environ), stdout=subprocess.PIPE, stderr=said, text=True)
        timer = threading.Timer(limit_s, child.kill)
        timer.start()
        try:
            for line in child.stdout or ():
                found = Finding(**json.loads(line))
                left.remove(found.name)
                yield found
            code = child.wait()
        finally:
            timer.cancel()
            child.kill()
            child.wait()
        said.seek(0)
        last = (said.read().strip().splitlines() or [f"the process ended with {code}"])[-1]
    level = asked.level("sft", "rl", "eval") if asked.stages else "error"
    for name in left:
        yield Finding(name, level, shortened(last, 160), REINSTALL)


def all_reduce(asked: Asked, limit_s: float = 90.0) -> Iterator[Finding]:
    """Two processes that sum a number through torch.distributed, as a training on several devices does."""
    environment = isolated(os.environ) | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", PROBE, "reduce"]
    children = [
        subprocess.Popen(
            command, env=environment | {"RANK": str(rank)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    try:
        said = [child.communicate(timeout=limit_s) for child in children]
    except subprocess.TimeoutExpired:
        said = [("", f"no answer within {limit_s:.0f} s")]
    finally:
        for child in children:
            child.kill()
            child.wait()
    results = [out.strip() for out, _ in said]
    if len(results) == 2 and all(result.startswith("3.0 ") for result in results):
        yield Finding("all-reduce", "ok", f"two processes, {results[0].split()[1]}")
        return
    last = next((err.strip().splitlines()[-1] for _, err in said if err.strip()), "a wrong sum")
    processes = asked.config.launch.processes or 1
    level = asked.level("sft", "rl") if processes > 1 else "warning"
    fix = "Look at firewalls, GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME; one process works without it."
    yield Finding("all-reduce", level, f"failed: {shortened(last, 160)}", fix)
