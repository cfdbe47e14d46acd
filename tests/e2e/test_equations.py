"""docs/equations.md points at what runs: every function that it names exists, and a training step reaches it."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
from boxes import RECIPE, build_box_model, write_questions

from curiosft_cli.run.config import load
from curiosft_cli.tools.pipeline import run_stages

pytestmark = pytest.mark.e2e

PAGE = Path(__file__).parents[2] / "docs" / "equations.md"
SMALL = (
    *("data.train=arithmetic:train:4", "model.system_prompt=''", "sft.precision=float32", "launch.processes=0"),
    *("sft.max_response_length=64", "sft.batch_size=2", "sft.max_steps=1", "sft.head_chunk=64"),
)
RUNS = (
    ("sft", ()),
    ("sft", ("sft.reduction=seq_mean_token_mean",)),
    ("sft", ("sft.reduction=micro_token_mean",)),
    ("sft-entropy", ()),
    ("curio", ("sft.teacher.sync_every=1", "sft.teacher.topk=64")),
    ("curio-self", ("sft.teacher.topk=64",)),
)


def named_functions() -> dict[str, CodeType]:
    """`{"objectives/curio.py: curio": its code}` of the page's table."""
    found: dict[str, CodeType] = {}
    for path, names in re.findall(r"`(\w+(?:/\w+)*)\.py: ([\w., ]+)`", PAGE.read_text(encoding="utf-8")):
        module = importlib.import_module(f"curiosft_cli.{path.replace('/', '.')}")
        for name in names.split(", "):
            value: Any = module
            for part in name.split("."):
                value = getattr(value, part)
            found[f"{path}.py: {name}"] = value.__code__
    return found


@contextmanager
def seen_calls() -> Generator[set[CodeType]]:
    """The code of every Python function that is called inside."""
    seen: set[CodeType] = set()

    def watch(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            seen.add(frame.f_code)

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        yield seen
    finally:
        sys.setprofile(before)


def test_every_function_that_the_page_names_runs_in_a_training_step(tiny_model: Path, tmp_path: Path) -> None:
    functions = named_functions()
    assert len(functions) > 10
    recipe = tmp_path / "box.toml"
    model = build_box_model(tmp_path / "box")
    questions = write_questions(tmp_path / "questions.jsonl", 24)
    recipe.write_text(RECIPE.format(root=tmp_path / "runs", model=model, data=questions))
    with seen_calls() as seen:
        for number, (name, more) in enumerate(RUNS):
            own = (f"model.path={tiny_model}", f"run.root={tmp_path}", f"run.name=run{number}")
            run_stages(load(name, (*SMALL, *own, *more)), ("sft",))
        run_stages(
            load(str(recipe), ("run.name=rl", "launch.processes=0", "rl.steps=1", "rl.importance_sampling=on")), ("rl",)
        )
    assert not [name for name, code in functions.items() if code not in seen]
