"""Grading throughput on short boxed answers: one pool worker against plain Math-Verify, interleaved in one run.

Prints one JSON line. Every round has new numbers, so that no cache of an earlier round helps; within a round each
question has `--samples` answers, as in an evaluation. Plain Math-Verify parses gold and completion and verifies, in
this process, with its defaults.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time

from curiosft_cli.data.records import Problem
from curiosft_cli.grading.grade import GradeItem
from curiosft_cli.grading.pool import GraderPool


def question(rng: random.Random) -> tuple[str, list[str]]:
    """Return a gold and ways to answer it, in the proportions of competition answers: the last two are wrong."""
    a, b, c = rng.randint(2, 999), rng.randint(2, 99), rng.randint(2, 9)
    kinds = [
        (str(a), [str(a), f"{a}.0", f"x = {a}", f"{a}\\text{{ cm}}", str(a + 1), f"-{a}"]),
        (f"\\frac{{{a}}}{{{b}}}", [f"\\dfrac{{{a}}}{{{b}}}", f"{a}/{b}", f"\\frac{{{b}}}{{{a}}}", f"{a}.5"]),
        (f"{c}\\sqrt{{{b}}}", [f"{c}\\sqrt{{{b}}}", f"\\sqrt{{{c * c * b}}}", f"{b}\\sqrt{{{c}}}", f"{c * b}"]),
        (f"({a},{b})", [f"({a}, {b})", f"\\left({a},{b}\\right)", f"({b},{a})", f"{a}"]),
        (f"{c}x^2+{b}", [f"{b}+{c}x^2", f"{c}x^2+{b}", f"{c}x^2-{b}", f"{b}x^2+{c}"]),
        (f"{a}\\pi", [f"{a}\\pi", f"\\pi \\cdot {a}", f"{a}", f"{b}\\pi"]),
    ]
    return rng.choices(kinds, weights=[60, 15, 8, 7, 5, 5])[0]


def make_items(rng: random.Random, questions: int, samples: int) -> list[GradeItem]:
    """Return `questions * samples` completions, one in four or so wrong."""
    items = []
    for number in range(questions):
        gold, answers = question(rng)
        problem = Problem(str(number), "?", gold)
        for _ in range(samples):
            solution = f"So the answer is $\\boxed{{{rng.choice(answers)}}}$."
            items.append(GradeItem(f"Let me think.\n</think>\n{solution}", problem))
    return items


def grade_plainly(items: list[GradeItem]) -> int:
    """Return how many items plain Math-Verify accepts."""
    from math_verify import parse, verify

    return sum(verify(parse(f"${item.problem.answer}$"), parse(item.completion)) for item in items)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rng = random.Random(0)
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    with GraderPool(1) as pool:
        for warm in [True, *[False] * options.rounds]:
            items = make_items(rng, options.questions, options.samples)
            for name, run in (("plain", grade_plainly), ("ours", lambda items: list(pool.grade_in_order(items)))):
                start = time.perf_counter()
                run(items)
                if not warm:
                    seconds[name].append(time.perf_counter() - start)
    rates = {name: options.questions * options.samples / statistics.median(times) for name, times in seconds.items()}
    print(
        json.dumps(
            {
                "bench": "grader",
                "questions": options.questions,
                "samples": options.samples,
                "rounds": options.rounds,
                "ours_items_per_s": round(rates["ours"], 1),
                "plain_items_per_s": round(rates["plain"], 1),
                "ratio": round(rates["ours"] / rates["plain"], 2),
            }
        )
    )


if __name__ == "__main__":
    main()
