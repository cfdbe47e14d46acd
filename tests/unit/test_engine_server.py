"""The server's life, with a stand-in that speaks just enough HTTP: started, asked, ended, never left behind."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from curiosft_cli.engine.spec import EngineSpec
from curiosft_cli.engine.vllm_engines import embedded as vllm
from curiosft_cli.engine.vllm_engines import local_server as server
from curiosft_cli.engine.vllm_engines.local_server import serve
from curiosft_cli.run.errors import MISSING, CurioError

STAND_IN = """
import http.server, json, os, pathlib, signal, socket, subprocess, sys

def value(option):
    return sys.argv[sys.argv.index(option) + 1]

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        key = os.environ.get("VLLM_API_KEY")
        self.send_response(200 if key is None or self.headers["Authorization"] == f"Bearer {key}" else 401)
        self.end_headers()
        self.wfile.write(json.dumps({"data": [{"id": value("--served-model-name")}]}).encode())

home = pathlib.Path(os.environ["STAND_IN_HOME"])
worker = subprocess.Popen([sys.executable, "-c", "import signal, time; "
    "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('worker', flush=True); time.sleep(600)"],
    stdout=subprocess.PIPE)
worker.stdout.readline()
(home / "pids").write_text(f"{os.getpid()} {worker.pid}")
mode = (home / "mode").read_text()
if mode == "crash":
    sys.exit("the model is broken")
if mode == "silent":
    signal.pause()
if mode == "taken":
    (home / "mode").write_text("good")
    sys.exit("OSError: [Errno 98] Address already in use")
http.server.HTTPServer(("127.0.0.1", int(value("--port"))), Answer).serve_forever()
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder that replaces vLLM by the stand-in in every child process."""
    module = tmp_path / "vllm" / "entrypoints" / "openai" / "api_server.py"
    module.parent.mkdir(parents=True)
    for package in (module.parent, *module.parent.parents[:2]):
        (package / "__init__.py").touch()
    module.write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("STAND_IN_HOME", str(tmp_path))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr(vllm, "vllm_installed", lambda: True)
    (tmp_path / "mode").write_text("good")
    return tmp_path


def start(home: Path, **options: Any) -> AbstractContextManager[str]:
    return serve(EngineSpec("model", 64), name="m", log_file=home / "log" / "server.txt", **options)


def alive(pid: int) -> bool:
    """Whether the process runs; one that ended and was not collected does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(condition: Callable[[], bool], limit_s: float = 20.0) -> bool:
    deadline = time.monotonic() + limit_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def pids(home: Path) -> list[int]:
    return [int(pid) for pid in (home / "pids").read_text().split()]


def test_a_server_answers_and_leaves_no_process(home: Path) -> None:
    """The worker ignores SIGTERM, as a busy one may."""
    with start(home, api_key="secret", stop_limit_s=0.5) as base_url:
        assert base_url.startswith("http://127.0.0.1:") and base_url.endswith("/v1")
        assert [alive(pid) for pid in pids(home)] == [True, True]
        assert b"secret" not in Path(f"/proc/{pids(home)[0]}/cmdline").read_bytes()
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with pytest.raises(urllib.error.HTTPError, match="401"):
            direct.open(f"{base_url}/models")
    assert until(lambda: not any(map(alive, pids(home))))


def test_an_error_inside_ends_the_server_and_rises(home: Path) -> None:
    with pytest.raises(ZeroDivisionError), start(home, stop_limit_s=0.5):
        raise ZeroDivisionError
    assert until(lambda: not any(map(alive, pids(home))))


def test_a_taken_port_is_tried_again(home: Path) -> None:
    (home / "mode").write_text("taken")
    with start(home, stop_limit_s=0.5) as base_url:
        assert base_url
    assert "already in use" in (home / "log" / "server.txt").read_text()


def test_a_crash_shows_the_last_lines(home: Path) -> None:
    (home / "mode").write_text("crash")
    with pytest.raises(CurioError, match="the model is broken") as raised, start(home, stop_limit_s=0.5):
        pass
    assert raised.value.exit_code == MISSING
    assert str(home / "log" / "server.txt") in str(raised.value)
    assert until(lambda: not any(map(alive, pids(home))))


def test_silence_has_a_limit(home: Path) -> None:
    (home / "mode").write_text("silent")
    with pytest.raises(CurioError, match="within 2 s"), start(home, start_limit_s=2, stop_limit_s=0.5):
        pass
    assert until(lambda: not any(map(alive, pids(home))))


def test_a_foreign_server_on_the_port_is_not_taken_for_ours(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Foreign(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"data": [{"id": "foreign"}]}).encode())

        def log_message(self, format: str, *args: object) -> None:
            asked.append(format)

    asked: list[str] = []
    (home / "mode").write_text("silent")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Foreign) as foreign:
        threading.Thread(target=foreign.serve_forever, daemon=True).start()
        monkeypatch.setattr(server, "free_port", lambda host: foreign.server_port)
        with pytest.raises(CurioError), start(home, start_limit_s=2, stop_limit_s=0.5):
            pass
        foreign.shutdown()
    assert asked


def test_killing_the_parent_ends_everything(home: Path) -> None:
    program = (
        "import os, time, pathlib; from curiosft_cli.engine.vllm_engines import embedded; "
        "embedded.vllm_installed = lambda: True\n"
        "from curiosft_cli.engine.vllm_engines.local_server import serve\n"
        "from curiosft_cli.engine.spec import EngineSpec\n"
        "log_file = pathlib.Path(os.environ['STAND_IN_HOME']) / 'log'\n"
        "with serve(EngineSpec('model', 64), name='m', log_file=log_file, stop_limit_s=0.5):\n"
        "    print('up', flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"up\n"
    parent.kill()
    parent.wait()
    assert until(lambda: not any(map(alive, pids(home))))


def test_a_supervisor_refuses_a_group_that_is_not_its_own() -> None:
    command = [sys.executable, "-m", "curiosft_cli.run.processes", str(os.getpid()), "1", "true"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert finished.returncode == 1
    assert "group of its own" in finished.stderr
