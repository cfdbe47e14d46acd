"""`curiosft model push`: what would be sent, the card, and what a hub of our own gets."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import curiosft
from made_runs import evaluated, make_run

CARD = "---\nlicense: mit\n---\n# The base\n"


class FakeHub(BaseHTTPRequestHandler):
    """Takes a new repository and a commit with all files inline."""

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append((self.path, self.headers.get("Authorization"), content))  # ty: ignore[missing-attribute]
        where = "https://huggingface.co/me/math"
        answer: dict[str, Any] = {"url": where, "name": "me/math"}
        if self.headers.get("Authorization") != "Bearer hf_good":
            return self._answer(401, {"error": "Invalid user token."})
        if "/preupload/" in self.path:
            named = json.loads(content)["files"]
            answer = {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in named]}
        elif "/commit/" in self.path:
            answer = {"commitUrl": f"{where}/commit/1", "commitOid": "1" * 40, "pullRequestUrl": None}
        return self._answer(200, answer)

    def do_GET(self) -> None:
        self._answer(200, {"id": "me/math", "sha": "0" * 40, "siblings": []})

    def _answer(self, status: int, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), FakeHub) as server:
        server.requests = []  # ty: ignore[missing-attribute]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run on private files whose checkpoint was evaluated, with the card of its base model in it."""
    secret = {"model": {"path": "/home/me/secret/base"}, "data": {"train": ["/home/me/secret/rows.jsonl", "me/data"]}}
    run = make_run(tmp_path / "runs", "math", {4: {}}, extra={"README.md": CARD, "config.json": "{}"}, **secret)
    (run / "sft" / "checkpoint-4" / "trainer_state.json").write_text("{}")
    evaluated(run / "eval" / "sft" / "amc", run / "sft" / "checkpoint-4", [1, 3])
    return run


def push(run: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return curiosft("model", "push", f"{run.name}:sft@4", "--to", "me/math", f"run.root={run.parent}", *more)


def test_a_dry_run_shows_the_files_and_the_card(run: Path) -> None:
    done = push(run)
    assert done.returncode == 0 and done.stdout.endswith("nothing was sent; --upload sends it\n")
    assert "me/math (private, if it is new):" in done.stdout and "(public)" in push(run, "--public").stdout
    files, head, text = done.stdout.split("---\n")
    assert [line.split()[-1] for line in files.splitlines()[1:3]] == ["config.json", "model.safetensors"]
    assert yaml.safe_load(head)["license"] == "mit" and yaml.safe_load(head)["tags"] == ["curiosft", "sft", "curio"]
    assert "| amc | 2 x 4 | 50.0 |" in text and "rows.jsonl, me/data" in text and "sft.learning_rate" in text
    assert "You are an exceptional mathematician." in text and "secret" not in done.stdout


def test_what_the_hub_gets(run: Path, hub: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    command = [
        sys.executable,
        "-m",
        "curiosft_cli.cli",
        "model",
        "push",
        "math:sft",
        "--to",
        "me/math",
        f"run.root={run.parent}",
    ]
    sent = subprocess.run([*command, "--upload"], capture_output=True, text=True, timeout=100)
    assert sent.returncode == 0, sent.stderr
    assert sent.stdout.endswith("sent: https://huggingface.co/me/math/commit/1\n")
    requests: list[Any] = hub.requests  # ty: ignore[missing-attribute]
    created = next(json.loads(content) for path, _, content in requests if path.endswith("/repos/create"))
    assert created["visibility"] == "private" and created["name"] == "math"
    (commit,) = [content for path, _, content in requests if "/commit/" in path]
    files = {row["value"]["path"]: row["value"] for row in map(json.loads, commit.splitlines()) if row["key"] == "file"}
    assert set(files) == {"README.md", "config.json", "model.safetensors"}
    assert base64.b64decode(files["model.safetensors"]["content"]) == b"math 4"
    assert b"license: mit" in base64.b64decode(files["README.md"]["content"])

    monkeypatch.setenv("HF_TOKEN", "hf_bad")
    refused = subprocess.run([*command, "--upload"], capture_output=True, text=True, timeout=100)
    assert refused.returncode == 3 and "the hub refused me/math" in refused.stderr
    assert "hf_bad" not in refused.stderr + refused.stdout and "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("reference", "to", "said"),
    [
        ("math:sft@4", "math", "--to math is not the name of a repository"),
        ("math:sft@5", "me/math", "checkpoint 'math:sft@5' does not exist"),
        ("base", "me/math", "'base' is not a checkpoint of a run"),
    ],
)
def test_bad_input_is_one_line(run: Path, reference: str, to: str, said: str) -> None:
    done = curiosft("model", "push", reference, "--to", to, f"run.root={run.parent}")
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_changed_checkpoint_and_no_network_send_nothing(run: Path) -> None:
    offline = push(run, "--upload")
    assert offline.returncode == 3 and "HF_HUB_OFFLINE is set" in offline.stderr
    (run / "sft" / "checkpoint-4" / "model.safetensors").write_text("math 5")
    changed = push(run)
    assert changed.returncode == 2 and "model.safetensors was changed or damaged" in changed.stderr
