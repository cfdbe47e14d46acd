"""Tables 7 and 8 to the letter, and the messages made with them."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from curiosft_cli.data.prompts import QUESTION, REPHRASE_PROMPT, SYSTEM_PROMPT, messages, rephrase_message
from curiosft_cli.data.records import Problem

PREFIX = "Here is the question: "
PROBLEM = Problem("1", "What is $2+3$?", "5")


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_golden_table_7_is_the_papers_to_the_letter() -> None:
    assert digest(SYSTEM_PROMPT) == "eb3e0fa45da9796a1b2c4daf4ff3b9b956014d62d3baa641db3074ad5b9893c0"
    assert SYSTEM_PROMPT.startswith("You are an exceptional mathematician.")
    assert SYSTEM_PROMPT.endswith("Please output your final answer within \\boxed{ }.")


def test_golden_table_8_is_the_papers_to_the_letter() -> None:
    assert digest(REPHRASE_PROMPT) == "d436eb6307a8252266aa85e8b8bb233be252447ee1033be343691aa332714e46"
    assert REPHRASE_PROMPT.count(QUESTION) == 1
    assert REPHRASE_PROMPT.endswith("Input:\n\n{question}\n\nOutput:")


def test_the_default_system_message_is_table_7() -> None:
    assert messages(PROBLEM, system=None, prefix=PREFIX) == [
        {"role": "system", "content": SYSTEM_PROMPT},
        {"role": "user", "content": "Here is the question: What is $2+3$?"},
    ]


def test_an_empty_system_message_is_left_out_and_another_one_is_kept() -> None:
    assert [turn["role"] for turn in messages(PROBLEM, system="", prefix="")] == ["user"]
    assert messages(PROBLEM, system="Be brief.", prefix="")[0] == {"role": "system", "content": "Be brief."}


def test_a_question_that_brings_the_prefix_along_does_not_get_it_twice() -> None:
    brought = Problem("1", PREFIX + "What is $2+3$?", "5")
    assert messages(brought, system="", prefix=PREFIX) == messages(PROBLEM, system="", prefix=PREFIX)


def test_options_follow_a_blank_line() -> None:
    problem = Problem("1", "Which is prime?", "B", kind="choice", choices=("4", "5", "six) or 6"))
    content = messages(problem, system="", prefix="")[0]["content"]
    assert content == "Which is prime?\n\nA) 4\nB) 5\nC) six) or 6"


@given(st.text())
def test_the_question_goes_into_table_8_once_and_literally(question: str) -> None:
    before, after = REPHRASE_PROMPT.split(QUESTION)
    assert rephrase_message(question) == before + question + after


def test_a_placeholder_inside_the_question_stays() -> None:
    question = "{question} and \\frac{1}{2} {0}"
    assert question in rephrase_message(question)
