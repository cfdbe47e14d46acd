"""`curiosft report` on real runs of a tiny model, opened in a browser: drawn whole, silent, and without a request."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from browser import CHROMIUM, opened
from command import curiosft

pytestmark = pytest.mark.e2e

RECIPE = """
[run]
root = "{root}"
stages = ["sft", "eval"]
[model]
path = "{model}"
system_prompt = ""
[data]
train = ["arithmetic:train:24"]
validation = ["arithmetic:test:6"]
[sft]
precision = "float32"
batch_size = 4
max_steps = 6
warmup_steps = 0
eval_steps = 3
max_response_length = 64
engine = "transformers"
eval_benchmarks = ["arithmetic"]
eval_limit = 2
eval_samples = 2
[eval]
checkpoints = ["base", "sft"]
benchmarks = ["arithmetic"]
limit = 3
samples = 2
max_completion_length = 12
grader_workers = 1
precision = "float32"
engine = "transformers"
[launch]
processes = 0
threads = 1
"""


@pytest.fixture(scope="module")
def runs(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The folders of a CurioSFT and an SFT run."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "tiny.toml").write_text(RECIPE.format(root=folder / "runs", model=tiny_model))
    for objective in ("curio", "sft"):
        done = curiosft("run", folder / "tiny.toml", f"run.name={objective}", f"sft.objective={objective}")
        assert done.returncode == 0, done.stderr
    return [folder / "runs" / objective for objective in ("curio", "sft")]


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt-get install chromium)")
def test_every_chart_of_real_runs_is_drawn_and_nothing_is_said(runs: list[Path], tmp_path: Path) -> None:
    done = curiosft("report", *runs, "--out", tmp_path / "report.html")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        *(f"left out: {name}: no steps of rl" for name in ("curio", "sft")),
        str(tmp_path / "report.html"),
    ]

    async def in_browser() -> None:
        async with opened(tmp_path / "report.html", tmp_path) as page:
            await page.until(
                "[...document.querySelectorAll('.chart')].every(place => place.querySelector('.main-svg'))"
            )
            titles = await page.value("[...document.querySelectorAll('figcaption')].map(title => title.textContent)")
            for word in (
                "Loss",
                "Figure 1",
                "Figure 2a",
                "Figure 2b",
                "Figure 4",
                "tau",
                "delta",
                "Weight",
                "Gap",
                "Pass@k",
            ):
                assert any(word in title for title in titles), word
            lines = await page.value(
                "[...document.querySelectorAll('.chart')].map(place => place.querySelectorAll('.scatterlayer .trace').length)"
            )
            assert min(lines) >= 1 and len(lines) == len(titles)
            cells = await page.value("[...document.querySelectorAll('tbody tr')].map(row => row.innerText)")
            assert any("curio" in row and "base" in row for row in cells) and any(
                "sft.objective" in row for row in cells
            )
            assert page.messages == []

    asyncio.run(in_browser())
