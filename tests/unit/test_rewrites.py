"""The guards on a labelled set of our own, and what they must never let through."""

from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curiosft_cli.data.arithmetic import generate, noisy
from curiosft_cli.data.benchmarks import load_benchmark
from curiosft_cli.data.prompts import REPHRASE_PROMPT
from curiosft_cli.stages.rephrase.checks import flags, judge, tidy
from curiosft_cli.stages.rephrase.posts import read_post

LABELLED = [json.loads(line) for line in (Path(__file__).parents[1] / "rewrites.jsonl").read_text("utf-8").splitlines()]
EXAMPLE = (
    "What is the remainder of $8^6 + 7^7 + 6^8$ is divided by 5?\n\n"
    "no calculator, of course, paper isn't needed either, but sure.",
    "What is the remainder of $8^6 + 7^7 + 6^8$ when divided by 5?",
)
TANK = "A tank holds 40 liters and loses 6 liters an hour. How many liters are left after 5 hours?"
REAL = os.environ.get("CURIOSFT_BENCHMARKS")


def is_accepted(original: str, rewritten: str) -> bool:
    return judge(original, rewritten).outcome == "accepted"


def labelled(label: str) -> list[dict[str, str]]:
    return [row for row in LABELLED if row["label"] == label]


def test_the_labelled_set_is_large_enough_to_mean_something() -> None:
    assert len(labelled("good")) >= 200
    assert {"echo", "translated", "truncation", "answer leaked", "number", "condition dropped"} <= {
        row["why"] for row in labelled("spoiled")
    }
    assert len(labelled("spoiled")) >= 200
    assert len({(row["original"], row["rewritten"]) for row in LABELLED}) == len(LABELLED)


def test_at_most_3_percent_of_the_good_are_refused() -> None:
    refused = [row for row in labelled("good") if not is_accepted(row["original"], row["rewritten"])]
    assert len(refused) <= 0.03 * len(labelled("good")), refused


def test_at_most_1_percent_of_the_spoiled_are_accepted() -> None:
    accepted = [row for row in labelled("spoiled") if is_accepted(row["original"], row["rewritten"])]
    assert len(accepted) <= 0.01 * len(labelled("spoiled")), accepted


def test_the_papers_own_examples_are_accepted() -> None:
    assert is_accepted(*EXAMPLE)
    original, _, rewritten = REPHRASE_PROMPT.partition("Example 2:")[2].partition("Now, here")[0].partition("Output:")
    assert is_accepted(original.replace("Input:", "").strip(), rewritten.strip())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_any_changed_number_keeps_the_original(seed: int) -> None:
    draw, problem = random.Random(seed), generate("train", 1, seed)[0]
    number = draw.choice(list(re.finditer(r"\d+", problem.question)))
    other = str(int(number[0]) + draw.randint(1, 90))
    changed = problem.question[: number.start()] + other + problem.question[number.end() :]
    verdict = judge(noisy(problem, seed).question, changed)
    assert verdict.outcome == "kept_original"
    assert verdict.reason.startswith("number")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_any_lost_sentence_with_a_number_keeps_the_original(seed: int) -> None:
    problem = generate("train", 1, seed)[0]
    parts = re.split(r"(?<=[.?]) ", problem.question)
    told = [part for part in parts if re.search(r"\d", part) and not part.endswith("?")]
    for part in told:
        assert not is_accepted(noisy(problem, seed).question, problem.question.replace(part, "").strip())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_any_swap_of_two_numbers_keeps_the_original(seed: int) -> None:
    problem = generate("train", 1, seed)[0]
    a, b = list(re.finditer(r"\d+", problem.question))[:2]
    text = problem.question
    swapped = text[: a.start()] + b[0] + text[a.end() : b.start()] + a[0] + text[b.end() :]
    assert swapped == text or not is_accepted(noisy(problem, seed).question, swapped)


@pytest.mark.parametrize(
    "label",
    [
        "(20 points)",
        "[5 marks]",
        "Problem 7.",
        "12)",
        "(AMC 8, 2011, #4)",
        "Exercise 3.12:",
        "Q4.",
        "[Easy]",
        "#9 -",
        "(3 pts)",
    ],
)
def test_a_label_may_go(label: str) -> None:
    assert is_accepted(f"{label} {TANK}", TANK)
    assert is_accepted(f"Hi all!\n{label} {TANK}\nThanks!", TANK)


def test_a_label_may_stay() -> None:
    assert is_accepted(f"Hi all! Problem 7. {TANK}", f"Problem 7. {TANK}")
    assert is_accepted(f"Hi all! (20 points) {TANK}", f"(20 points) {TANK}")


@pytest.mark.parametrize(
    "chat",
    [
        "I tried for 30 minutes and got 12.",
        "My teacher says the answer is 10.",
        "Solution: 40 - 6 * 5 = 10.",
        "Answer: 10",
        "EDIT 3: fixed the 40.",
        "(my 3rd question today, sorry)",
        "The answer key says 10 liters.",
        "Posted 4 hours ago by user77",
    ],
)
def test_chat_may_go_but_may_not_stay(chat: str) -> None:
    assert is_accepted(f"{TANK}\n{chat}", TANK)
    assert not is_accepted(f"{TANK}\n{chat}", f"{TANK}\n{chat}")


@pytest.mark.parametrize(
    ("rewritten", "reason"),
    [
        ("", "empty"),
        ("```\n```", "empty"),
        ("I'm sorry, I cannot help with that.", "refusal"),
        ("Example 1:\n\nWhat is 3+4?", "echoes the prompt"),
        (EXAMPLE[1], "echoes the prompt"),
        ("Sure! What is 3+4?", "commentary"),
        ("What is 3+4? I removed the greeting.", "commentary"),
        ("What is 3+4? The answer is 7.", "solution leaked"),
        ("What is 3+4? \\boxed{7}", "solution leaked"),
        ("Сколько будет 3+4?", "language"),
        ("What is 3+4? " * 9, "too long"),
        ("What is 3?", "number lost: 4"),
        ("What is 3+4+5?", "number added: 5"),
        ("What is 4+3?", "number moved"),
        ("What is 3-4?", "formula lost: 3+4"),
        ("Which sum is 3+4?", "term added: sum"),
        ("What is 3+4, dearest colleague?", "word added: colleague"),
        ("What is 3+4, Berta?", "name added: Berta"),
    ],
)
def test_reasons_name_what_was_found(rewritten: str, reason: str) -> None:
    verdict = judge("Hello! What is 3+4? Thanks", rewritten)
    assert verdict.outcome == "kept_original"
    assert verdict.reason.startswith(reason)


def test_who_is_asked_about_may_not_change() -> None:
    post = "Hello! Today Ana has 3 coins and Ben has 4. How many coins does Ana have more than Ben? Thanks"
    clean = "Today Ana has 3 coins and Ben has 4. How many coins does Ana have more than Ben?"
    assert is_accepted(post, clean)
    verdict = judge(post, clean.replace("does Ana have more than Ben", "does Ben have more than Ana"))
    assert verdict.reason.startswith("name moved")


@pytest.mark.parametrize(
    "answer",
    [
        "Output:\nWhat is 3+4?",
        "```text\nWhat is 3+4?\n```",
        "**Problem:** What is 3+4?",
        "The problem is:\n\nWhat is 3+4?",
        " What is 3+4? ",
    ],
)
def test_wrapping_is_taken_off(answer: str) -> None:
    assert tidy(answer) == "What is 3+4?"
    assert is_accepted("Hello! What is 3+4? Thanks", answer)


def test_a_post_without_a_problem_is_rejected() -> None:
    post = "Thank you all for the great discussion, this community is the best!"
    assert judge(post, "There is no math problem in this post.").outcome == "rejected"


def test_what_is_too_long_to_judge_keeps_the_original() -> None:
    assert judge("What is 3+4? " + "x" * 10_000, "What is 3+4?").reason.startswith("too long to judge")


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What is 3+4?", []),
        ("What is $f(1)$? What is $f(2)$?", ["several questions"]),
        ("Let $n=3$. (1) Find $a$. (2) Find $b$.", ["several questions"]),
        ("Find the area of the triangle shown below.", ["image"]),
        ("Find $x$ in the figure. ![](a.png)", ["image"]),
        ("What is the graph of $f(1)+f(2)$?", []),
        ("Great community here.", ["fragment"]),
        ("Find $x$ with the numbers of the previous problem.", ["fragment"]),
        ("A tank holds 40 liters and", ["fragment"]),
    ],
)
def test_flags(question: str, expected: list[str]) -> None:
    assert flags(question) == expected


def test_an_image_that_only_the_post_speaks_of_is_flagged() -> None:
    assert flags("In square $ABCD$, find $x$.", "As shown in the figure, in square $ABCD$, find $x$.") == ["image"]


def test_a_post_is_taken_apart() -> None:
    post = read_post("Hi all!\n(10 points) A car drives $3x$ km in 2 hours. How fast is it? I got 7.\nAnswer: 1.5x")
    assert post.problem == ("A car drives $3x$ km in 2 hours.", "How fast is it?")
    assert post.labels == ("(10 points)",)
    assert "I got 7." in post.chat
    assert "1.5x" in " ".join(post.chat)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300), st.text(max_size=300))
def test_any_two_texts_get_a_verdict(original: str, rewritten: str) -> None:
    assert judge(original, rewritten).outcome in {"accepted", "kept_original", "rejected"}


HOSTILE = (
    "$", "(", " ", "[hide]", "\\[", "**", "my ", "\n", "(20 ", "http://", "@", "a@", "{", "<b ", "?", "$x$", ".\n", "1. ",
    "\\text{", "I ", "A. ", "x=1 ",
)  # fmt: skip


@pytest.mark.timeout(120)
@pytest.mark.parametrize("piece", HOSTILE)
def test_repeated_pieces_do_not_hang(piece: str) -> None:
    text = (piece * 10_000)[:9_990]
    assert judge(text, text + "b").outcome in {"accepted", "kept_original", "rejected"}


@pytest.mark.skipif(not REAL, reason="CURIOSFT_BENCHMARKS names no folder with the benchmarks' rows")
@pytest.mark.parametrize("name", ["aime24", "aime25", "amc", "math500", "olympiadbench"])
def test_real_questions_inside_a_post_are_accepted(name: str) -> None:
    questions = [problem.question for problem in load_benchmark(name, data=f"{REAL}/{name}.jsonl")]
    accepted = [is_accepted(f"Hi all! (10 points) {one}\n\nThanks in advance!", one) for one in questions]
    assert sum(accepted) >= 0.95 * len(accepted)
