"""The table of differences: complete, documented as it stands, and every key of it exists."""

from __future__ import annotations

import json
from pathlib import Path

from command import curiosft

from curiosft_cli.run.config import flatten, load
from curiosft_cli.run.differences import DIFFERENCES, as_markdown, as_table

ROOT = Path(__file__).parents[2]


def test_every_row_has_its_number() -> None:
    assert [row.number for row in DIFFERENCES] == [f"D{number}" for number in range(1, 29)]
    assert all(row.number in as_table() for row in DIFFERENCES)


def test_the_page_shows_this_table() -> None:
    assert as_markdown() in (ROOT / "docs" / "deviations.md").read_text(encoding="utf-8")


def test_every_key_exists() -> None:
    keys = {key for name in ("gem", "curio-rl", "hpt") for key, _ in flatten(load(name).config.model_dump(mode="json"))}
    for row in DIFFERENCES:
        for key in row.keys.split(", "):
            assert key == "-" or any(known == key or known.startswith(f"{key}.") for known in keys), key


def test_each_fidelity_changes_the_keys_it_should() -> None:
    paper, official = (load("curio", [f"run.fidelity={name}"]).config for name in ("paper", "official"))
    teacher = paper.sft.teacher
    assert (teacher.search, teacher.iters, teacher.clamp, teacher.low_entropy_guard) == ("bisect", 15, "target", None)
    teacher = official.sft.teacher
    assert (teacher.search, teacher.iters, teacher.search_dtype, teacher.clamp) == ("bisect", 20, "logits", "end")
    assert official.sft.reduction == "micro_token_mean"


def test_the_command_prints_every_row() -> None:
    printed = curiosft("config", "explain-differences")
    assert printed.returncode == 0
    assert all(row.number in printed.stdout for row in DIFFERENCES)
    rows = json.loads(curiosft("config", "explain-differences", "--json").stdout)
    assert [row["number"] for row in rows] == [row.number for row in DIFFERENCES]
