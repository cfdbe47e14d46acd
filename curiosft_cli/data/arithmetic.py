"""Arithmetic word problems made from a seed: the quickstart's task, with expert answers and noisy forum posts."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from curiosft_cli.data.records import Problem

T = TypeVar("T")

SPLITS = ("train", "test")
TEST_SHARE = 5  # one question in five is in the test split; its own text decides
MAX_ANSWER = 200

NAMES = (
    "Ana", "Ben", "Carla", "Deniz", "Emil", "Farah", "Goran", "Hana", "Ivo", "Jun", "Kofi", "Lena",
    "Mira", "Nils", "Olga", "Pavel", "Rosa", "Sam", "Tara", "Uma", "Vera", "Wim", "Yara", "Zoe",
)  # fmt: skip
THINGS = (
    "apples", "books", "coins", "marbles", "pencils", "stamps", "shells", "tickets", "stones", "cards",
    "buttons", "candles", "stickers", "cookies", "beads", "balloons",
)  # fmt: skip


@dataclass(frozen=True)
class Template:
    """A story and its arithmetic.

    Attributes:
        text: the question, with {a} .. {d} for numbers, {name}, {other} and {things}.
        steps: from {a} on, left to right: (operation, which number).
    """

    text: str
    steps: tuple[tuple[str, str], ...]


RANGES: Mapping[str, tuple[int, int]] = {"+": (2, 30), "-": (2, 30), "*": (2, 5), "/": (2, 6)}
START = (3, 40)

TEMPLATES = (
    Template("{name} has {a} {things}. {other} gives {name} {b} more. How many {things} does {name} have now?",
             (("+", "b"),)),
    Template("There are {a} {things} in a box. {name} takes {b} of them out. How many {things} are left in the box?",
             (("-", "b"),)),
    Template("{name} fills {a} bags with {b} {things} each. How many {things} are in the bags?", (("*", "b"),)),
    Template("{name} shares {a} {things} equally among {b} friends. How many {things} does each friend get?",
             (("/", "b"),)),
    Template("{name} had {a} {things}, found {b} more, and then lost {c}. How many {things} does {name} have left?",
             (("+", "b"), ("-", "c"))),
    Template("A shop sells packs of {a} {things}. {name} buys {b} packs and gives {c} {things} to {other}. "
             "How many {things} does {name} keep?", (("*", "b"), ("-", "c"))),
    Template("{name} has {a} {things} and {other} has {b}. They put them together and split them equally into "
             "{c} bags. How many {things} are in each bag?", (("+", "b"), ("/", "c"))),
    Template("{name} reads {a} pages a day for {b} days, and {c} pages on the last day. "
             "How many pages does {name} read in total?", (("*", "b"), ("+", "c"))),
    Template("A bus carries {a} people. At the first stop {b} get off, and at the second stop {c} get on. "
             "How many people are on the bus now?", (("-", "b"), ("+", "c"))),
    Template("{name} splits {a} {things} equally into {b} boxes and then puts {c} more into one of the boxes. "
             "How many {things} are in that box?", (("/", "b"), ("+", "c"))),
    Template("One ticket costs {a} dollars. {name} buys {b} tickets and has {c} dollars left. "
             "How many dollars did {name} have at first?", (("*", "b"), ("+", "c"))),
    Template("{name} has {a} {things}. {other} has {b} times as many. How many {things} do they have together?",
             (("*", "b"), ("+", "a"))),
    Template("{name} is {a} years old. {other} is {b} years older. What is the sum of their ages in years?",
             (("+", "b"), ("+", "a"))),
    Template("{name} picks {a} {things} in the morning and {b} in the afternoon. {name} puts all of them into {c} "
             "equal piles and gives {d} {things} from one pile to {other}. How many {things} are left in that pile?",
             (("+", "b"), ("/", "c"), ("-", "d"))),
    Template("A crate holds {a} {things}. {name} orders {b} crates, {c} {things} arrive broken, and {d} spare "
             "{things} are added. How many good {things} does {name} have?", (("*", "b"), ("-", "c"), ("+", "d"))),
    Template("{name} has {a} dollars and earns {b} dollars. {name} spends {c} dollars on food and {d} dollars on a "
             "present for {other}. How many dollars does {name} have left?", (("+", "b"), ("-", "c"), ("-", "d"))),
    Template("{name} bakes {a} trays of {b} rolls each, eats {c} of them, and packs the rest equally into {d} bags. "
             "How many rolls are in each bag?", (("*", "b"), ("-", "c"), ("/", "d"))),
    Template("A class of {a} pupils is split into {b} equal groups. Each group makes {c} posters, and {other} makes "
             "{d} more alone. How many posters are made by one group and {other} together?",
             (("/", "b"), ("*", "c"), ("+", "d"))),
)  # fmt: skip

GREETINGS = (
    "Hi all!", "Hello everyone,", "Hey, quick one:", "Good evening folks.", "Sorry if this was posted before.",
    "First post here, be nice :)", "Greetings from the math club!",
)  # fmt: skip
ORIGINS = (
    "(10 points)", "(5 pts)", "From our school contest:", "My teacher gave us this:", "Problem 3.", "[Easy one]",
    "1.", "Source: winter camp, day 2.", "Exercise 12 (homework).",
)  # fmt: skip
CLOSINGS = (
    "Thanks in advance!", "No calculators please :)", "I got stuck here, any hints?", "Happy solving!",
    "My cousin says it is trivial.", "I tried for 20 minutes and gave up lol.", "Please explain every step, thx.",
    "P.S. the forum ate my last post.",
)  # fmt: skip


def generate(split: str, rows: int, seed: int = 0) -> list[Problem]:
    """`rows` different problems of one to three operations; the two splits never share a question.

    Args:
        split: "train" or "test".
        rows: number of problems.
        seed: another seed gives other problems of the same split.
    """
    problems: dict[str, Problem] = {}
    for question, steps, answer in _stories(SeededChoices(f"arithmetic|{split}|{seed}")):
        if len(problems) == rows:
            break
        if question not in problems and split_of(question) == split:
            response = f"{' '.join(steps)}\n</think>\nThe answer is \\boxed{{{answer}}}."
            name = f"arithmetic-{split}-{seed}-{len(problems)}"
            problems[question] = Problem(name, question, str(answer), "arithmetic", response=response)
    return list(problems.values())


def noisy(problem: Problem, seed: int = 0) -> Problem:
    """The same problem as a forum post, with the greeting, origin, chat and thanks that Table 8 removes."""
    draw = SeededChoices(f"forum|{seed}|{problem.question}")
    parts = [draw.one_of(GREETINGS), draw.one_of(ORIGINS), problem.question, draw.one_of(CLOSINGS)]
    if draw.below(3) == 0:
        parts.pop(draw.one_of((0, 1, 3)))
    return replace(problem, question=draw.one_of((" ", "\n", "\n\n")).join(parts))


def without_noise(post: str) -> str:
    """The question of a `noisy` post."""
    text = post.strip()
    for phrase in (*GREETINGS, *ORIGINS):
        text = text.removeprefix(phrase).lstrip()
    for phrase in CLOSINGS:
        text = text.removesuffix(phrase).rstrip()
    return text


def split_of(question: str) -> str:
    """The split of a question. It depends on the text only, not on the seed."""
    return "test" if _digest(question) % TEST_SHARE == 0 else "train"


class SeededChoices:
    """Seeded choices. They use `random()` alone: Python keeps its sequence the same in all versions."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(_digest(seed)).random

    def below(self, count: int) -> int:
        """An integer in [0, count)."""
        return int(self._random() * count)

    def between(self, low: int, high: int) -> int:
        """An integer in [low, high]."""
        return low + self.below(high - low + 1)

    def one_of(self, options: Sequence[T]) -> T:
        """One of the options."""
        return options[self.below(len(options))]


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _stories(draw: SeededChoices) -> Iterator[tuple[str, list[str], int]]:
    """Yield `(question, worked steps, answer)` without end. A story whose numbers are not whole is drawn again."""
    while True:
        template = draw.one_of(TEMPLATES)
        numbers = {"a": draw.between(*START)}
        for operation, key in template.steps:
            numbers.setdefault(key, draw.between(*RANGES[operation]))
        name = draw.one_of(NAMES)
        other = draw.one_of([person for person in NAMES if person != name])
        things = draw.one_of(THINGS)
        worked = _work(template, numbers)
        if worked:
            yield template.text.format(name=name, other=other, things=things, **numbers), *worked


def _work(template: Template, numbers: Mapping[str, int]) -> tuple[list[str], int] | None:
    """The written steps and the result. None if a number on the way is not whole or not within bounds."""
    total, steps = numbers["a"], []
    for operation, key in template.steps:
        value = numbers[key]
        if operation == "/" and total % value:
            return None
        after = {"+": total + value, "-": total - value, "*": total * value, "/": total // value}[operation]
        if not 0 < after <= MAX_ANSWER:
            return None
        steps.append(f"{total} {operation} {value} = {after}.")
        total = after
    return steps, total
