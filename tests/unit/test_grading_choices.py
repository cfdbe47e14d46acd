"""Which letter a completion chooses: never a guess."""

from __future__ import annotations

import pytest

from curiosft_cli.data.records import Problem
from curiosft_cli.grading.grade import grade

DAYS = (
    "Planetary density will decrease.",
    "Planetary years will become longer.",
    "Planetary days will become shorter.",
    "Gravity rises.",
)
MASSES = ("2 kg", "4 kg", "6 kg", "8 kg")
NUMBERS = ("11", "10", "12", "14")
SPECIES = ("S. aureus", "E. coli", "D. melanogaster", "C. elegans", "Yeast")
LETTERS = ("K", "G", "E", "I")
COMBINED = ("1 and 2", "A and C", "None of the above", "B only")

# fmt: off
# the content of the box, the number of choices, the letter
BOXED = [
    ("A", 4, "A"), ("a", 4, "A"), ("(A)", 4, "A"), ("[A]", 4, "A"), ("A)", 4, "A"), ("A.", 4, "A"), ("A:", 4, "A"),
    ("(a)", 4, "A"), (r"\text{A}", 4, "A"), (r"\textbf{A}", 4, "A"), (r"\mathbf{A}", 4, "A"),
    (r"\mathrm{A}", 4, "A"), (r"\textbf{(A)}", 4, "A"), (r"\text{(A)}", 4, "A"), (r"\text{A)}", 4, "A"),
    (r"{\bf A}", 4, "A"), (r"\boldsymbol{A}", 4, "A"), (r"\ A\ ", 4, "A"), (r"\text{ A }", 4, "A"),
    ("**A**", 4, "A"), ("$A$", 4, "A"), (r"\(A\)", 4, "A"), ("Option A", 4, "A"), (r"\text{Option A}", 4, "A"),
    (r"\text{option (A)}", 4, "A"), (r"\text{Choice A}", 4, "A"), (r"\text{Answer: A}", 4, "A"),
    (r"\text{The answer is A}", 4, "A"), (r"\text{The correct answer is (A)}", 4, "A"),
    (r"\text{The final answer is: A.}", 4, "A"), (r"\text{The correct option is A}", 4, "A"),
    (r"\text{Answer A}", 4, "A"), (r"\text{Correct answer: A}", 4, "A"), (r"A) \text{the nucleus}", 4, "A"),
    (r"\text{A) the nucleus}", 4, "A"), (r"\text{A. the nucleus}", 4, "A"), (r"\text{(A) the nucleus}", 4, "A"),
    (r"\text{A: the nucleus}", 4, "A"), (r"\textbf{(A)}\ 17", 4, "A"), (r"A.\ 17", 4, "A"),
    (r"\text{B) 3.5 and 4}", 4, "B"), (r"\text{(D)}~\frac{1}{2}", 4, "D"), ("\uff21", 4, "A"), ("\u24b6", 4, "A"),
    ("A\u200b", 4, "A"), ("\u0410", 4, None), ("I", 10, "I"), ("J", 10, "J"), ("E", 5, "E"), ("E", 4, None),
    ("K", 10, None), ("i", 10, "I"), ("e", 5, "E"), ("A, B", 4, None), ("A,B", 4, None), ("AB", 4, None),
    ("A and B", 4, None), (r"\text{A and B}", 4, None), ("A or B", 4, None), ("A/B", 4, None), ("A & B", 4, None),
    ("A) or B)", 4, None), ("(A), (B)", 4, None), ("(A) and (C)", 4, None), ("A. B", 4, None),
    (r"\{A, C\}", 4, None), (r"A \text{ or } B", 4, None), ("A; B", 4, None), ("A: B", 4, None),
    ("A) foo, B) bar", 4, None), ("12 = C", 4, None), ("C = 12", 4, None), ("x = C", 4, None), ("3", 4, None),
    ("1", 4, None), ("", 4, None), (r"\text{}", 4, None), ("?", 4, None), ("Z", 4, None), ("G", 4, None),
    (r"\alpha", 4, None), ("nucleus", 4, None), ("A nucleus", 4, None), ("not A", 4, None), ("a nucleus", 4, None),
]
# the content of the box, the texts of the choices, the letter
BOXED_TEXT = [
    (r"6\ \text{kg}", MASSES, "C"), ("6 kg", MASSES, "C"), ("6kg", MASSES, "C"), (r"6\,\mathrm{kg}", MASSES, "C"),
    ("6", MASSES, None), ("5 kg", MASSES, None), (r"C) 6 \text{ kg}", MASSES, "C"), ("C, 6 kg", MASSES, "C"),
    ("C 6 kg", MASSES, "C"), ("(C) - 6 kg", MASSES, "C"), ("12", NUMBERS, "C"), ("10", NUMBERS, "B"),
    ("13", NUMBERS, None), ("B) 10", NUMBERS, "B"), (r"\text{Planetary days will become shorter}", DAYS, "C"),
    (r"\text{Planetary days will become shorter.}", DAYS, "C"),
    (r"\text{C. Planetary days will become shorter.}", DAYS, "C"), (r"\text{Planetary days}", DAYS, None),
    (r"\text{planetary days will become shorter}", DAYS, "C"), ("E. coli", SPECIES, "B"),
    ("B. E. coli", SPECIES, "B"), ("B) E. coli", SPECIES, "B"), (r"\textit{E. coli}", SPECIES, "B"),
    ("D. melanogaster", SPECIES, "C"), ("Yeast", SPECIES, "E"), ("G", LETTERS, "B"), ("K", LETTERS, "A"),
    ("E", LETTERS, "C"), ("A", LETTERS, "A"), ("I", LETTERS, "D"), ("A and C", COMBINED, "B"),
    ("B) A and C", COMBINED, "B"), (r"\text{None of the above}", COMBINED, "C"), ("B only", COMBINED, "D"),
    ("D. B only", COMBINED, "D"), ("1 and 2", COMBINED, "A"), ("C", COMBINED, "C"),
]
# a solution without a box, the number of choices, the letter
STATED = [
    ("ANSWER: C", 4, "C"), ("Answer: C", 4, "C"), ("answer is C", 4, "C"), ("The answer is (C).", 4, "C"),
    ("The correct answer is **C**", 4, "C"), ("**Answer:** C", 4, "C"), ("**Answer**: C", 4, "C"),
    ("**Final Answer: C**", 4, "C"), ("The final answer is: C", 4, "C"), ("Answer: C) the text", 4, "C"),
    ("answer is option C", 4, "C"), (r"Answer: \text{C}", 4, "C"), ("The answer is $C$.", 4, "C"),
    (r"The answer is \(C\)", 4, "C"), ("Answer:\nC", 4, "C"), ("The answer is [C]", 4, "C"),
    ("The answer is c", 4, "C"), ("The answer is A good one", 4, None), ("The answer is A", 4, "A"),
    ("The answer is A.", 4, "A"), ("The answer is A because", 4, "A"), ("Answer: A", 4, "A"),
    ("Answer: A) foo", 4, "A"), ("The answer is I think C", 10, None), ("The answer is I", 10, "I"),
    ("the answer is I'm not sure", 10, None), ("The answer is A, because", 4, "A"),
    ("The answer is A or B", 4, None), ("The answer is A and B", 4, None), ("The answer is B, C", 4, None),
    ("The answer is G", 4, None), ("The answer is Barium", 4, None), ("The answer is CO2", 4, None),
    ("ANSWER: B\nANSWER: C", 4, "C"), ("First, the answer is B. No: the answer is D.", 4, "D"),
    ("A good question.", 4, None), ("C", 4, "C"), ("I choose C", 4, None), ("Answer: $LETTER", 4, None),
    ("The answer is B since A is wrong", 4, "B"), ("The answer is not B", 4, None),
    ("Final answer: the letter C", 4, None),
]
# fmt: on


def letter_of(completion: str, n_choices: int, choices: tuple[str, ...] | None = None) -> str | None:
    return grade(completion, Problem("p", "?", "A", kind="choice", choices=choices or ("",) * n_choices)).letter


@pytest.mark.parametrize(("content", "n_choices", "letter"), BOXED)
def test_letter_in_a_box(content: str, n_choices: int, letter: str | None) -> None:
    assert letter_of(f"thought\n</think>\n\\boxed{{{content}}}", n_choices) == letter


@pytest.mark.parametrize(("content", "choices", "letter"), BOXED_TEXT)
def test_text_of_a_choice_in_a_box(content: str, choices: tuple[str, ...], letter: str | None) -> None:
    completion = f"thought\n</think>\n\\boxed{{{content}}}"
    assert letter_of(completion, len(choices), choices) == letter


@pytest.mark.parametrize(("solution", "n_choices", "letter"), STATED)
def test_stated_letter(solution: str, n_choices: int, letter: str | None) -> None:
    assert letter_of(f"thought\n</think>\n{solution}", n_choices) == letter


def test_the_region_and_the_last_box_decide() -> None:
    assert letter_of("ANSWER: B</think>Done.", 4) is None
    assert letter_of("\\boxed{B}</think>Done.", 4) is None
    assert letter_of("x</think>\\boxed{C} -> \\boxed{A}", 4) == "A"
    assert letter_of("x</think>ANSWER: B \\boxed{}", 4) is None
    assert letter_of("no tags, the answer is B", 4) == "B"


def test_grades_of_choices() -> None:
    problem = Problem("p", "?", "B", kind="choice", choices=("w", "x", "y", "z"))
    right = grade("a</think>\\boxed{\\text{B) x}}", problem)
    assert (right.strict, right.answer, right.letter, right.reason) == (1.0, 1.0, "B", "correct")
    stated = grade("a</think>ANSWER: B", problem)
    assert (stated.strict, stated.answer, stated.letter, stated.fallback) == (0.0, 1.0, "B", True)
    assert stated.format_error == "F4" and stated.reason == "bad_format"
    none = grade("a</think>\\boxed{A, B}", problem)
    assert (none.strict, none.answer, none.letter, none.reason) == (0.0, 0.0, None, "no_answer")
    assert grade("a</think>\\boxed{C}", problem).reason == "wrong"
    assert grade("\\boxed{B}", problem).answer == 1.0
