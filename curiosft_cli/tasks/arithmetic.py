"""Arithmetic word problems made from a seed: the quickstart's task, with expert answers and noisy forum posts."""

from __future__ import annotations

import random
from collections.abc import Iterator

from curiosft_cli.tasks.records import Problem

SPLITS = ("train", "test")
TEST_SHARE = 5  # one question in five belongs to the test split, decided by its own numbers

NAMES = ("Ana", "Ben", "Carla", "Deniz", "Emil", "Farah", "Goran", "Hana", "Ivo", "Jun", "Kofi", "Lena")
THINGS = ("apples", "books", "coins", "marbles", "pencils", "stamps", "shells", "tickets", "stones", "cards")
GREETINGS = (
    "Hi all!",
    "Hello everyone,",
    "Hey, quick one:",
    "Good evening folks.",
    "Sorry if this was posted before.",
)
ORIGINS = ("(10 points)", "From our school contest:", "My teacher gave us this:", "Problem 3.", "[Easy one]")
CLOSINGS = (
    "Thanks in advance!",
    "No calculators please :)",
    "I got stuck here, any hints?",
    "Happy solving!",
    "My cousin says it is trivial.",
)


def generate(split: str, rows: int, seed: int = 0) -> list[Problem]:
    """`rows` different problems of one to three operations; the two splits never share a question.

    Args:
        split: "train" or "test".
        rows: how many.
        seed: other seeds give other problems of the same split.
    """
    problems: list[Problem] = []
    seen: set[str] = set()
    for candidate in _candidates(split, seed):
        if candidate.question not in seen:
            seen.add(candidate.question)
            problems.append(candidate)
            if len(problems) == rows:
                break
    return problems


def noisy(problem: Problem, seed: int = 0) -> Problem:
    """The same problem as a forum post: greeting, source, chat and thanks around the question (what Table 8 removes)."""
    rng = random.Random(f"forum|{seed}|{problem.id}")
    post = f"{rng.choice(GREETINGS)} {rng.choice(ORIGINS)} {problem.question} {rng.choice(CLOSINGS)}"
    return Problem(problem.id, post, problem.answer, problem.source, response=problem.response)


def _candidates(split: str, seed: int) -> Iterator[Problem]:
    rng = random.Random(f"arithmetic|{split}|{seed}")
    number = 0
    while True:
        question, steps, answer, key = _story(rng)
        if (key % TEST_SHARE == 0) == (split == "test"):
            yield Problem(
                f"arithmetic-{split}-{seed}-{number}",
                question,
                str(answer),
                "arithmetic",
                response=_expert(steps, answer),
            )
            number += 1


def _story(rng: random.Random) -> tuple[str, list[str], int, int]:
    """A question, its worked steps, its answer, and a number that depends on the question alone."""
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    total = rng.randint(3, 40)
    sentences = [f"{name} has {total} {thing}."]
    steps: list[str] = []
    key = total + 31 * NAMES.index(name) + 37 * THINGS.index(thing)
    for place in range(rng.randint(1, 3)):
        sentence, step, total, value = _operation(rng, name, thing, total, first=place == 0)
        sentences.append(sentence)
        steps.append(step)
        key = key * 7 + value
    return f"{' '.join(sentences)} How many {thing} does {name} have now?", steps, total, key


def _operation(rng: random.Random, name: str, thing: str, total: int, *, first: bool) -> tuple[str, str, int, int]:
    kinds = ["add", "take"]
    if total >= 4 and total % 2 == 0:
        kinds.append("halve")
    if total <= 30:
        kinds.append("times")
    kind = rng.choice(kinds)
    then = f"{name}" if first else f"Then {name}"
    if kind == "add":
        value = rng.randint(2, 30)
        return f"{then} gets {value} more.", f"{total} + {value} = {total + value}.", total + value, value
    if kind == "take" and total > 2:
        value = rng.randint(1, total - 1)
        return f"{then} gives away {value}.", f"{total} - {value} = {total - value}.", total - value, value + 100
    if kind == "halve":
        return f"{then} gives half of the {thing} away.", f"{total} / 2 = {total // 2}.", total // 2, 200
    value = rng.randint(2, 3)
    word = {2: "twice", 3: "three times"}[value]
    return (
        f"{then} trades them for {word} as many.",
        f"{total} * {value} = {total * value}.",
        total * value,
        300 + value,
    )


def _expert(steps: list[str], answer: int) -> str:
    return f"{' '.join(steps)}\n</think>\nThe answer is \\boxed{{{answer}}}."
