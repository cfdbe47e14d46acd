"""The paper's data and models by name, and repositories that only some accounts may read, against a hub of our own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from curiosft_cli.data.hub import hub_table, is_hub_id
from curiosft_cli.data.sources import read_source
from curiosft_cli.run.config import load
from curiosft_cli.run.errors import CurioError, hub_refusal
from curiosft_cli.stages.rephrase.run import questions_to_clean

TOKEN = "hf_goodtoken"
THOUGHT = "<think>\nHalf of 14 is 7.\n</think>\n\nThe answer is \\boxed{7}."


def authors_row(index: int) -> dict[str, Any]:
    """A made-up row with the columns of the authors' train.parquet."""
    return {
        "data_source": "",
        "prompt": [{"content": "Think first.", "role": "system"}, {"content": f"Halve {14 + index}.", "role": "user"}],
        "target": [{"content": THOUGHT, "role": "assistant"}],
        "ability": "math",
        "reward_model": {"ground_truth": "7", "style": "rule"},
        "extra_info": {"index": index, "split": "train"},
    }


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A folder with the files of their data set: the test files lack the column `target`."""
    folder = tmp_path / "Hao0oWang" / "CurioSFT_Data"
    folder.mkdir(parents=True)
    rows = [authors_row(index) for index in range(3)]
    without = [{name: value for name, value in row.items() if name != "target"} for row in rows]
    for name, content in (("train", rows), ("validation", rows), ("test.math", without), ("test.gpqa", without)):
        parquet.write_table(pyarrow.Table.from_pylist(content), folder / f"{name}.parquet")
    return tmp_path


def test_the_authors_questions_are_one_word(monkeypatch: pytest.MonkeyPatch, repository: Path, tmp_path: Path) -> None:
    import huggingface_hub

    def local(name: str, file: str, *, repo_type: str, revision: str | None) -> str:
        assert (repo_type, revision) == ("dataset", None)
        return str(repository / name / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", local)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    problems = [problem for _, problem in read_source("authors", run_dir=tmp_path)]
    assert [problem.id for problem in problems] == ["train-0", "train-1", "train-2"]
    assert (problems[1].question, problems[1].answer) == ("Halve 15.", "7")
    assert problems[0].response.startswith("Half of 14 is 7.\n</think>")
    source = "Hao0oWang/CurioSFT_Data:validation.parquet"
    held_out = [problem for _, problem in read_source(source, run_dir=tmp_path)]
    assert len(held_out) == 3


def test_the_three_sets_of_questions() -> None:
    """The authors' is what the paper trains on; the own rephrase starts from the raw ones."""
    assert load("curio").config.data.train == ("authors",)
    assert is_hub_id("authors") and is_hub_id("raw") and not is_hub_id("rephrase")
    assert questions_to_clean(load("curio", ["data.train=rephrase"]).config) == ("raw",)
    assert questions_to_clean(load("curio").config) == ("raw",)
    assert questions_to_clean(load("curio", ["data.train=mine.jsonl"]).config) == ("mine.jsonl",)
    assert questions_to_clean(load("curio", ["rephrase.data=a.jsonl"]).config) == ("a.jsonl",)


def test_a_file_of_the_hub_must_be_a_table() -> None:
    with pytest.raises(CurioError, match="no table"):
        hub_table("someone/some-data:readme.md")
    assert not is_hub_id("data/train.parquet") and is_hub_id("someone/some-data:train.parquet")


def test_the_authors_checkpoints_are_one_recipe() -> None:
    config = load("authors").config
    assert config.run.stages == ("eval",)
    assert config.eval.checkpoints == (
        "Hao0oWang/CurioSFT-Qwen2.5-Math-7B-SFT",
        "Hao0oWang/CurioSFT-Qwen2.5-Math-7B-RL",
    )


# ---- gated and private repositories ------------------------------------------------------------------------------


class Hub(BaseHTTPRequestHandler):
    """Serves one folder to those who have the token; says what the hub says to the others."""

    root: Path

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        name, _, file = self.path.removeprefix("/datasets").lstrip("/").partition("/resolve/main/")
        if self.headers.get("authorization") != f"Bearer {TOKEN}":
            # A private repository and one that does not exist look alike.
            code = "RepoNotFound" if "private" in name else "GatedRepo"
            return self._send(401, {"X-Error-Code": code, "X-Error-Message": "Access denied"}, b"")
        path = self.root / name / file
        if not file or not path.is_file():
            return self._send(404, {"X-Error-Code": "EntryNotFound"}, b"")
        content = path.read_bytes()
        self._send(200, {"ETag": f'"{len(content)}"', "X-Repo-Commit": "0" * 40}, content, body)

    def _send(self, status: int, headers: dict[str, str], content: bytes, body: bool = True) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def hub(repository: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("LocalHub", (Hub,), {"root": repository}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


READ_DATA = "from curiosft_cli.data.hub import hub_table; print(hub_table({name!r}).num_rows)"
READ_MODEL = (
    "from curiosft_cli.train.load import check_context; from curiosft_cli.run.sections import Model; "
    "print(check_context({name!r}, Model(), 5))"
)


def read(code: str, name: str, hub: str, home: Path, token: str | None) -> str:
    """What a fresh process prints that reads a repository from this hub."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    environment |= {"HF_ENDPOINT": hub, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    if token:
        environment["HF_TOKEN"] = token
    wrapped = (
        f"try:\n    {code.format(name=name)}\nexcept Exception as error:\n    "
        "print(type(error).__name__, getattr(error, 'exit_code', ''), error)"
    )
    done = subprocess.run([sys.executable, "-c", wrapped], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_a_token_opens_a_gated_data_set(hub: str, tmp_path: Path) -> None:
    data = "Hao0oWang/CurioSFT_Data:train.parquet"
    assert read(READ_DATA, data, hub, tmp_path / "home", TOKEN) == "3"
    without = read(READ_DATA, data, hub, tmp_path / "other", None)
    assert without.startswith("CurioError 3 Hao0oWang/CurioSFT_Data is gated on the hub, and HF_TOKEN is not set")
    assert "https://huggingface.co/Hao0oWang/CurioSFT_Data" in without
    wrong = read(READ_DATA, data, hub, tmp_path / "other", "hf_another")
    assert "the account of HF_TOKEN may not read it" in wrong and "hf_another" not in wrong


def test_a_token_opens_a_private_model(hub: str, repository: Path, tmp_path: Path) -> None:
    folder = repository / "someone" / "private-model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "qwen2", "max_position_embeddings": 64}')
    name = "someone/private-model"
    assert read(READ_MODEL, name, hub, tmp_path / "home", TOKEN) == "5"
    without = read(READ_MODEL, name, hub, tmp_path / "other", None)
    assert "is private or does not exist on the hub, and HF_TOKEN is not set" in without
    assert without.startswith("CurioError 3")


def test_other_errors_are_no_refusal() -> None:
    assert hub_refusal(ConnectionError("no route"), "a/b") is None
