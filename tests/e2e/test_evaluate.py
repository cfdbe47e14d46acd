"""`curiosft eval` on a tiny model: resume, more samples, regrading, long prompts, short contexts, an endpoint."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from command import curiosft_in_a_process as curiosft
from tiny import build_tiny_model

from curiosft_cli.run.files import present, read_jsonl

pytestmark = pytest.mark.e2e

RECIPE = """
[run]
name = "tiny"
root = "{root}"
[model]
path = "{model}"
system_prompt = ""
[eval]
checkpoints = ["base"]
benchmarks = ["arithmetic"]
limit = 4
samples = 2
max_completion_length = 12
kv_cache_gib = 0.1
grader_workers = 1
precision = "float32"
engine = "transformers"
[launch]
threads = 1
"""


@pytest.fixture(scope="module")
def recipe(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("eval") / "tiny.toml"
    file.write_text(RECIPE.format(root=file.parent / "runs", model=tiny_model))
    return file


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file that is there, packed or not."""
    assert present(path).exists()
    return list(read_jsonl(present(path)))


def test_an_evaluation_grows_is_regraded_and_tells_what_it_did(recipe: Path) -> None:
    done = curiosft("eval", recipe, "--json")
    folder = recipe.parent / "runs/tiny/eval/base/arithmetic"
    result = json.loads(done.stdout)["results"][0]
    assert (result["questions"], result["samples"]) == (4, 2)
    assert set(result["pass"]) == {"1", "2"} and result["maj"] is not None
    assert len(result["model"]["sha256"]) == 64 and result["grader"]["name"] == "curiosft"
    assert result["environment"]["packages"]["math-verify"] and result["environment"]["cores"]
    assert result["entropy_nats"] > 0
    first = rows(folder / "samples.jsonl")
    assert len(first) == 8 and all(row["tokens"] == len(row["token_ids"]) for row in first)

    entropy = (folder / "entropy.json").stat().st_mtime_ns
    table = curiosft("eval", recipe, "eval.samples=3").stdout
    assert "arithmetic (4 x 3)" in table and "Pass@3" in table
    more = rows(folder / "samples.jsonl")
    assert more[:8] == first, "samples were drawn again"
    assert sorted((row["id"], row["sample"]) for row in more[8:]) == [
        (id_, 2) for id_ in sorted({r["id"] for r in first})
    ]
    assert (folder / "entropy.json").stat().st_mtime_ns == entropy, "entropy was measured again"

    # The endless: right answers in the saved samples must reach the scores without a model.
    right = [{**row, "text": "x</think>\\boxed{" + gold + "}"} for row, gold in golds(more, folder)]
    edited = recipe.parent / "edited.jsonl"
    edited.write_text("".join(json.dumps(row) + "\n" for row in right))
    settings = ["eval.name=again", "model.path=./nowhere", "eval.samples=none"]
    again = curiosft("eval", recipe, *settings, "--from-generations", edited, "--json")
    regraded = json.loads(again.stdout)["results"][0]
    assert (regraded["samples"], regraded["avg"], regraded["strict"]) == (3, 100.0, 100.0)
    official = curiosft(
        "eval", recipe, "eval.grader=official", "eval.name=o", "--from-generations", recipe.parent / "runs/tiny/eval"
    )
    assert "grader official" in official.stdout

    compared = curiosft("compare", recipe.parent / "runs/tiny/eval", recipe.parent / "runs/tiny/again").stdout
    assert "too few questions" in compared and "model.path" not in compared


def golds(samples: list[dict[str, Any]], folder: Path) -> list[tuple[dict[str, Any], str]]:
    gold = {row["id"]: row["gold"] for row in rows(folder / "questions.jsonl")}
    return [(row, gold[row["id"]]) for row in samples]


def test_kill_9_loses_only_what_was_in_flight(recipe: Path) -> None:
    settings = ["run.name=killed", "eval.limit=24", "eval.samples=8", "eval.max_completion_length=64"]
    command = [sys.executable, "-m", "curiosft_cli.cli", "eval", str(recipe), *settings]
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    file = recipe.parent / "runs/killed/eval/base/arithmetic/samples.jsonl"
    deadline = time.monotonic() + 120
    while not file.exists() or file.read_bytes().count(b"\n") < 5:
        assert time.monotonic() < deadline and child.poll() is None, "nothing was sampled"
        time.sleep(0.005)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    time.sleep(0.5)  # the stage dies with its parent
    saved = [line for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
    assert 5 <= len(saved) < 24 * 8
    curiosft("eval", recipe, *settings)
    found = rows(file)
    assert found[: len(saved)] == [json.loads(line) for line in saved]
    assert not file.exists(), "complete samples are packed"
    counts = Counter((row["id"], row["sample"]) for row in found)
    assert len(counts) == 24 * 8 and set(counts.values()) == {1}


def test_long_prompts_stay_in_the_mean_and_a_short_context_is_refused(recipe: Path, tmp_path: Path) -> None:
    data = tmp_path / "two.jsonl"
    questions = ["What is 2 + 2?", "What is " + "1 + " * 300 + "1?"]
    data.write_text("".join(json.dumps({"question": q, "answer": "4"}) + "\n" for q in questions))
    settings = [f"eval.data.arithmetic={data}", "run.name=long", "eval.max_prompt_length=200"]
    result = json.loads(curiosft("eval", recipe, *settings, "--json").stdout)["results"][0]
    assert (result["questions"], result["prompt_too_long"]) == (2, 2)
    assert result["tokens_median"] < 12 and result["no_answer"] >= 50

    short = build_tiny_model(tmp_path / "short", max_positions=160)
    done = curiosft(
        "eval", recipe, f"model.path={short}", "run.name=short", "eval.max_completion_length=150", check=False
    )
    assert done.returncode == 2 and "the context of" in done.stderr
    for way_out in ("max_completion_length", "longer context", "model.rope_theta"):
        assert way_out in done.stderr


def test_an_own_benchmark_has_its_name_everywhere_and_another_one_is_added(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("Frage,Antwort\n" + "".join(f"{n} + 1?,{n + 1}\n" for n in range(12)))
    (tmp_path / "yours.jsonl").write_text('{"question": "3 + 3?", "answer": 6}\n')
    settings = ["run.name=own", "eval.limit=none", "eval.samples=none", "eval.max_completion_length=4"]
    settings += [f"eval.data.mine={tmp_path}/mine.csv", "eval.bench.mine.samples=2"]
    settings += ["eval.bench.mine.question=Frage", "eval.bench.mine.answer=Antwort"]
    shown = curiosft("eval", recipe, *settings, "eval.benchmarks=mine").stdout
    assert "mine (12 x 2)" in shown
    more = [*settings, f"eval.data.yours={tmp_path}/yours.jsonl", "eval.bench.yours.samples=1"]
    both = json.loads(curiosft("eval", recipe, *more, 'eval.benchmarks=["mine","yours"]', "--json").stdout)["results"]
    assert [(row["benchmark"], row["questions"], row["samples"]) for row in both] == [("mine", 12, 2), ("yours", 1, 1)]
    changed = curiosft("eval", recipe, *more, "eval.bench.mine.kind=math", "eval.benchmarks=mine", check=False)
    assert changed.returncode == 2 and "eval.bench.mine.kind: auto -> math" in changed.stderr
    folder = recipe.parent / "runs/own/eval"
    assert "mine" in curiosft("compare", folder, f"again={folder}").stdout


def test_samples_of_another_model_are_refused(recipe: Path, tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "model")
    settings = ["run.name=changed", f"model.path={model}", "eval.limit=1", "eval.entropy_samples=0"]
    curiosft("eval", recipe, *settings)
    build_tiny_model(model, seed=1)
    done = curiosft("eval", recipe, *settings, "eval.samples=3", check=False)
    assert done.returncode == 2 and "were drawn from" in done.stderr and "another eval.name" in done.stderr


def test_an_endpoint_draws_the_same_samples(recipe: Path, tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    from curiosft_cli.engine.spec import EngineSpec
    from curiosft_cli.engine.vllm_engines.local_server import serve

    curiosft("eval", recipe, "run.name=embedded", "eval.engine=vllm")
    spec = EngineSpec(tiny_model, 512, "float32", cpu_kv_cache_gib=0.1)
    with serve(spec, name="m", log_file=tmp_path / "log") as url:
        settings = ["run.name=served", "eval.engine=openai", f"eval.base_url={url}", "eval.endpoint_model=m"]
        done = curiosft("eval", recipe, *settings, "--json")
    assert json.loads(done.stdout)["results"][0]["model"] == {"endpoint": url, "name": "m"}
    root = recipe.parent / "runs"
    one, two = (
        {
            (row["id"], row["sample"]): row["token_ids"]
            for row in rows(root / name / "eval/base/arithmetic/samples.jsonl")
        }
        for name in ("embedded", "served")
    )
    assert one == two


@pytest.mark.skipif(
    os.environ.get("CURIOSFT_SLOW") != "1", reason="two copies start in two minutes on two cores; set CURIOSFT_SLOW=1"
)
def test_two_copies_draw_the_same_samples_and_leave_no_process(recipe: Path) -> None:
    pytest.importorskip("vllm")
    root = recipe.parent / "runs"
    for copies in (1, 2):
        curiosft("eval", recipe, f"run.name=copies-{copies}", "eval.engine=vllm", f"eval.copies={copies}")
    one, two = (
        {
            (row["id"], row["sample"]): row["token_ids"]
            for row in rows(root / f"copies-{copies}/eval/base/arithmetic/samples.jsonl")
        }
        for copies in (1, 2)
    )
    assert one == two
    log = (root / "copies-2/eval/server.log").read_text()
    assert log.count("100% Completed") == 2, "each copy loads the model"
    processes = [entry.read_bytes() for entry in Path("/proc").glob("[0-9]*/cmdline") if os.access(entry, os.R_OK)]
    assert not [command for command in processes if str(root).encode() in command and b"vllm" in command]
