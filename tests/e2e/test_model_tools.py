"""`curiosft model prepare` and `model check` as a user runs them, and the prepared model in vLLM."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from command import curiosft
from tiny_families import build_family

from curiosft_cli.data.records import Problem
from curiosft_cli.run.sections import Model
from curiosft_cli.train.encode import PromptFormat, encode_prompt
from curiosft_cli.train.load import load_tokenizer

pytestmark = pytest.mark.e2e

SHORT = ("data.max_prompt_length=1600", "sft.max_response_length=200", "rl.max_completion_length=200",
         "eval.max_completion_length=200")  # fmt: skip


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in done.stderr.splitlines() if line.startswith("curiosft: ")]
    assert len(lines) == 1 and "Traceback" not in done.stderr, done.stderr
    return lines[0]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_family(tmp_path_factory.mktemp("llama") / "base", "llama", tied=False, sharded=True)


@pytest.fixture(scope="module")
def prepared(source: Path) -> Path:
    out = source.parent / "prepared"
    done = curiosft("model", "prepare", source, "--out", out, *SHORT)
    assert done.returncode == 0, done.stderr
    assert "max_position_embeddings (tokens): 64 -> 2048" in done.stdout
    return out


def test_check_before_and_after(source: Path, prepared: Path) -> None:
    before = curiosft("model", "check", source, *SHORT, "--json")
    assert before.returncode == 2
    problems = {r["about"] for r in json.loads(before.stdout)["remarks"] if r["level"] == "problem"}
    assert problems == {"context", "template", "padding token"}
    after = curiosft("model", "check", prepared, *SHORT)
    assert after.returncode == 0, after.stdout
    assert "PROBLEM" not in after.stdout


def test_vllm_says_what_transformers_says(prepared: Path) -> None:
    pytest.importorskip("vllm")
    from curiosft_cli.engine.base import Sampling, generate
    from curiosft_cli.engine.spec import EngineSpec
    from curiosft_cli.engine.transformers_engine import TransformersEngine
    from curiosft_cli.engine.vllm_engines.embedded import VllmEngine

    tokenizer = load_tokenizer(str(prepared), Model())
    style = PromptFormat.from_config(Model())
    prompts = [encode_prompt(tokenizer, Problem("", f"What is {n}+{n}?", ""), style) for n in (2, 31)]
    greedy = Sampling(temperature=0.0, top_p=1.0, max_tokens=16, stop_token_ids=())
    said: list[Any] = []
    for engine in (
        TransformersEngine(EngineSpec(prepared, 2048, "float32")),
        VllmEngine(EngineSpec(prepared, 2048, "float32", cpu_kv_cache_gib=0.05), cpu_batched_tokens=2048),
    ):
        try:
            said.append([completion.token_ids for completion in generate(engine, prompts, greedy)])
        finally:
            engine.close()
    assert said[0] == said[1]
    assert all(len(ids) == 16 for ids in said[0])


def test_bad_input_is_one_line_with_2(source: Path, prepared: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    for arguments, says in (
        (("check", tmp_path / "none"), "found nothing"),
        (("check", tmp_path / "file"), "found a file"),
        (("check", tmp_path / "empty"), "has no config.json"),
        (("prepare", tmp_path / "empty", "--out", tmp_path / "out"), "has no config.json"),
        (("prepare", source, "--out", prepared), "exists already"),
        (("prepare", source, "--out", source), "is the model itself"),
        (("prepare", source, "--out", tmp_path / "file" / "out"), "cannot write"),
        (("prepare", source, "--out", tmp_path / "out", "model.rope_teta=1"), "did you mean 'rope_theta'?"),
    ):
        done = curiosft("model", *arguments)
        assert done.returncode == 2, done.stderr
        assert says in complaint(done)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file"]
    done = curiosft("model", "check", "nobody/nothing")
    assert done.returncode == 3
    assert "cannot get nobody/nothing from the hub" in complaint(done)


@pytest.mark.parametrize("limit", [5_000, 100_000])
def test_a_full_disk_leaves_nothing_and_ends_with_4(source: Path, tmp_path: Path, limit: int) -> None:
    """The smaller limit stops the tokenizer's file, the larger one a shard."""
    done = curiosft("model", "prepare", source, "--out", tmp_path / "out", *SHORT, file_limit=limit)
    assert done.returncode == 4, done.stderr
    assert "the disk is full" in complaint(done)
    assert list(tmp_path.iterdir()) == []
