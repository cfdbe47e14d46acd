"""Parts of the report: the paper's rows, cutting to a size, Pass@k bands, differences of settings."""

from __future__ import annotations

import base64
import gzip
import json
import random
from pathlib import Path

import pytest
from report_runs import write_evaluation, write_run, write_tokens

from curiosft_cli.evaluation.results import BenchmarkResult
from curiosft_cli.run.config import load
from curiosft_cli.tools.report.budget import cut, fitting
from curiosft_cli.tools.report.headline import headline
from curiosft_cli.tools.report.made import differences
from curiosft_cli.tools.report.paper import ROWS, matching_row
from curiosft_cli.tools.report.read import read_runs
from curiosft_cli.tools.report.samples import samples
from curiosft_cli.tools.report.scores import pass_curve
from curiosft_cli.tools.report.token_rows import token_rows


def unpacked(data: str) -> object:
    return json.loads(gzip.decompress(base64.b64decode(data)))


@pytest.mark.parametrize("recipe", ROWS)
def test_a_run_of_a_recipe_stands_beside_its_row_of_the_paper(recipe: str) -> None:
    """Another seed is the same row; another learning rate or model is none."""
    row = ROWS[recipe]
    config = load(recipe, ["run.seed=7", "run.name=mine", "log.every=5"]).config.model_dump(mode="json")
    assert matching_row(config, row.checkpoint) == row
    assert matching_row(config, "another") is None
    other = {**config, "model": {**config["model"], "path": "my/model"}}
    assert matching_row(other, row.checkpoint) is None
    if row.checkpoint != "base":
        changed = {**config, row.checkpoint: {**config[row.checkpoint], "learning_rate": 0.5}}
        assert matching_row(changed, row.checkpoint) is None
    assert matching_row({"sft": {"of_old": 1}}, row.checkpoint) is None


def test_the_paper_s_averages_are_the_means_of_their_columns() -> None:
    """A wrong digit in the table would show here: every row's two averages are plain means, rounded or cut."""
    for row in ROWS.values():
        numbers = list(row.numbers.values())
        assert numbers[6] == pytest.approx(sum(numbers[:6]) / 6, abs=0.11), row.name
        assert numbers[10] == pytest.approx(sum(numbers[7:10]) / 3, abs=0.11), row.name


def test_the_headline_names_the_paper_s_row_beside_the_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "mine")
    write_evaluation(run, "sft", [["a"], ["b"]], [[1], [0]])
    (run / "sft" / "config.json").write_text(load("curio").config.model_dump_json())
    (run / "rl" / "config.json").unlink()
    html = headline(read_runs([str(run)]))
    assert "CurioSFT" in html and "50.0 ± 3.9" in html  # 1.96 x the standard error of 2.0


def test_a_long_text_loses_its_middle() -> None:
    text = cut("a" * 600 + "b" * 399 + "c", 300)
    assert text.startswith("a" * 200 + "\n[... 700 characters left out ...]\n") and text.endswith("b" * 99 + "c")
    assert cut("a" * 300, 300) == "a" * 300


def test_texts_are_halved_until_the_page_fits() -> None:
    chance = random.Random(0)
    text = "".join(
        chance.choice("0123456789abcdef") for _ in range(4000)
    )  # 4 bits a letter: 2000 bytes, 2667 in base64
    data, longest = fitting(lambda length: text[:length], 4000, 1000, 10)
    assert longest == 1000 and unpacked(data) == text[:1000]
    assert fitting(lambda length: text[:length], 4000, 10, 300)[1] == 300


def test_samples_and_tokens_stay_below_their_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is cut is said; `--tokens` has a row whole."""
    chance = random.Random(0)
    run = write_run(tmp_path / "run")
    texts = [["".join(chance.choice("0123456789") for _ in range(900)) for _ in range(4)] for _ in range(20)]
    write_evaluation(run, "sft", texts, [[1, 0, 0, 0]] * 20)
    write_tokens(run, 2, [[f"{chance.random()}" for _ in range(300)]])
    runs = read_runs([str(run)])
    monkeypatch.setattr("curiosft_cli.tools.report.samples.MOST_BYTES", 20_000)
    monkeypatch.setattr("curiosft_cli.tools.report.token_rows.MOST_BYTES", 8_000)
    data, remarks = samples(runs)
    assert len(data) <= 20_000 and any("cut in the middle" in line for line in remarks)
    monkeypatch.setattr("curiosft_cli.tools.report.samples.MOST_RESPONSES", 40)
    assert any("first 2 responses" in line for line in samples(runs)[1])
    data, remarks = token_rows(runs)
    assert len(data) <= 8_000 and "Only the first" in remarks[0]
    whole = unpacked(token_rows(runs, 0)[0])
    assert isinstance(whole, list) and len(whole[0]["rows"][0]["tokens"]) == 300


def test_pass_at_k_with_its_band() -> None:
    """Two questions with 4 and 0 right of 4: each Pass@k is 50, and the interval is 50 ± 1.96 x 50, cut to 0..100."""
    result = BenchmarkResult({}, {"a": "1", "b": "1"}, {"answer": {"a": 1.0, "b": 0.0}})
    assert pass_curve(result, 4) == [(k, 50.0, 0.0, 100.0) for k in (1, 2, 4)]
    even = BenchmarkResult({}, {"a": "1", "b": "1"}, {"answer": {"a": 0.5, "b": 0.5}})
    assert [(k, round(middle, 6)) for k, middle, low, high in pass_curve(even, 4) if low == middle == high] == [
        (1, 50.0),
        (2, round(100 * 5 / 6, 6)),
        (4, 100.0),
    ]


def test_settings_that_differ() -> None:
    first, second = (
        {"run": {"name": "a", "seed": 1}, "sft": {"x": 1}},
        {"run": {"name": "b", "seed": 1}, "sft": {"y": 2}},
    )
    assert differences([first, second]) == [["sft.x", "1", "–"], ["sft.y", "–", "2"]]


def test_checkpoints_stand_in_the_order_of_the_pipeline(tmp_path: Path) -> None:
    run = write_run(tmp_path / "mine")
    order = ["base", "sft@4", "sft@20", "sft", "rl", "elsewhere"]
    for reference in reversed(order):
        write_evaluation(run, reference, [["a"]], [[1]])
    assert [model.label for model in read_runs([str(run)])[0].models] == order
