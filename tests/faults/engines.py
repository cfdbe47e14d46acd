"""The engine of an rl run dies: a real vLLM server is killed while it samples, and while it takes new weights.

The command ends with one line and exit code 3. With a new server the same command goes on from the last checkpoint.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from curiosft_cli.engine.spec import EngineSpec
from curiosft_cli.engine.vllm_engines.embedded import vllm_installed
from curiosft_cli.engine.vllm_engines.local_server import serve
from curiosft_cli.run.rundir import StageDir
from faults.forked import Fork, load_everything
from faults.kills import LIMIT_S
from faults.report import Row
from faults.stages import RL, Models

STEPS = 6
# While the folder of the weights changes, the server reads it or is about to.
MOMENTS: dict[str, Callable[[Path], bool]] = {
    "while it samples": lambda stage: _lines(stage / "rollouts/step-000003.rank-00000.jsonl") >= 3,
    "while it takes new weights": lambda stage: (
        _lines(stage / "metrics.jsonl") >= 2 and (stage / ".server-weights.partial").exists()
    ),
}


def engines(folder: Path, models: Models) -> list[Row]:
    """Kill a server at each moment, start another one, and run the same command again."""
    if not vllm_installed():
        print("engines: vLLM is not installed", flush=True)
        return []
    load_everything()
    folder.mkdir(parents=True)
    rows = {moment: Row(f"the engine of `rl` is killed {moment}") for moment in MOMENTS}
    broken = ""
    for moment in (*MOMENTS, ""):
        with _server(folder, models) as url:
            if broken:
                _resume(folder, models, url, broken, rows[broken])
            if moment:
                rows[moment].count(_kill(folder, models, url, moment))
        broken = moment if moment and not rows[moment].failures else ""
    return list(rows.values())


def _server(folder: Path, models: Models) -> contextlib.AbstractContextManager[str]:
    os.environ["VLLM_SERVER_DEV_MODE"] = "1"
    spec = EngineSpec(models.box.parent / "box", 512, "float32", cpu_kv_cache_gib=0.1)
    return serve(spec, name="box", log_file=folder / "server.log", stop_limit_s=1.0)


def _rl(folder: Path, models: Models, url: str, moment: str) -> tuple[Fork, StageDir]:
    name = moment.replace(" ", "-")
    settings = [word for word in RL if not word.startswith("rl.steps")]
    place = (f"run.root={folder}", f"run.name={name}", f"rl.steps={STEPS}", f'rl.servers=["{url}"]')
    started = Fork("rl", str(models.box), *settings, *place, "launch.processes=0", folder=folder)
    return started, StageDir(folder / name / "rl")


def _kill(folder: Path, models: Models, url: str, moment: str) -> str | None:
    """Kill the server at the moment; returns what went wrong."""
    started, stage = _rl(folder, models, url, moment)
    while not MOMENTS[moment](stage.path) and started.process.poll() is None:
        time.sleep(0.001)
    for pid in _of_port(url.rpartition(":")[2].partition("/")[0]):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    done = started.wait_done(LIMIT_S)
    lines = [line for line in done.stderr.splitlines() if line.startswith("curiosft: ")]
    if done.returncode == 3 and len(lines) == 1 and "Traceback" not in done.stderr and stage.checkpoints():
        return None
    return f"{stage.path}: exit code {done.returncode}, checkpoints {stage.checkpoints()}: {done.stderr[-1500:]}"


def _resume(folder: Path, models: Models, url: str, moment: str, row: Row) -> None:
    begun = time.monotonic()
    started, stage = _rl(folder, models, url, moment)
    kept, done_before = stage.checkpoints()[-1], _lines(stage.path / "metrics.jsonl")
    done = started.wait_done(LIMIT_S)
    row.recover_s.append(time.monotonic() - begun)
    row.lost = f"at most {done_before - kept} steps" if done_before > kept else "nothing"
    if done.returncode or _lines(stage.path / "metrics.jsonl") != STEPS:
        row.held -= 1
        row.failures.append(f"{stage.path}: cannot go on: {done.stderr[-1500:]}")


def _of_port(port: str) -> list[int]:
    """The processes of the server of this port, without their supervisor."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            if port.encode() in words and b"curiosft_cli.run.processes" not in words:
                session = os.getsid(int(entry.name))
                found += [pid for pid in _session(session) if pid != session]
    return found


def _session(session: int) -> list[int]:
    members = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and os.getsid(int(entry.name)) == session:
                members.append(int(entry.name))
    return members


def _lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0
