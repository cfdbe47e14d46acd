"""Completions made to hang, crash or fool a grader, through one shared pool: each ends, with the right verdict."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from curiosft_cli.data.records import Grade, Problem
from curiosft_cli.grading.grade import GradeItem, grade
from curiosft_cli.grading.pool import GraderPool


def box(content: str) -> str:
    return rf"\boxed{{{content}}}"


def nested(opening: str, closing: str, depth: int) -> str:
    return opening * depth + "5" + closing * depth


UNION = [f"({n},{n + 1})" for n in range(0, 400, 2)]
SYMBOLIC = r"\\".join("&".join(f"a_{{{i}{j}}}" for j in range(12)) for i in range(12))
MARK = Path("/tmp/a-grader-ran-this")

# name: (solution, gold, score); a gold of None stands for 5
NASTY: dict[str, tuple[str, str | None, float]] = {
    "tower": (box("9^{9^{9}}"), None, 0),
    "high tower": (box("9^{9^{9^{9}}}"), None, 0),
    "tower in words": ("The answer is 9^9^9^9", None, 0),
    "big power": (box("2^{100000000}"), None, 0),
    "equal powers": (box("2^{200000}"), "4^{100000}", 1),
    "ten to ten to ten": (box("10^{10^{10}}"), "10^{10000000001}", 0),
    "power of a power": (box("2^{10^{10}}"), None, 0),
    "nested factorial": (box("((9!)!)!"), None, 0),
    "big factorial": (box("1000000000!"), None, 0),
    "big binomial": (box(r"\binom{10000000}{5000000}"), None, 0),
    "long sum": (box(r"\sum_{k=1}^{100000}\frac{1}{k}"), None, 0),
    "longer sum": (box(r"\sum_{k=1}^{10000000}\sin(k)"), None, 0),
    "long product": (box(r"\prod_{k=1}^{100000}k"), None, 0),
    "integral": (box(r"\int_0^1 e^{\sin(x^{x})}dx"), None, 0),
    "zeta tail": (box(r"\sum_{k=100}^{\infty}\frac{1}{k^3}"), None, 0),
    "e notation": (box("1e400"), "1", 0),
    "e notation in words": ("The answer is 1e400", "1", 0),
    "many digits": (box("7" * 5000), "7", 0),
    "very many digits": (box("7" * 100_000), "7", 0),
    "fractions 45 deep": (box(nested(r"\frac{1}{1+", "}", 45)), None, 0),
    "fractions 300 deep": (box(nested(r"\frac{1}{1+", "}", 300)), None, 0),
    "roots 80 deep": (box(nested(r"\sqrt{", "}", 80)), None, 0),
    "brackets 49 deep": (box(nested("(", ")", 49)), "6", 0),
    "brackets 500 deep": (box(nested("(", ")", 500)), "6", 0),
    "braces 2000 deep": (box(nested("{", "}", 2000)), "6", 0),
    "left 500 deep": (box(nested(r"\left(", r"\right)", 500)), "6", 0),
    "500 open brackets": (box("(" * 500), None, 0),
    "200 unions": (box(r"\cup".join(UNION)), r"\cup".join([*UNION[:-1], "(998,999)"]), 0),
    "set of 500": (box(rf"\{{{','.join(map(str, range(500)))}\}}"), rf"\{{{','.join(map(str, range(1, 501)))}\}}", 0),
    "determinant": (box(rf"\det\begin{{pmatrix}}{SYMBOLIC}\end{{pmatrix}}"), None, 0),
    "matrix power": (
        box(r"\begin{pmatrix}1&1\\1&0\end{pmatrix}^{1000000}"),
        r"\begin{pmatrix}1&1\\1&0\end{pmatrix}",
        0,
    ),
    "long prose": ("word " * 20_000, None, 0),
    "long prose and a box": ("word " * 20_000 + box("5"), None, 1),
    "many numbers": (" ".join(map(str, range(20_000))), "19999", 0),
    "lone dollars": ("$ " * 20_000 + box("5"), None, 1),
    "open displays": (r"\[" * 5000 + box("5"), None, 1),
    "open brackets outside": (r"\(" * 8000, None, 0),
    "20000 boxes": (" ".join(map(box, map(str, range(20_000)))), "19999", 1),
    "20000 open boxes": (r"\boxed{" * 20_000, None, 0),
    "12000 terms without a box": ("1 + " * 12_000 + "1", "1", 0),
    "300 terms": (box("1 + " * 300 + "1"), "301", 1),
    "12000 terms": (box("1 + " * 12_000 + "1"), "1", 0),
    "never finishes": ("so $x=1$ and " * 8000, "1", 0),
    "trigonometric": (box(r"\cos(\pi/7)\cos(2\pi/7)\cos(4\pi/7)"), "-1/8", 1),
    "denested root": (box(r"\sqrt{3+2\sqrt2}"), r"1+\sqrt2", 1),
    "power of a sum": (box("(x+1)^{200}"), "(x+1)^{100}(x+1)^{100}", 1),
    "python": (box(f"__import__('os').system('touch {MARK}')"), None, 0),
    "shell": (box(rf"\write18{{touch {MARK}}}5"), None, 0),
    "file": (box(r"\input{/etc/passwd}5"), None, 0),
    "null bytes": ("\x00" * 100 + box("5\x00"), None, 1),
    "emoji": ("😀" * 1000 + box("5😀"), None, 0),
    "lone surrogates": ("\ud800" * 10 + box("\udfff5"), None, 1),
    "empty": ("", None, 0),
    "many statements": ("the answer is " * 20_000, None, 0),
    "spaces before": (box(" " * 3000 + "5"), None, 1),
    "spaces between": (box("5" + " " * 3000 + "x"), None, 0),
    "commas": (box("1," * 1900), None, 0),
    "equals": (box("1=" * 1900 + "2"), None, 0),
    "commands": (box(r"\frac" * 900), None, 0),
    "carets": (box("^" * 3000), None, 0),
    "indices": (box("1" + "_1" * 1500), None, 0),
    "bars": (box("|" * 3000), None, 0),
    "units": (box("5" + r"\text{m}" * 400 + "x"), None, 0),
    "relations": (box("<".join(map(str, range(900)))), None, 0),
    "relations of letters": (box("x<" * 1900 + "2"), "x<2", 0),
    "names": (box(",".join(f"a_{{{n}}}={n}" for n in range(300))), "a=1,b=2", 0),
    "same names": (box("a=1,b=2," * 450), "a=1,b=2", 0),
    "labels": (box("a" * 3900 + ":"), "a: 1, b: 2", 0),
    "counted": (box("1 " * 1900 + "x"), "1 boy, 2 girls", 0),
    "powers of variables": (box("(x+y)^{1000000000}"), "(x+y)^{1000000001}", 0),
    "repeating": (box("0." + "1" * 900 + r"\overline{" + "3" * 900 + "}"), None, 0),
}


@pytest.fixture(scope="module")
def grades() -> dict[str, Grade]:
    """All of them at once, because each that hangs costs its whole limit."""
    MARK.unlink(missing_ok=True)
    items = [
        GradeItem(f"thought\n</think>\n{solution}", Problem(name, "?", gold or "5"))
        for name, (solution, gold, _) in NASTY.items()
    ]
    with GraderPool(2, library_timeout_s=1, deadline_s=10) as pool:
        return dict(zip(NASTY, list(pool.grade_in_order(items)), strict=True))


@pytest.mark.parametrize("name", NASTY)
def test_nasty_completion(name: str, grades: dict[str, Grade]) -> None:
    # A gold as long as the answer may be ungradable in the time given, but must not be matched.
    assert (grades[name].answer or 0.0) == NASTY[name][2]
    assert grades[name].status in ("ok", "timeout", "oom")


def test_nothing_was_run(grades: dict[str, Grade]) -> None:
    assert grades and not MARK.exists()


@pytest.mark.parametrize(
    "text",
    [
        "the answer is " * 20_000,
        "option A" + " " * 100_000,
        "A is\n" * 20_000,
        "\n" * 100_000 + "A",
        "answer: $" * 9000,
    ],
)
def test_letters_are_read_in_time(text: str) -> None:
    start = time.process_time()
    grade(f"t</think>{text}", Problem("p", "?", "A", kind="choice", choices=("w", "x", "y", "z")))
    assert time.process_time() - start < 5
