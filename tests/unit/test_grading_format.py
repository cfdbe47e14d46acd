"""The required format, the regions, the reasons: what `grade` says of a completion besides its answer."""

from __future__ import annotations

import signal
import threading

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curiosft_cli.data.records import Grade, Problem
from curiosft_cli.data.response_format import format_error, last_box
from curiosft_cli.grading.extract import extract_answer, stated_answer
from curiosft_cli.grading.grade import GradeItem, grade, is_gradable
from curiosft_cli.run.errors import CurioError


def problem(gold: str = "14") -> Problem:
    return Problem(id="p", question="?", answer=gold)


FORMATS = [
    ("<think>a</think>\\boxed{14}", None),
    (" \n<think>a</think>\\boxed{14}", None),
    ("<think>a</think>\\boxed{1} then \\boxed {14}", None),
    ("a</think>\\boxed{14}", "F1"),
    ("Sure! <think>a</think>\\boxed{14}", "F1"),
    ("<think><think>a</think>\\boxed{14}", "F1"),
    ("<think>a</think>\\boxed{14}<think>", "F1"),
    ("<Think>a</think>\\boxed{14}", "F1"),
    ("<think>a \\boxed{14}", "F2"),
    ("<think>a</think>b</think>\\boxed{14}", "F2"),
    ("<think>a</Think>\\boxed{14}", "F2"),
    ("<think>a</ think>\\boxed{14}", "F2"),
    ("<think></think>\\boxed{14}", "F3"),
    ("<think> \n\t</think>\\boxed{14}", "F3"),
    ("<think>a \\boxed{14}</think>14", "F4"),
    ("<think>a</think>\\boxed{}", "F4"),
    ("<think>a</think>\\boxed{ }", "F4"),
    ("<think>a</think>\\boxed{\\,}", "F4"),
    ("<think>a</think>\\boxed{\\text{ }}", "F4"),
    ("<think>a</think>\\boxed{\\frac{1}{2}", "F4"),
    ("<think>a</think>\\boxed{1} \\boxed{14", "F4"),
    ("<think>a</think>\\boxed{1} \\boxed{}", "F4"),
    ("<think>a</think>\\boxed 14", "F4"),
    ("<think>a</think>\\boxedX{14}", "F4"),
    ("<think>a</think>\\fbox{14}", "F4"),
    ("<think>a</think>", "F4"),
    ("", "F1"),
]


@pytest.mark.parametrize(("text", "broken"), FORMATS)
def test_first_broken_rule_is_named(text: str, broken: str | None) -> None:
    assert format_error(text) == broken


BOXES = [
    (r"\boxed{5}", "5"),
    (r"\boxed{\boxed{5}}", "{5}"),
    (r"\boxed{5 \text{ or } \boxed{6}}", r"5 \text{ or } {6}"),
    (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
    (r"\boxed{\{1,2\}}", r"\{1,2\}"),
    (r"\boxed{\left\{1,2\right\}}", r"\left\{1,2\right\}"),
    (r"\boxed{4} and \boxed{5}", "5"),
    (r"} { \boxed{5}", "5"),
    (r"\\boxed{5}", "5"),
    ("\\boxed\n{5}", "5"),
    (r"\boxed{5\}", None),
    (r"\boxed{{5}", None),
    (r"\boxed{5} \boxed{", None),
    (r"boxed{5}", None),
]


@pytest.mark.parametrize(("text", "content"), BOXES)
def test_last_box(text: str, content: str | None) -> None:
    assert last_box(text) == content


STATEMENTS = [
    ("The answer is 14.", "14"),
    ("the final answer is $14$.", "14"),
    ("Final answer: 14", "14"),
    ("**Answer:** 14", "14"),
    ("**Final Answer**: $\\frac{1}{2}$", "\\frac{1}{2}"),
    ("Answer:\n\n14", "14"),
    ("The answer is:\n\\[\nx+1\n\\]", "x+1"),
    ("The answer is \\(3.5\\), as shown.", "3.5"),
    ("The answer is $3$ or $5$.", "3 or 5"),
    ("The answer is 14 because 7+7 is 14.", "14"),
    ("The answer is 3.14. Done.", "3.14"),
    ("The answer is 5. Wait, no. The answer is 6.", "6"),
    ("<answer>14</answer>", "14"),
    ("<answer> x+1 </answer> Done.", "x+1"),
    ("</answer> 14", None),
    ("So we get 14", None),
    ("14", None),
    ("The answer is", None),
    ("Answers: many", None),
]


@pytest.mark.parametrize(("text", "value"), STATEMENTS)
def test_explicit_statement(text: str, value: str | None) -> None:
    assert stated_answer(text) == value


def test_statement_counts_only_near_the_end_and_without_a_box() -> None:
    assert extract_answer("The answer is 14." + " word" * 1000).content is None
    assert extract_answer("The answer is 14. \\boxed{").content is None
    assert not extract_answer("The answer is 14.").has_box
    assert not extract_answer("\\fbox{14}").has_box


def test_answer_only_needs_no_tags_and_strict_does() -> None:
    assert grade("It is \\boxed{14}.", problem()) == Grade(0.0, 1.0, "14", None, "ok", "bad_format", "F2")
    assert grade("a</think>It is \\boxed{14}.", problem()) == Grade(1.0, 1.0, "14", None, "ok", "correct")
    stated = grade("a</think>The answer is 14.", problem())
    assert (stated.strict, stated.answer, stated.fallback, stated.reason) == (0.0, 1.0, True, "bad_format")


def test_the_region_is_what_follows_the_last_tag() -> None:
    assert grade("\\boxed{14}</think>Done.", problem()).answer == 0.0
    assert grade("\\boxed{14}</think>", problem()).reason == "no_answer"
    assert grade("\\boxed{1}</think>x</think>\\boxed{14}", problem()).answer == 1.0


def test_prefilled_or_not() -> None:
    assert grade("<think>a</think>\\boxed{14}", problem(), prefilled=False).strict == 1.0
    assert grade("<think>a</think>\\boxed{14}", problem()).format_error == "F1"
    assert grade("a</think>\\boxed{14}", problem(), prefilled=False).format_error == "F1"


@pytest.mark.parametrize("token", ["<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>"])
def test_what_follows_an_end_token_is_a_made_up_turn(token: str) -> None:
    assert grade(f"a</think>\\boxed{{14}}{token}<|im_start|>user\n\\boxed{{3}}", problem()).strict == 1.0
    assert grade(f"a</think>\\boxed{{3}}{token}\\boxed{{14}}", problem()).strict == 0.0
    assert grade(f"a{token}</think>\\boxed{{14}}", problem()).answer == 0.0


def test_the_tokenizers_own_end_token_is_given() -> None:
    text = "a</think>\\boxed{14}</s>\\boxed{3}"
    assert grade(text, problem()).strict == 0.0
    assert grade(text, problem(), end_tokens=("</s>",)).strict == 1.0


def test_reasons() -> None:
    assert grade("thinking", problem(), truncated=True).reason == "truncated"
    assert grade("a</think>\\boxed{14}", problem(), truncated=True).reason == "correct"
    assert grade("a</think>\\boxed{15}", problem(), truncated=True).reason == "wrong"
    assert grade("a</think>nothing", problem()).reason == "no_answer"
    assert grade("a</think>\\boxed{15}", problem()).reason == "wrong"
    late = GradeItem("a</think>\\boxed{9^{9^{9}}}", problem()).grade(1)
    assert (late.strict, late.answer, late.status, late.reason) == (0.0, 0.0, "timeout", "timeout")


@pytest.mark.parametrize("gold", ["", " ", "$$", "\\,", "1" * 5000, "(" * 60, "\\{" + ",".join("9" * 4000) + "\\}"])
def test_ungradable_golds_score_null_whatever_the_answer(gold: str) -> None:
    for text in ("a</think>\\boxed{14}", f"a</think>\\boxed{{{gold}}}", "nothing"):
        graded = grade(text, problem(gold))
        assert (graded.strict, graded.answer, graded.reason) == (None, None, "ungradable_gold")
    assert graded.format_error == "F2" and graded.extracted is None


@pytest.mark.parametrize("gold", ["14", "\\text{east}", "\\frac{1}{2}", "4.5e33", "E_{1},E_{2}", "\\text{(C)}"])
def test_gradable_golds(gold: str) -> None:
    assert is_gradable(problem(gold))


def test_choice_golds_must_be_a_letter_of_the_choices() -> None:
    choices = ("x", "y", "z")
    assert is_gradable(Problem("p", "?", "C", kind="choice", choices=choices))
    assert not is_gradable(Problem("p", "?", "D", kind="choice", choices=choices))
    assert not is_gradable(Problem("p", "?", "x", kind="choice", choices=choices))
    assert not is_gradable(Problem("p", "?", "", kind="choice", choices=choices))


MANY_BOXES = [
    ("2,7", r"\boxed{2} and \boxed{7}", 1.0),
    ("2,7", r"\boxed{7}, \boxed{2}", 1.0),
    ("2,7", r"\boxed{2}, \boxed{8}", 0.0),
    ("2,7", r"\boxed{1}, \boxed{2}, \boxed{7}", 0.0),
    ("2,7", r"\boxed{2}, so \boxed{2, 7}", 1.0),
    ("2,7", r"\boxed{1} \boxed{1} \boxed{2,7}", 1.0),
    ("(2,7)", r"\boxed{2} and \boxed{7}", 0.0),
    ("7", r"\boxed{2} and \boxed{7}", 1.0),
    ("2", r"\boxed{2} and \boxed{7}", 0.0),
    ("1,234", r"\boxed{1} and \boxed{234}", 0.0),
]


@pytest.mark.parametrize(("gold", "solution", "score"), MANY_BOXES)
def test_as_many_boxes_as_values_are_one_answer(gold: str, solution: str, score: float) -> None:
    assert grade(f"a \\boxed{{5}}</think>{solution}", problem(gold)).strict == score


def test_an_unfinished_comparison_scores_zero_and_keeps_what_was_read() -> None:
    killed = GradeItem("a</think>\\boxed{14}", problem()).unmatched("timeout")
    assert killed == Grade(0.0, 0.0, "14", None, "timeout", "timeout")
    assert GradeItem("\\boxed{14}", problem()).unmatched("crash").format_error == "F2"


def test_other_threads_are_refused_instead_of_scored_wrong() -> None:
    caught: list[BaseException] = []

    def run() -> None:
        try:
            grade("a</think>\\boxed{2\\sqrt{7}+1}", problem())
        except CurioError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert len(caught) == 1 and "GraderPool" in str(caught[0])


def test_the_callers_alarm_and_handlers_survive() -> None:
    old = signal.signal(signal.SIGALRM, lambda *_: None)
    before = signal.setitimer(signal.ITIMER_REAL, 1000)
    try:
        assert grade("a</think>\\boxed{\\sqrt{289}-3}", problem()).strict == 1.0
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 1000
        assert signal.getsignal(signal.SIGVTALRM) == signal.SIG_DFL
        assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before)
        signal.signal(signal.SIGALRM, old)


PIECES = st.sampled_from(
    ["<think>", "</think>", "\\boxed{", "\\boxed", "}", "{", "14", "\\frac", "^", "_", "$", "\\(", "answer is ", "=",
     ",", "\\text{", "(", ")", "\\sqrt", " ", "\n", "\\", "1e5", "½", "\\begin{pmatrix}", "&", "%", "5 cm",
     "\\pm", "A)"]
)  # fmt: skip
TEXTS = st.one_of(st.text(max_size=80), st.lists(PIECES, max_size=14).map("".join))


@settings(max_examples=300, deadline=None)
@given(text=TEXTS, gold=st.sampled_from(["14", "\\frac{1}{2}", "\\text{east}", "(1,2)", "x^2+1"]), boxed=st.booleans())
@example(text=")==)½)\\(", gold="14", boxed=True)
def test_grade_is_total(text: str, gold: str, boxed: bool) -> None:
    graded = GradeItem(f"a</think>\\boxed{{{text}}}" if boxed else text, problem(gold)).grade(1)
    assert graded.strict in (0.0, 1.0) and graded.answer in (0.0, 1.0)
    assert graded.answer == 1.0 or graded.strict == 0.0
    assert (graded.strict == 1.0) == (graded.reason == "correct")
    assert graded.status == "ok" or graded.answer == 0.0


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_any_gold_is_graded_or_null(text: str) -> None:
    graded = GradeItem("a</think>\\boxed{14}", problem(text)).grade(1)
    assert graded.strict in (None, 0.0, 1.0) and (graded.strict is None) == (graded.answer is None)


@settings(max_examples=200, deadline=None)
@given(text=TEXTS, n=st.integers(1, 10))
def test_choices_are_total(text: str, n: int) -> None:
    multiple = Problem("p", "?", "A", kind="choice", choices=tuple(f"option {i}" for i in range(n)))
    graded = grade(f"a</think>\\boxed{{{text}}}", multiple)
    assert graded.letter is None or graded.letter in "ABCDEFGHIJ"[:n]
