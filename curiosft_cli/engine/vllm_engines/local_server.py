"""A vLLM server on loopback that lives as long as a context, with all its processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from curiosft_cli.engine.endpoint.outcomes import Fault
from curiosft_cli.engine.endpoint.transport import Refused, Wire
from curiosft_cli.engine.spec import EngineSpec
from curiosft_cli.engine.vllm_engines.cpu_tuning import cpu_server_arguments
from curiosft_cli.engine.vllm_engines.embedded import DEFAULTS, IN_PROCESS, require_vllm
from curiosft_cli.run.device import resolve_dtype
from curiosft_cli.run.errors import MISSING, CurioError
from curiosft_cli.run.processes import free_port

HOST = "127.0.0.1"
ENVIRONMENT = DEFAULTS | {"VLLM_LOGGING_LEVEL": "INFO"}
"""As for an embedded engine, with more in the log, since that is a file."""


@contextmanager
def serve(
    spec: EngineSpec,
    *,
    name: str,
    log_file: Path,
    api_key: str | None = None,
    copies: int = 1,
    start_limit_s: float = 300.0,
    stop_limit_s: float = 10.0,
    attempts: int = 3,
) -> Generator[str]:
    """Start vLLM's OpenAI-compatible server on a free loopback port; yield its base URL; end all its processes.

    They also end when this process is killed.

    Args:
        spec: the model; a request for more than its `max_model_len` gets status 400.
        name: model name that requests use.
        log_file: what the server prints is appended to it.
        api_key: every request must have it; None serves every process of this machine.
        copies: of the model, each on devices of its own; the server shares out the requests.
        start_limit_s: seconds until it must answer.
        stop_limit_s: seconds between SIGTERM and SIGKILL.
        attempts: how many ports to try, since another process may take the free one first.

    Raises:
        CurioError: exit code 3 when vLLM is missing or the server does not come up, with its last lines.
    """
    require_vllm()
    log_file.parent.mkdir(parents=True, exist_ok=True)
    arguments = [*_model_arguments(spec), "--served-model-name", name, "--host", HOST]
    arguments += ["--data-parallel-size", str(copies)] if copies > 1 else []
    for attempt in range(1, attempts + 1):
        port = free_port(HOST)
        start_of_log = log_file.stat().st_size if log_file.exists() else 0
        process = _start([*arguments, "--port", str(port)], log_file, api_key, stop_limit_s)
        base_url = f"http://{HOST}:{port}/v1"
        try:
            if asyncio.run(_answers(process, base_url, name, api_key, start_limit_s)):
                yield base_url
                return
        finally:
            _stop(process, stop_limit_s)
        log = log_file.read_bytes()[start_of_log:].decode(errors="replace")
        if "address already in use" not in log.lower() or attempt == attempts:
            raise CurioError(_failure(log, start_limit_s), f"The whole log is {log_file}", MISSING)


def _model_arguments(spec: EngineSpec) -> list[str]:
    import torch

    arguments = ["--model", str(spec.model), "--max-model-len", str(spec.max_model_len)]
    arguments += ["--dtype", resolve_dtype(spec.dtype), "--logprobs-mode", f"{spec.logprobs}_logprobs"]
    arguments += ["--revision", spec.revision] if spec.revision else []
    arguments += ["--trust-remote-code"] if spec.trust_remote_code else []
    arguments += ["--hf-overrides", json.dumps(spec.hf_overrides)] if spec.hf_overrides else []
    for key, value in spec.vllm.items():
        option = key.replace("_", "-")
        arguments += [f"--{'' if value else 'no-'}{option}"] if isinstance(value, bool) else [f"--{option}={value}"]
    if torch.cuda.is_available():
        return [*arguments, "--gpu-memory-utilization", str(spec.gpu_memory_utilization)]
    return [*arguments, *cpu_server_arguments(spec.cpu_kv_cache_gib)]


def _start(arguments: list[str], log_file: Path, api_key: str | None, stop_limit_s: float) -> subprocess.Popen[bytes]:
    """Start the server under a supervisor, in a process group of its own. The key is not on the command line."""
    embedded_only = {*IN_PROCESS, "VLLM_API_KEY"}  # an engine opened in this process before may have left them
    environment = ENVIRONMENT | {name: value for name, value in os.environ.items() if name not in embedded_only}
    if api_key is not None:
        environment["VLLM_API_KEY"] = api_key
    supervisor = [sys.executable, "-m", "curiosft_cli.run.processes", str(os.getpid()), str(stop_limit_s)]
    with log_file.open("ab") as log:
        return subprocess.Popen(
            [*supervisor, sys.executable, "-m", "vllm.entrypoints.openai.api_server", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


async def _answers(
    process: subprocess.Popen[bytes],
    base_url: str,
    name: str,
    api_key: str | None,
    limit_s: float,
    poll_s: float = 0.2,
) -> bool:
    """Wait until the server names its model; False when the process ends or the time is over."""
    wire = Wire(base_url, api_key or "", connections=1)
    deadline = time.monotonic() + limit_s
    try:
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(Refused, Fault, TimeoutError, ValueError):
                async with asyncio.timeout(10 * poll_s):
                    models = json.loads(await wire.send("/models"))["data"]
                if any(model["id"] == name for model in models):
                    return True
            await asyncio.sleep(poll_s)
        return False
    finally:
        await wire.close()


def _failure(log: str, limit_s: float, lines: int = 10, longest: int = 300) -> str:
    """One message with the end of the log."""
    last = [line[:longest] for line in log.strip().splitlines()[-lines:]]
    return f"the vLLM server ended or did not answer within {limit_s:g} s; its last lines:\n" + "\n".join(last) + "\n"


def _stop(process: subprocess.Popen[bytes], limit_s: float) -> None:
    """End the group through its supervisor; kill the group when that takes more than twice the limit."""
    process.terminate()
    try:
        process.wait(2 * limit_s)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
