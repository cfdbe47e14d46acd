"""The feed: every usable row once an epoch, the same whatever is asked first, texts on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curiosft_cli.data.records import Problem
from curiosft_cli.data.sources import to_problem
from curiosft_cli.run.errors import CurioError
from curiosft_cli.run.sections import Model
from curiosft_cli.train.encode import PromptFormat, encode_prompt, encode_row
from curiosft_cli.train.feed import RowFeed, Spool, open_feed, usable, with_response
from curiosft_cli.train.load import load_tokenizer

STYLE = PromptFormat("", "", "<think>\n")


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return load_tokenizer(str(tiny_model), Model())


def problems(count: int) -> list[Problem]:
    return [Problem(str(n), f"What is {n}+1?", str(n + 1), response=f"so {n + 1}") for n in range(count)]


def opened(tokenizer: Any, folder: Path, count: int, batch_size: int = 4) -> RowFeed:
    feed, too_long = open_feed(
        tokenizer, problems(count), STYLE, folder, max_prompt=200, max_response=50, batch_size=batch_size, seed=3
    )
    assert too_long == []
    return feed


def test_an_epoch_is_every_row_once_in_its_seeds_order(tokenizer: Any, tmp_path: Path) -> None:
    feed = opened(tokenizer, tmp_path, 10)
    first, second = ([row.problem_id for step in steps for row in feed.rows(step)] for steps in ((0, 1, 2), (3, 4, 5)))
    feed.close()
    assert sorted(first, key=int) == sorted(second, key=int) == [str(n) for n in range(10)]
    assert first != second


def test_the_rows_of_a_step_do_not_depend_on_what_was_asked_before(tokenizer: Any, tmp_path: Path) -> None:
    one, two = opened(tokenizer, tmp_path, 10), opened(tokenizer, tmp_path, 10)
    expected = [one.rows(step) for step in range(6)]
    assert [two.rows(step) for step in (5, 2, 2, 0)] == [expected[step] for step in (5, 2, 2, 0)]
    assert expected[1][0] == encode_row(tokenizer, problems(10)[int(expected[1][0].problem_id)], STYLE, 50)
    one.close()
    two.close()


def test_a_failure_of_the_worker_is_not_lost(tokenizer: Any, tmp_path: Path) -> None:
    def broken(problem: Problem) -> Any:
        raise ValueError("no such token")

    feed = RowFeed(Spool(problems(4), tmp_path), broken, batch_size=2, seed=0)
    with pytest.raises(ValueError, match="no such token"):
        feed.rows(0)
    feed.close()


@given(st.lists(st.tuples(st.text(), st.text(), st.lists(st.text(), max_size=3)), max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_a_spool_gives_back_what_it_was_given(tmp_path: Path, texts: list[tuple[str, str, list[str]]]) -> None:
    given_problems = [
        Problem(str(n), question, "A", choices=tuple(choices), response=response)
        for n, (question, response, choices) in enumerate(texts)
    ]
    spool = Spool(given_problems, tmp_path)
    assert [spool[index] for index in reversed(range(len(spool)))] == given_problems[::-1]
    spool.close()
    assert list(tmp_path.iterdir()) == []  # the file has no name


@given(st.text(min_size=1, max_size=60), st.integers(1, 120))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
def test_the_bound_never_lets_too_long_a_prompt_through(tokenizer: Any, question: str, limit: int) -> None:
    row = Problem("1", question, "1", response="x")
    fits = len(encode_prompt(tokenizer, row, STYLE)) <= limit
    too_long: list[str] = []
    assert list(usable(tokenizer, [row], STYLE, limit, too_long)) == ([row] if fits else [])
    assert too_long == ([] if fits else ["1"])


SILENT = [
    (
        {"problem": "q", "answer": "1"},
        "found the columns answer, problem, expected the expert's response in response, ",
    ),
    ({"problem": "q", "solution": " "}, "column solution: found no text, expected the expert's response"),
    ({"prompt": "q", "completion": "<think>\n"}, "column completion: found no text"),
    ({"prompt": [{"role": "user", "content": "q"}], "target": [{"value": "a"}]}, "column target: found no text"),
    ({"messages": [{"role": "user", "content": "q"}]}, "column messages: found no text"),
]


@pytest.mark.parametrize(("row", "said"), SILENT)
def test_a_row_without_a_response_is_a_bad_row(row: dict[str, Any], said: str) -> None:
    problem = to_problem(row, "1")
    good = Problem("2", "q", "1", response="a")
    found = [("data.jsonl, row 1", row, problem), ("data.jsonl, row 2", {}, good)]
    with pytest.raises(CurioError) as refused:
        list(with_response(found, STYLE, None))
    assert str(refused.value).startswith(f"data.jsonl, row 1: {said}") and "data.on_bad_row=skip" in str(refused.value)
    lacking: list[str] = []
    assert list(with_response(found, STYLE, lacking)) == [good]
    assert len(lacking) == 1 and lacking[0].startswith(f"data.jsonl, row 1: {said}")


def test_a_row_longer_than_the_context_says_what_to_set(tokenizer: Any, tmp_path: Path) -> None:
    rows = [*problems(3), Problem("long", "What?", "1", response="abc " * 300)]

    def opened(context: int, max_response: int) -> Any:
        limits: dict[str, Any] = {"max_prompt": 200, "max_response": max_response, "batch_size": 2, "seed": 0}
        return open_feed(tokenizer, rows, STYLE, tmp_path, context=context, **limits)

    with pytest.raises(CurioError, match=r"row long has \d+ tokens, the model's context is 512.*rope_theta"):
        opened(512, 2000)
    feed, _ = opened(512, 312)  # cut to what fits
    assert max(len(row) for row in feed.rows(0) + feed.rows(1)) <= 512
    feed.close()
