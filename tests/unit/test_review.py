"""The review page's own program, run by Node where there is one, and the word diff of the terminal."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib import resources

import pytest

from curiosft_cli.run.errors import CurioError
from curiosft_cli.stages.rephrase.review import embedded, review, word_diff

CASES = [
    ["Hi! What is 3+4? Thanks", "What is 3+4?"],
    ["What is 13+4?", "What is 14+4?"],
    ["", "new"],
    ["gone", ""],
    ["same words here", "same words here"],
    ["a b c d e f", "f e d c b a"],
    ["x " * 5000, "y " * 5000],
]
CHECK = """
const [cases, rows] = JSON.parse(require("fs").readFileSync(0));
const diffs = cases.map(([a, b]) => diff(a, b));
const filters = [{verdict: "accepted"}, {reason: "new number"}, {flag: "image"}, {search: "APPLE"}, {}, {decided: "verifier"}];
const empty = {verdict: "", reason: "", decided: "", flag: "", search: ""};
const started = Date.now();
const many = select(Array.from({length: 46000}, (_, n) => rows[n % rows.length]), {...empty, search: "apple"}).length;
console.log(JSON.stringify([diffs, filters.map(filter => select(rows, {...empty, ...filter})), many]));
"""
ROWS = [
    ["1", "accepted", "ok", "rule same text", [], [], "An apple costs 3.", "An apple costs 3.", []],
    ["2", "kept_original", "new number: 4", "rule new number", ["4"], ["image"], "b", "c", []],
    ["3", "accepted", "ok", "verifier", [], ["image", "fragment"], "b", "apples", []],
]


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
def test_the_page_compares_words_and_filters_rows() -> None:
    """A diff without what is new is the original, without what is gone the rewrite."""
    page = (resources.files("curiosft_cli.stages.rephrase") / "review.html").read_text("utf-8")
    program = page.rpartition("<script>")[2].partition("</script>")[0]
    done = subprocess.run(
        ["node", "-e", program + CHECK], input=json.dumps([CASES, ROWS]), capture_output=True, text=True, check=True
    )
    diffs, filtered, many = json.loads(done.stdout)
    for (before, after), parts in zip(CASES, diffs, strict=True):
        assert "".join(text for kind, text in parts if kind != "new") == before
        assert "".join(text for kind, text in parts if kind != "gone") == after
    assert ["gone", "13"] in diffs[1]
    assert ["new", "14"] in diffs[1]
    assert {kind for kind, _ in diffs[4]} == {"same"}
    assert filtered == [[0, 2], [1], [1, 2], [0, 2], [0, 1, 2], [2]]
    assert many == 30667


def test_the_terminal_shows_what_went_and_what_came() -> None:
    assert word_diff("Hi! What is 13?", "What is 14?", colour=False) == "[-Hi! -]What is [-13-]{+14+}?"
    assert word_diff("a", "a b", colour=True) == "a\x1b[32m b\x1b[0m"


def test_control_characters_of_a_post_do_not_reach_the_terminal() -> None:
    assert "\x1b" not in word_diff("\x1b[2Jgone", "new", colour=False)


def test_embedded_rows_cannot_end_the_script() -> None:
    assert "<" not in embedded(["</script><!--"])
    assert json.loads(embedded(["</script><!--"])) == ["</script><!--"]


def test_a_run_without_cleaned_questions_is_bad_input() -> None:
    with pytest.raises(CurioError, match="has no cleaned questions"):
        review("no-such-run")
