"""Text of models, data and users is shown and never obeyed: on the terminal, in tables, in spreadsheets, in LaTeX."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from pathlib import Path

import pytest
from command import curiosft
from hypothesis import given
from hypothesis import strategies as st
from test_compare import save, scores

from curiosft_cli.run.log import Console
from curiosft_cli.run.text import one_line, plain, shortened, show
from curiosft_cli.tools.tables import as_csv, as_latex, as_markdown, as_text

NASTY = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\u202egpj.exe\u2066\u200f\u2028\ud800\U000e0041"
PRINTED = ("\x1b", "\x07", "\x9b", "\r", "\u202e", "\u2066", "\u200f", "\u2028", "\ud800", "\U000e0041")
any_text = st.text(st.characters(codec=None)) | st.text(alphabet=NASTY + "=+-@|`<>[]()*_\\&%$#{}~^'\",;\n\t a1")


@given(any_text)
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    shown = one_line(text)
    assert not [sign for sign in shown if unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp")]
    assert not [sign for sign in shown if unicodedata.bidirectional(sign) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI")]
    shown.encode("utf-8")
    assert one_line(shown) == shown


@given(st.recursive(st.none() | st.floats(allow_nan=False) | any_text, st.lists))
def test_json_keeps_its_meaning(value: object) -> None:
    for ascii_only in (True, False):
        assert json.loads(plain(json.dumps(value, ensure_ascii=ascii_only))) == json.loads(json.dumps(value))


def test_letters_of_all_scripts_stay() -> None:
    text = "é 中文 العربية हिन्दी 👩‍🔬 ±−≤ ∑"
    assert one_line(text) == text


def test_a_long_value_is_cut_in_the_middle() -> None:
    assert shortened("a" * 10_000) == f"'{'a' * 39}…{'a' * 39}' (10,002 characters)"
    assert shortened([10**5000]) == "a number of more than 4,300 digits"


def test_the_console_prints_one_line_and_logs_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Console(tmp_path / "log.txt").say(f"id {NASTY}\n2026-01-01T00:00:00 forged")
    show(NASTY)
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 1
    log = (tmp_path / "log.txt").read_text()
    assert len(log.splitlines()) == 1
    assert not [sign for sign in PRINTED if sign in out + err + log]


@given(st.lists(st.tuples(any_text, any_text), min_size=2, max_size=4))
def test_a_table_has_one_line_per_row(rows: list[tuple[str, str]]) -> None:
    for write, more in ((as_text, 0), (as_markdown, 1), (as_csv, 0), (as_latex, 5)):
        table = write(rows)
        if write is not as_text:  # an empty last row has no visible line there
            assert len(table.split("\n")) == len(rows) + more
        assert one_line(table.replace("\n", "")) == table.replace("\n", "")


@given(any_text)
def test_a_spreadsheet_calculates_no_text(text: str) -> None:
    ((cell,),) = csv.reader(io.StringIO(as_csv([[text]]))) if text else [("",)]
    if cell.lstrip().startswith(("=", "+", "-", "@")):
        assert float(cell) is not None
    assert cell.removeprefix("'") == one_line(text).removeprefix("'")


@pytest.mark.parametrize("number", ["-3.2", "+50.0", "0", "12.5", "-1e-05", "+0.0"])
def test_numbers_stay_numbers(number: str) -> None:
    assert as_csv([["x"], [number]]) == f"x\n{number}"
    assert as_markdown([["x"], [number]]).endswith(f"| {number} |")
    assert f"\n{number} \\\\\n" in as_latex([["x"], [number]])


@pytest.mark.parametrize(
    "formula", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", " =1", "\t=1", "＝1+1", "-", "--1"]
)
def test_formulas_become_text(formula: str) -> None:
    assert next(csv.reader(io.StringIO(as_csv([[formula]]))))[0].startswith(("'", "\\t"))


@given(any_text)
def test_markdown_has_no_mark_up_from_a_cell(text: str) -> None:
    row = as_markdown([[text]]).split("\n")[0].removeprefix("| ").removesuffix(" |")
    without_escapes = re.sub(r"\\[!-/:-@\[-`{-~]|&(amp|lt|gt);", "", row)
    assert not re.search(r"[|`<>*$~]|\]\(", without_escapes)


@given(any_text)
def test_latex_has_no_command_from_a_cell(text: str) -> None:
    line = as_latex([[text]]).split("\n")[2].removesuffix(r" \\")
    known = r"\\(textbackslash|textless|textgreater|textbar|~|\^)\{\}|\\[%_&#${}]|\$(\\pm|-)\$"
    rest = re.sub(known, "", line.removeprefix("{}"))
    assert not re.search(r"[\\%&#$~^_{}]", rest)
    assert not line.startswith(("[", "*"))


@pytest.fixture
def results(tmp_path: Path) -> list[Path]:
    """Two evaluations; the second checkpoint's name is an attack on each format."""
    name = f"=HYPERLINK(1)|[x](http://e)<img src=e>\\end{{tabular}}\n{NASTY.replace(chr(0xD800), '')}"
    for folder, label, right in (("a", "base", 10), ("b", name, 30)):
        save(tmp_path / folder, "math500", scores(right, 40), label)
    return [tmp_path / "a", tmp_path / "b"]


@pytest.mark.parametrize("style", ["text", "markdown", "latex", "csv", "json"])
def test_a_comparison_of_a_hostile_name(style: str, results: list[Path]) -> None:
    done = curiosft("compare", *results, "--format", style)
    assert done.returncode == 0, done.stderr
    assert not [sign for sign in PRINTED if sign in done.stdout]
    assert "better" in done.stdout
    if style == "csv":
        rows = list(csv.DictReader(io.StringIO(done.stdout)))
        assert rows[0]["model"].startswith("'=HYPERLINK")
        assert rows[0]["difference"] == "+50.0"
    if style == "markdown":
        assert "<img" not in done.stdout
        assert "](" not in done.stdout
    if style == "latex":
        table, end, notes = done.stdout.partition("\n\\end{tabular}\n")
        assert end
        assert r"\end" not in table
        assert all(line.startswith("%") for line in notes.split("\n") if line)
    if style == "json":
        assert json.loads(done.stdout)["rows"][0]["model"].startswith("=HYPERLINK(1)|[x]")


def test_grades_and_checks_of_hostile_rows(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    row = {
        "id": f"q\n{NASTY}",
        "response": f"<think>\nx\n</think>\n\\boxed{{4{NASTY}}}",
        "gold": "4",
        "question": "2+2?",
    }
    file.write_text(json.dumps(row) + "\n" + json.dumps({**row, "source": NASTY, "answer": NASTY}) + "\n")
    graded = curiosft("grade", file, "--cross-check", "--workers", "1")
    assert graded.returncode == 0, graded.stderr
    assert [json.loads(line)["id"] for line in graded.stdout.splitlines()] == [row["id"]] * 2
    checked = curiosft("data", "check", file, "check.depth=quick")
    assert checked.returncode == 2
    missing = curiosft("config", "check", f"no{NASTY[:-2]}such\nrecipe")
    assert missing.returncode == 2
    assert len(missing.stderr.splitlines()) == 1
    for done in (graded, checked, missing):
        assert not [sign for sign in PRINTED if sign in done.stdout + done.stderr]
