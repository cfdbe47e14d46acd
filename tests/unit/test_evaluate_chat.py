"""An evaluation through a chat endpoint: what is sent, saved, tried again, refused, and asked for once more."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from command import curiosft
from scripted import Reply, Script, ScriptedServer

from curiosft_cli.data.arithmetic import generate
from curiosft_cli.data.prompts import SYSTEM_PROMPT
from curiosft_cli.engine.endpoint.chat import with_reasoning
from curiosft_cli.engine.endpoint.client import Endpoint
from curiosft_cli.run.config import load
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.files import read_jsonl
from curiosft_cli.run.rundir import StageDir
from curiosft_cli.run.sections import Config
from curiosft_cli.stages.evaluate.chat import ChatSampler
from curiosft_cli.stages.evaluate.run import run
from curiosft_cli.tools.results_report import results_report

RECIPE = """
[run]
name = "x"
root = "{root}"
[model]
path = "not/here"
[eval]
checkpoints = ["base"]
benchmarks = ["arithmetic"]
limit = 3
samples = 2
grader_workers = 1
engine = "openai"
endpoint = "chat"
base_url = "{url}"
endpoint_model = "m"
concurrency = 4
"""
GOLDS = {f"Here is the question: {problem.question}": problem.answer for problem in generate("test", 3)}


def right(_: int, message: str) -> Reply:
    return Reply(f"<think>\nhm\n</think>\nIt is \\boxed{{{GOLDS[message]}}}.")


def config(folder: Path, url: str, *overrides: str) -> Config:
    file = folder / "x.toml"
    file.write_text(RECIPE.format(root=folder / "runs", url=url))
    return load(str(file), overrides).config


def evaluate(folder: Path, url: str, *overrides: str) -> tuple[dict[str, Any], Path]:
    """Run the stage in this process; return the benchmark's summary and its folder."""
    stage = StageDir(folder / "eval")
    stage.path.mkdir(exist_ok=True)
    run(config(folder, url, *overrides), stage)
    place = stage.benchmark("base", "arithmetic")
    return json.loads((place / "summary.json").read_text()), place


def test_an_evaluation_by_chat_is_whole_and_grows(tmp_path: Path) -> None:
    with ScriptedServer(right) as server:
        summary, place = evaluate(tmp_path, server.url)
        bodies = list(server.bodies)
        grown, _ = evaluate(tmp_path, server.url, "eval.samples=3")
        more = server.bodies[len(bodies) :]
    assert (summary["avg"], summary["strict"], summary["format"]) == (100, 100, 100)
    assert (summary["prefilled"], summary["prompt"]["prefill"], summary["entropy_nats"]) == (False, "", None)
    assert summary["model"] == {"endpoint": server.url, "name": "m", "chat": True}
    assert summary["tokens_mean"] == 3, "the endpoint's own count"
    assert len(bodies) == 6 and {body["messages"][0]["content"] for body in bodies} == {SYSTEM_PROMPT}
    assert Counter(body["messages"][1]["content"] for body in bodies) == dict.fromkeys(GOLDS, 2)
    assert {(body["temperature"], body["top_p"], body["max_tokens"]) for body in bodies} == {(0.6, 0.95, 8192)}
    assert len({body["seed"] for body in bodies + more}) == 9, "one seed a sample"
    assert len(more) == 3 and (grown["samples"], grown["pass"]["3"]) == (3, 100)
    assert sorted(entry.name for entry in place.iterdir()) == [
        "grades.jsonl.zst",
        "model.json",
        "questions.jsonl",
        "samples.jsonl.zst",
        "summary.json",
    ]
    assert grown["generations"] == str(place / "samples.jsonl.zst")
    regraded, _ = evaluate(tmp_path, server.url, "eval.samples=3", "eval.grader=official")
    assert regraded["avg"] == 100 and regraded["grader"]["name"] == "official", "asked nobody"
    rows = list(read_jsonl(place / "samples.jsonl.zst"))
    assert len(rows) == 9 and not any(row["prefilled"] for row in rows)
    report = results_report(StageDir(tmp_path / "eval"))
    assert "entropy is not measured for a model behind an endpoint" in report


def test_cut_refused_and_empty_answers_are_counted_by_their_own_name(tmp_path: Path) -> None:
    first, second, _ = GOLDS

    def script(number: int, message: str) -> Reply:
        if message == first:
            return Reply("hm, let me", finish="length")
        if message == second:
            return Reply("this model's context is 9 tokens", 400)
        return Reply("")

    with ScriptedServer(script) as server:
        summary, place = evaluate(tmp_path, server.url)
    assert (summary["avg"], summary["refused"], summary["no_answer"]) == (0, 2, 100)
    assert summary["truncated"] == pytest.approx(100 / 3)
    assert summary["reasons"] == {"bad_format": 4, "truncated": 2}
    refused = [row for row in read_jsonl(place / "samples.jsonl.zst") if row["finish_reason"] == "refused"]
    assert [row["error"] for row in refused] == ["400: this model's context is 9 tokens"] * 2
    assert "the endpoint refused 2 requests" in results_report(StageDir(tmp_path / "eval"))


@pytest.mark.parametrize(
    ("text", "strict", "thoughtless"),
    [
        ("<think>\nhm\n</think>\nIt is \\boxed{GOLD}.", 100, None),
        ("hm\n</think>\nIt is \\boxed{GOLD}.", 100, None),  # the endpoint's template has opened the thought
        ("hm\n</think>\nIt</think> is \\boxed{GOLD}.", 0, None),
        ("It is \\boxed{GOLD}.", 0, "100 % of the answers have no thought"),
    ],
)
def test_the_required_format_is_asked_of_a_chat_as_of_completions(
    tmp_path: Path, text: str, strict: float, thoughtless: str | None
) -> None:
    with ScriptedServer(lambda _, message: Reply(text.replace("GOLD", GOLDS[message]))) as server:
        summary, _ = evaluate(tmp_path, server.url)
    assert (summary["avg"], summary["strict"], summary["format"]) == (100, strict, strict)
    report = results_report(StageDir(tmp_path / "eval"))
    assert "sampled by chat" in report and ((thoughtless or "no thought") in report) == (thoughtless is not None)


def test_settings_are_free_until_the_first_sample(tmp_path: Path) -> None:
    with ScriptedServer(right) as server:
        port, file = urlsplit(server.url).port, tmp_path / "x.toml"
        file.write_text(RECIPE.format(root=tmp_path / "runs", url="http://127.0.0.1:9/v1"))
        failed = curiosft("eval", file)
        assert failed.returncode == 3 and "http://127.0.0.1:9/v1 does not answer: Connection refused" in failed.stderr
        other = [f"eval.base_url=http://localhost:{port}/v1", "eval.endpoint_model=n", "eval.temperature=0.5"]
        done = curiosft("eval", file, *other)
        assert done.returncode == 0, done.stderr
        pinned = curiosft("eval", file, *other[:2], "eval.temperature=0.9")
    assert pinned.returncode == 2 and "eval.temperature: 0.5 -> 0.9" in pinned.stderr


def drawn(
    script: Script, talks: int = 3, answered: int = 0, tries: int = 2
) -> tuple[list[tuple[int, Any]], CurioError | None]:
    """What a sampler yields before it ends or raises."""
    from curiosft_cli.engine.base import Sampling

    got: list[tuple[int, Any]] = []
    with ScriptedServer(script) as server:
        endpoint = Endpoint(server.url, "m", "NO_KEY", 2, max_attempts=tries, backoff_s=0.01, longest_backoff_s=0.02)
        asked = [[{"role": "user", "content": str(index)}] for index in range(talks)]
        try:
            for one in ChatSampler(endpoint, answered).stream(asked, Sampling(0.6, 0.95, 9, ()), range(talks)):
                got.append(one)
        except CurioError as error:
            return got, error
    return got, None


def test_what_passes_is_tried_again() -> None:
    faults = {0: Reply("busy", 429), 1: Reply("down", 500), 2: Reply(drop=True)}
    got, error = drawn(lambda number, message: faults.get(number, Reply(f"said {message}")), tries=4)
    assert error is None and sorted((index, sample.text) for index, sample in got) == [
        (0, "said 0"),
        (1, "said 1"),
        (2, "said 2"),
    ]


def test_what_got_no_answer_is_no_sample_and_the_others_are_kept() -> None:
    got, error = drawn(lambda _, message: Reply("down", 500) if message == "1" else Reply("fine"))
    assert sorted(index for index, _ in got) == [0, 2]
    assert error is not None and error.exit_code == 3
    assert "gave no answer to 1 of 3 requests: gave up after 2 tries: 500: down" in str(error)


def test_an_endpoint_that_refuses_all_is_no_score_of_zero() -> None:
    got, error = drawn(lambda *_: Reply("no such parameter: seed", 400))
    assert got == [] and error is not None and error.exit_code == 3
    assert "refused all of 3 requests: 400: no such parameter: seed" in str(error)
    got, error = drawn(lambda *_: Reply("too long", 400), talks=1, answered=5)
    assert error is None and [(index, sample.finish_reason) for index, sample in got] == [(0, "refused")]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({}, "so 4"),
        ({"reasoning_content": " hm\n"}, "<think>\nhm\n</think>\nso 4"),
        ({"reasoning": "hm"}, "<think>\nhm\n</think>\nso 4"),
        ({"reasoning": None, "reasoning_content": ""}, "so 4"),
    ],
)
def test_reasoning_that_an_endpoint_took_out_is_put_back(message: dict[str, Any], text: str) -> None:
    assert with_reasoning("so 4", message) == text


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["eval.engine=vllm"], r"eval.endpoint is chat, eval.engine is vllm"),
        (["eval.vllm.tensor_parallel_size=2"], r"eval.vllm sets tensor_parallel_size, but eval.engine is openai"),
        (["eval.max_prompt_length=9"], r"eval.max_prompt_length is 9, but eval.endpoint is chat"),
        (["eval.base_url=none"], r"eval.base_url is none"),
        (['eval.checkpoints=["a","b"]'], r"names 2 models"),
    ],
)
def test_settings_that_a_chat_cannot_have_are_refused(tmp_path: Path, overrides: list[str], said: str) -> None:
    with pytest.raises(CurioError, match=said):
        evaluate(tmp_path, "http://127.0.0.1:9/v1", *overrides)
    assert not re.search("samples", " ".join(map(str, tmp_path.rglob("*"))))
