"""Start a stage's processes: through accelerate for training, as one plain process for the rest."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from curiosft_cli.run.config import from_json
from curiosft_cli.run.cpu_allocator import cpu_allocator_environment
from curiosft_cli.run.errors import BAD_INPUT, GUARD, INTERRUPTED, MISSING, TERMINATED, CurioError, file_trouble
from curiosft_cli.run.processes import (
    die_with_parent,
    free_port,
    hide_exits_in_tasks,
    ignore_stop_signals,
    isolated,
    usable_cores,
)
from curiosft_cli.run.rundir import StageDir
from curiosft_cli.run.sections import Config
from curiosft_cli.run.terminal import TERMINAL, messages, restore, terminal
from curiosft_cli.run.text import one_line, show
from curiosft_cli.run.workers import FOLDER, Workers, register, report_wait

# Silences remarks of libraries on their own set-up. Idle threads of OpenMP sleep: by its own default they spin, and a
# process beside others then stands still. The user's own settings win.
ENVIRONMENT = {
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TRANSFORMERS_VERBOSITY": "error",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "OMP_WAIT_POLICY": "PASSIVE",
}
LESS_MEMORY = (
    "If the memory was full, lower max_tokens_per_batch, head_chunk or kv_cache_gib of the stage, or launch.processes."
)
SAME_COMMAND = "The same command continues."
POLL_S = 1.0
StageBody = Callable[[Config, StageDir], None]
GPU_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("/dev/dxg"))
"""Device files of Linux for an NVIDIA GPU, an AMD GPU, and a GPU of Windows under WSL."""


class Ended(NamedTuple):
    """How the processes of a stage ended.

    Attributes:
        code: exit code.
        says: what is to say of a process that a signal ended, or that hung.
        fix: the next step then.
    """

    code: int
    says: str | None = None
    fix: str = SAME_COMMAND


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
        _run_here(module, stage, config)
        return
    environment = isolated(ENVIRONMENT | os.environ)
    if accelerate:
        command = _accelerate_command(module, stage, config, extra, environment)
    else:
        _set_threads(environment, config, processes=1)
        command = [sys.executable, "-m", module, str(stage.path)]
    # Of several machines the first alone writes to the run folder.
    set_status = stage.set_status if is_first(extra) else _nothing
    set_status("running")
    ended = _wait(command, environment, config.launch.stop_limit_s, stage.log_file)
    status = stage.status()
    # On a second machine the launcher may return before the first machine has written its status.
    if ended.code == 0 and status["state"] in ("complete", "running"):
        return
    if status["state"] == "failed" and "error" in status:
        raise CurioError(status["error"], exit_code=status["exit_code"])
    if ended.code in (TERMINATED, INTERRUPTED) and status["state"] != "complete":
        set_status("interrupted")
    if ended.says:
        error = CurioError(ended.says, ended.fix, 1)
        set_status("failed", error=str(error), exit_code=1)
        raise error
    if ended.code in (BAD_INPUT, MISSING, GUARD, TERMINATED, INTERRUPTED):
        raise SystemExit(ended.code)
    error = CurioError("a process of the stage failed", f"The reason is above, or in {stage.log_file}.", 1)
    set_status("failed", error=str(error), exit_code=1)
    raise error


def _nothing(state: str, **more: object) -> None:
    """In place of `StageDir.set_status`."""


def is_first(extra: Sequence[str]) -> bool:
    """Whether this command, with these arguments for `accelerate launch`, is on the first of several machines.

    Under a launcher that is there already, whether this is the first of its processes.
    """
    if "WORLD_SIZE" in os.environ:
        return _is_rank_0()
    options = dict(pair.partition("=")[::2] if "=" in pair else (pair, after) for pair, after in pairwise([*extra, ""]))
    named = options.get("--machine_rank") or options.get("--machine-rank")
    if named is None and (file := options.get("--config_file") or options.get("--config-file")):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            found = re.search(r"^machine_rank:\s*(\d+)", Path(file).read_text(encoding="utf-8"), re.MULTILINE)
            named = found[1] if found else None
    return named in (None, "0")


def _is_rank_0() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _run_here(module: str, stage: StageDir, config: Config) -> None:
    first = _is_rank_0()
    os.environ.update(ENVIRONMENT | os.environ)
    try:
        importlib.import_module(module).run(config, stage)
    except (KeyboardInterrupt, SystemExit):
        if first:
            stage.set_status("interrupted")
        raise
    if first:
        stage.set_status("complete")


def run_stage(body: StageBody) -> None:
    """The `main` of a stage's process: read the folder named by the only argument, run the body, record the outcome."""
    from curiosft_cli.run.files import write_json
    from curiosft_cli.run.log import environment

    die_with_parent()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    hide_exits_in_tasks()
    # A background job of a shell inherits that SIGINT is ignored, but the launcher forwards SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    register()
    stage = StageDir(Path(sys.argv[1]))
    config = from_json(stage.config_file)
    first = _is_rank_0()
    if first:
        write_json(stage.path / "env.json", environment())
    try:
        body(config, stage)
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        known = error if isinstance(error, CurioError) else file_trouble(error)
        if known is None:
            with stage.log_file.open("a", encoding="utf-8") as log:
                log.write(traceback.format_exc())
            if _waited_in_vain(error):
                report_wait()
                # The usual end of Python ends torch's thread for the exchange first, which may abort the process.
                os._exit(1)
            elif not _lost_the_others(error):
                show(traceback.format_exc(), messages())
            raise SystemExit(1) from None
        raise _failed(stage, known) from None
    else:
        if first:
            stage.set_status("complete")
    finally:
        ignore_stop_signals()


@contextmanager
def stop_request(at_once_after_s: float = 1.0) -> Generator[threading.Event]:
    """An event that SIGTERM sets, so that a training can end after its step. A second SIGTERM ends it at once.

    Args:
        at_once_after_s: a batch system may send the signal to every process, and the command passes it on: a second one
            that comes so soon is the same.
    """
    asked, since = threading.Event(), [0.0]

    def ask(*_: object) -> None:
        if asked.is_set() and time.monotonic() - since[0] > at_once_after_s:
            sys.exit(TERMINATED)
        since[0] = time.monotonic()
        asked.set()

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


def _lost_the_others(error: Exception) -> bool:
    """Whether the ranks' connection broke: another rank ended first, and its reason is the one to print."""
    broken = (
        "connection closed by peer",
        "connection reset by peer",
        "communicator was aborted",
        "remote process exited",
    )
    return _between_ranks(error, broken)


def _waited_in_vain(error: Exception) -> bool:
    """Whether an exchange between the ranks took longer than `launch.exchange_limit_s`."""
    return _between_ranks(error, ("timed out",))


def _between_ranks(error: BaseException | None, texts: Sequence[str]) -> bool:
    """Whether one of several ranks met an error of torch with one of these texts, if only before the last error."""
    while error is not None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        if isinstance(error, RuntimeError) and any(text in str(error).lower() for text in texts):
            return True
        error = error.__cause__ or error.__context__
    return False


def _failed(stage: StageDir, error: CurioError) -> SystemExit:
    """Record why the stage stopped; print it to stderr if even the record cannot be written."""
    try:
        stage.set_status("failed", error=str(error), exit_code=error.exit_code)
    except OSError:
        show(f"curiosft: {one_line(str(error))}", messages())
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
        # `--cpu --num_processes 2` silently runs one process; `--multi_gpu` with this variable runs two.
        environment["ACCELERATE_USE_CPU"] = "true"
        sharded = processes > 1 and config.launch.shard is not None
        for name, value in cpu_allocator_environment(sharded=sharded).items():
            environment.setdefault(name, value)
    if processes > 1:
        options.append("--multi_gpu")
    if extra:
        # The user's own flags replace all of ours.
        options = list(extra)
    launcher = [sys.executable, "-m", "curiosft_cli.train.accelerated"]
    return [*launcher, *options, "--module", module, str(stage.path)]


def _count_gpus() -> int:
    """GPUs that torch can use. Loading torch takes seconds, so a machine without GPU devices does not load it."""
    if sys.platform.startswith("linux") and not any(device.exists() for device in GPU_DEVICES):
        return 0
    import torch

    return torch.cuda.device_count()


def _set_threads(environment: dict[str, str], config: Config, processes: int) -> None:
    """Threads per process: the configured number, else the user's OMP_NUM_THREADS, else an equal share of the cores."""
    if config.launch.threads is not None:
        environment["OMP_NUM_THREADS"] = str(config.launch.threads)
    environment.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // processes)))


def _wait(command: Sequence[str], environment: dict[str, str], stop_limit_s: float, log_file: Path) -> Ended:
    """Run the command in a session of its own, pass on SIGTERM and Ctrl-C, and leave no process of it behind.

    On a terminal the standard error of its processes goes to `log_file`.

    The processes of the stage get the signal, not what stands between: a training saves and ends. At a second signal,
    or after `stop_limit_s`, everything is killed.
    """
    workers, received = Workers(), []
    parent = functools.partial(die_with_parent, os.getpid())
    environment = environment | {FOLDER: str(workers.folder)}
    if (name := terminal()) is not None:
        environment[TERMINAL] = name
    with nullcontext() if name is None else log_file.open("ab") as errors:
        child = subprocess.Popen(command, env=environment, start_new_session=True, preexec_fn=parent, stderr=errors)

    def kill() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)

    def forward(number: int, _: object) -> None:
        received.append((number, time.monotonic()))
        if len(received) > 1 or not workers.send(number):
            kill()

    before = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    hangs = None
    try:
        while (code := _code_within(child, POLL_S)) is None:
            hangs = hangs or workers.poll()
            if hangs or (received and time.monotonic() - received[0][1] > stop_limit_s):
                kill()
        hangs = hangs or workers.poll()
        if received:
            return Ended(TERMINATED if received[0][0] == signal.SIGTERM else INTERRUPTED)
        if hangs:
            return Ended(code, hangs)
        return Ended(code, workers.death(child.pid, code), f"{LESS_MEMORY} {SAME_COMMAND}")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        kill()
        workers.close()
        if name is not None:
            restore(name)


def _code_within(child: subprocess.Popen[bytes], seconds: float) -> int | None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        return child.wait(seconds)
    return None
