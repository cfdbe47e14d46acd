"""What one row shows by itself: columns, characters, format, language, and golds that need no algebra."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curiosft_cli.data.records import Problem
from curiosft_cli.grading import symbolic
from curiosft_cli.tools.data.language import language
from curiosft_cli.tools.data.row_checks import CHECKS, Findings, check_row, cleaned, layout, question_key, roles
from curiosft_cli.tools.data.simple_latex import is_simple

GOOD = Problem("1", "What is $1+1$?", "2", response="One and one.\n</think>\n\n$\\boxed{2}$")


def seen(**fields: Any) -> list[str]:
    row: dict[str, Any] = {"id": "1", "question": "Why?", "answer": "1", **fields}
    return [name for name, _ in check_row(Problem(**row), 100)]


def test_a_good_row_has_no_finding() -> None:
    assert list(check_row(GOOD, 100)) == []
    assert seen() == []


@pytest.mark.parametrize(
    ("fields", "finding"),
    [
        ({"question": "a\x00b"}, "characters"),
        ({"answer": "1\x07"}, "characters"),
        ({"answer": r"\frac{1}{"}, "cut_gold"),
        ({"answer": "1}{"}, "cut_gold"),
        ({"answer": r"\left(1"}, "cut_gold"),
        ({"answer": r"\begin{pmatrix}1"}, "cut_gold"),
        ({"response": "a\ud800\n</think>\n\\boxed{1}"}, "characters"),
        ({"question": "caf\ufffd"}, "replaced"),
        ({"question": "x" * 101}, "long_question"),
        ({"response": "The answer is \\boxed{1}."}, "think"),
        ({"response": "<think>a</think>\\boxed{1}"}, "think"),
        ({"response": "a</think>b</think>\\boxed{1}"}, "think"),
        ({"response": " \n</think>\\boxed{1}"}, "think"),
        ({"response": "a</think>So it is 1."}, "box"),
        ({"response": "a \\boxed{1}</think>So it is 1."}, "box"),
        ({"response": "a</think>\\boxed{1"}, "box"),
    ],
)
def test_what_is_found(fields: dict[str, str], finding: str) -> None:
    assert seen(**fields) == [finding]


@pytest.mark.parametrize("gold", [r"\{1,2\}", r"\left[0,1\right)", r"a\\{b}", "(0,1]", r"x\leftarrow y"])
def test_whole_golds(gold: str) -> None:
    assert seen(answer=gold) == []


def test_line_breaks_and_tabs_are_no_control_characters() -> None:
    assert seen(question="a\tb\r\nc\u200bé😀") == []


def test_mending_takes_out_what_is_found_and_nothing_else() -> None:
    row = {"question": "a\x00b\n", "prompt": [{"content": "é\ud800", "role": "user"}], "n": 3, "none": None}
    assert cleaned(row) == {"question": "ab\n", "prompt": [{"content": "é", "role": "user"}], "n": 3, "none": None}


@given(st.text())
def test_what_is_mended_has_no_such_finding(text: str) -> None:
    assert "characters" not in seen(question=cleaned(text))
    cleaned(text).encode()


def test_a_questions_key_is_its_meaning() -> None:
    def key(question: str, *choices: str) -> bytes:
        return question_key(Problem("", question, "", choices=choices))

    assert key("Let $x = 1$.  Find $\\dfrac{x}{2}$.") == key("Let x=1. Find \\(\\frac{x}{2}\\)")
    assert key("Find $x+1$") != key("Find $x-1$")
    assert key("Which?", "1", "2") != key("Which?", "2", "1")


@pytest.mark.parametrize(
    ("row", "name", "found"),
    [
        (
            {"prompt": [], "reward_model": {"ground_truth": "1"}, "target": [], "data_source": "s"},
            "verl / LUFFY",
            {"question": "prompt", "gold": "reward_model.ground_truth", "response": "target", "source": "data_source"},
        ),
        ({"messages": [], "answer": 1}, "messages", {"question": "messages", "gold": "answer", "response": "messages"}),
        ({"problem": "p", "solution": "s"}, "problem + solution", {"question": "problem", "gold": "solution", "response": "solution"}),
        ({"prompt": "p", "completion": "c"}, "prompt + completion", {"question": "prompt", "response": "completion"}),
        ({"question": "q", "answer": None, "id": "7"}, "question + answer", {"question": "question", "id": "id"}),
    ],
)  # fmt: skip
def test_layouts_and_roles(row: dict[str, Any], name: str, found: dict[str, str]) -> None:
    assert roles(row) == found
    assert layout(found) == name


def test_findings_keep_all_rows_and_few_details() -> None:
    findings = Findings(examples=2)
    for row in (4, 2, 9):
        findings.add("think", row, f"row {row}")
    findings.add("language", 1, "de")
    assert list(findings.rows["think"]) == [4, 2, 9]
    assert findings.details["think"] == [(4, "row 4"), (2, "row 2")]
    assert findings.problems() == ["think"]
    assert findings.to_repair("drop") == {2, 4, 9}
    assert findings.to_repair("clean") == set()


def test_contaminated_rows_are_dropped_only_when_asked() -> None:
    assert CHECKS["contaminated"].repair == "none"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("What is the value of $x$?", "en"), ("Find x.", "en"), ("Wie viele Zahlen gibt es?", "de"),
        ("Trouver la valeur de x.", "fr"), ("¿Cuántos números hay en el conjunto?", "es"), ("求 $x$ 的值。", "zh"),
        ("$x$ の値を求めよ。", "ja"), ("Найдите значение $x$.", "ru"), ("$x^2 = 4$", "?"), ("", "?"),
    ],
)  # fmt: skip
def test_languages(text: str, code: str) -> None:
    assert language(text) == code


@pytest.mark.parametrize(
    "gold",
    [
        "x^2+3x-1", r"\frac{\sqrt{3}}{2}", r"(1,2)", r"[0,\infty)", r"y=2x+1", r"55^\circ", r"\sqrt[3]{7}", r"a_1+b_{2}",
        r"2\pi", r"\left(-3,\frac12x\right)".replace(r"\frac12x", r"\frac{1}{2}"), r"\sin x", r"5^{n-1}",
    ],
)  # fmt: skip
def test_simple_golds(gold: str) -> None:
    assert is_simple(gold)


@pytest.mark.parametrize(
    "gold",
    [
        "", "x+", "(1,2", r"\frac{1}", r"\text{odd}", r"x \in A", "2516_8", r"\leftarrow", "1;2", r"\lfloor x \rfloor",
        "(" * 50 + "1" + ")" * 50, "x=", "{1}", r"\begin{pmatrix}1\end{pmatrix}", "^2", "a_",
    ],
)  # fmt: skip
def test_everything_else_is_left_to_the_algebra(gold: str) -> None:
    assert not is_simple(gold)


def expressions(depth: int = 2) -> st.SearchStrategy[str]:
    atoms = st.sampled_from(["1", "27", "3.5", "x", "n", "a_1", r"\pi", r"\theta ", r"30^\circ", r"\infty"])
    if depth == 0:
        return atoms
    inner = expressions(depth - 1)
    return st.one_of(
        atoms,
        st.builds(r"\frac{{{}}}{{{}}}".format, inner, inner),
        st.builds(r"\sqrt{{{}}}".format, inner),
        st.builds("({})".format, inner),
        st.builds("[{},{})".format, inner, inner),
        st.builds("{}+{}".format, inner, inner),
        st.builds(r"{} \cdot {}".format, inner, inner),
        st.builds("(x)^{{{}}}".format, inner),
        st.builds("y={}".format, inner),
    )


@settings(max_examples=60, deadline=None)
@given(expressions())
def test_what_is_simple_can_be_parsed(gold: str) -> None:
    if is_simple(gold):
        assert symbolic.read(gold, 10.0)[1] == "ok"


@given(st.text(alphabet="1x+-^{}()[]=,_\\frac sqrt", max_size=200))
def test_no_text_breaks_the_grammar(text: str) -> None:
    assert is_simple(text) in (True, False)
