"""A vLLM server on loopback for as long as it is needed, and nothing of it afterwards."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from curiosft_cli.engine.device import Dtype, resolve_dtype
from curiosft_cli.engine.vllm import GIB, vllm_installed
from curiosft_cli.run.errors import MISSING, CurioError
from curiosft_cli.run.processes import die_with_parent, free_port

HOST = "127.0.0.1"
ENVIRONMENT = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


@contextmanager
def serve(
    model_dir: str | Path,
    *,
    name: str,
    log_file: Path,
    max_model_len: int,
    dtype: Dtype = "auto",
    kv_cache_gib: float = 1.0,
    start_limit_s: float = 300.0,
    stop_limit_s: float = 10.0,
) -> Generator[str]:
    """Start vLLM's OpenAI-compatible server on a free loopback port; yield its base URL; stop all its processes.

    Args:
        model_dir: model folder with a tokenizer.
        name: model name that requests use.
        log_file: receives what the server prints.
        max_model_len: tokens of prompt and completion together.
        kv_cache_gib: key-value cache on a CPU, GiB.
        start_limit_s: seconds until it must answer.
        stop_limit_s: seconds between asking it to stop and killing it.

    Raises:
        CurioError: exit code 3 when vLLM is missing or the server does not come up.
    """
    if not vllm_installed():
        raise CurioError("a local endpoint needs vLLM, which is not installed", "Give rephrase.base_url.", MISSING)
    import torch

    port = free_port(HOST)
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model_dir)]
    command += ["--served-model-name", name, "--host", HOST, "--port", str(port)]
    command += ["--max-model-len", str(max_model_len), "--dtype", resolve_dtype(dtype)]
    if not torch.cuda.is_available():
        command += ["--enforce-eager", "--kv-cache-memory-bytes", str(int(kv_cache_gib * GIB))]
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            command,
            env=ENVIRONMENT | os.environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=functools.partial(die_with_parent, os.getpid()),
        )
    try:
        _wait_until_healthy(process, f"http://{HOST}:{port}/health", start_limit_s, log_file)
        yield f"http://{HOST}:{port}/v1"
    finally:
        _stop_group(process, stop_limit_s)


def _wait_until_healthy(process: subprocess.Popen[bytes], url: str, limit_s: float, log_file: Path) -> None:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=2):
            return
        time.sleep(0.2)
    lines = log_file.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = lines[-1] if lines else "it printed nothing"
    raise CurioError(f"the vLLM server did not come up: {last}", f"See {log_file}.", MISSING)


def _stop_group(process: subprocess.Popen[bytes], limit_s: float) -> None:
    """The server's engine and workers survive it, so its whole process group is ended."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(limit_s)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
