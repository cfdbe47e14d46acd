"""Start a stage's processes: through accelerate for training, as one plain process for the rest."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from curiosft_cli.run.config import from_json
from curiosft_cli.run.cpu_memory import memory_environment
from curiosft_cli.run.errors import BAD_INPUT, GUARD, INTERRUPTED, MISSING, TERMINATED, CurioError, file_trouble
from curiosft_cli.run.processes import die_with_parent, free_port
from curiosft_cli.run.rundir import StageDir
from curiosft_cli.run.sections import Config

# Third parties' remarks on their own set-up; the user's own settings win.
QUIET_ENVIRONMENT = {"TORCH_CPP_LOG_LEVEL": "ERROR", "TRANSFORMERS_VERBOSITY": "error", "VLLM_LOGGING_LEVEL": "ERROR"}
StageBody = Callable[[Config, StageDir], None]
GPU_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("/dev/dxg"))
"""What Linux has where there is an NVIDIA or AMD GPU, or one of Windows below it."""


def launch(module: str, stage: StageDir, config: Config, extra: Sequence[str] = (), *, accelerate: bool) -> None:
    """Run `module` for this stage folder and return when it is complete.

    Args:
        module: import path of a stage whose `main` ends in `run_stage`.
        stage: folder with its config.json written.
        extra: arguments for `accelerate launch`, unchanged.
        accelerate: start through accelerate; otherwise one Python process.

    Raises:
        CurioError: the stage stopped with a message of its own.
        SystemExit: a child failed (1), or a signal ended it (75, 130).
    """
    if "WORLD_SIZE" in os.environ or config.launch.processes == 0:
        importlib.import_module(module).run(config, stage)
        stage.set_status("complete")
        return
    environment = QUIET_ENVIRONMENT | os.environ
    if accelerate:
        command = _accelerate_command(module, stage, config, extra, environment)
    else:
        _set_threads(environment, config, processes=1)
        command = [sys.executable, "-m", module, str(stage.path)]
    stage.set_status("running")
    code = _wait(command, environment)
    status = stage.status()
    # On a second machine the launcher may return before the first one's last word is written.
    if code == 0 and status["state"] in ("complete", "running"):
        return
    if status["state"] == "failed" and "error" in status:
        raise CurioError(status["error"], exit_code=status["exit_code"])
    raise SystemExit(code if code in (BAD_INPUT, MISSING, GUARD, TERMINATED, INTERRUPTED) else 1)


def run_stage(body: StageBody) -> None:
    """The `main` of a stage's process: read the folder named by the only argument, run, record the outcome."""
    from curiosft_cli.run.files import write_json
    from curiosft_cli.run.log import environment

    die_with_parent()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    # A shell's background jobs inherit that it is ignored; the launcher hands it on all the same.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    stage = StageDir(Path(sys.argv[1]))
    config = from_json(stage.config_file)
    first = int(os.environ.get("RANK", "0")) == 0
    if first:
        write_json(stage.path / "env.json", environment())
    try:
        body(config, stage)
    except CurioError as error:
        raise _failed(stage, error) from None
    except OSError as error:
        known = file_trouble(error)
        if known is None:
            raise
        raise _failed(stage, known) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except Exception:
        with stage.log_file.open("a", encoding="utf-8") as log:
            log.write(traceback.format_exc())
        raise
    if first:
        stage.set_status("complete")


def _failed(stage: StageDir, error: CurioError) -> SystemExit:
    """Record why the stage stopped; where not even that can be written, stderr says it."""
    try:
        stage.set_status("failed", error=str(error), exit_code=error.exit_code)
    except OSError:
        print(f"curiosft: {error}", file=sys.stderr)
    return SystemExit(error.exit_code)


def _accelerate_command(
    module: str, stage: StageDir, config: Config, extra: Sequence[str], environment: dict[str, str]
) -> list[str]:
    gpus = _count_gpus()
    processes = config.launch.processes or max(1, gpus)
    _set_threads(environment, config, processes)
    options = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    options += ["--num_processes", str(processes), "--main_process_port", str(free_port())]
    if gpus == 0:
        # `--cpu --num_processes 2` runs one process and says nothing; `--multi_gpu` with this variable runs two.
        environment["ACCELERATE_USE_CPU"] = "true"
        for name, value in memory_environment().items():
            environment.setdefault(name, value)
    if processes > 1:
        options.append("--multi_gpu")
    if extra:
        # The user's own flags decide everything that accelerate has a flag for.
        options = list(extra)
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--quiet"]
    return [*launcher, *options, "--module", module, str(stage.path)]


def _count_gpus() -> int:
    """GPUs that torch can use. Loading torch takes seconds, so it is asked only where there may be one."""
    if sys.platform.startswith("linux") and not any(device.exists() for device in GPU_DEVICES):
        return 0
    import torch

    return torch.cuda.device_count()


def _set_threads(environment: dict[str, str], config: Config, processes: int) -> None:
    """Threads of each process: the configured number, else the user's OMP_NUM_THREADS, else the cores shared out."""
    if config.launch.threads is not None:
        environment["OMP_NUM_THREADS"] = str(config.launch.threads)
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))


def _wait(command: Sequence[str], environment: dict[str, str]) -> int:
    """Run the command in a session of its own, hand on SIGTERM and Ctrl-C, and leave nothing of it behind."""
    parent = functools.partial(die_with_parent, os.getpid())
    child = subprocess.Popen(command, env=environment, start_new_session=True, preexec_fn=parent)
    received: list[int] = []

    def forward(number: int, _: object) -> None:
        received.append(number)
        os.killpg(child.pid, number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    if received:
        return TERMINATED if received[0] == signal.SIGTERM else INTERRUPTED
    return code
