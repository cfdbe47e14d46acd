"""The paper's two prompts are the method: word for word, and filled in literally."""

from __future__ import annotations

import hashlib

import pytest

from curiosft_cli.tasks.prompts import REPHRASE_PROMPT, SYSTEM_PROMPT, messages, rephrase_message
from curiosft_cli.tasks.records import Problem


@pytest.mark.parametrize(
    ("prompt", "first", "last", "digest"),
    [
        (
            SYSTEM_PROMPT,
            "You are an exceptional mathematician.",
            r"within \boxed{ }.",
            "eb3e0fa45da9796a1b2c4daf4ff3b9b956014d62d3baa641db3074ad5b9893c0",
        ),
        (
            REPHRASE_PROMPT,
            "I will provide a post from a math-related forum",
            "Output:",
            "d436eb6307a8252266aa85e8b8bb233be252447ee1033be343691aa332714e46",
        ),
    ],
    ids=["Table 7", "Table 8"],
)
def test_word_for_word(prompt: str, first: str, last: str, digest: str) -> None:
    assert prompt.startswith(first)
    assert prompt.endswith(last)
    assert hashlib.sha256(prompt.encode()).hexdigest() == digest


def test_a_question_full_of_braces_is_put_in_once_and_literally() -> None:
    question = r"Let $\frac{a}{b}$ and {question} be given: {0} {x}"
    filled = rephrase_message(question)
    assert filled.count(question) == 1
    assert len(filled) == len(REPHRASE_PROMPT) - len("{question}") + len(question)


def test_messages() -> None:
    problem = Problem("1", "Which?", "B", kind="choice", choices=("one", "two"))
    system, user = messages(problem, system=None, prefix="Here is the question: ")
    assert system == {"role": "system", "content": SYSTEM_PROMPT}
    assert user["content"] == "Here is the question: Which?\n\nA) one\nB) two"
    assert [turn["role"] for turn in messages(problem, system="", prefix="")] == ["user"]
    assert messages(problem, system="Be brief.", prefix="")[0]["content"] == "Be brief."
