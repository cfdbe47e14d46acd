"""What counts as a benchmark question in the training data, and what is only a phrase of the trade."""

from __future__ import annotations

import pytest

from curiosft_cli.tools.data.contamination import Contamination, Hit, tokens

LONG = (
    "A baker in Vienna sells round loaves and long loaves at the market square every Saturday morning before nine, "
    "and the price of a long loaf is $\\dfrac{3}{2}$ of the price of a round loaf. How many loaves were sold?"
)
SHORT = "Compute $\\sqrt{49} + 2^{10}$."


def hits(benchmark: list[str], rows: list[str], **options: float) -> list[Hit]:
    found = Contamination([("b", str(at), text) for at, text in enumerate(benchmark)], **options)  # ty: ignore[invalid-argument-type]
    for number, row in enumerate(rows, start=1):
        found.add(number, row)
    return found.hits()


def test_one_spelling() -> None:
    assert tokens("$\\dfrac{1}{2}\\,x \\leq 1,000$ !") == tokens("\\[ \\frac{1}{2} x\\le 1000 !\\]")
    assert tokens("x² ≤ 3") == ["x", "^", "2", r"\le", "3"]
    assert tokens("$x+y$") != tokens("$x-y$")
    assert tokens("求x") == ["求", "x"]


@pytest.mark.parametrize(
    "text", [LONG.replace("\\dfrac", "\\frac"), LONG.upper().replace("\\DFRAC", "\\dfrac"), LONG.replace(" ", "  ")]
)
def test_another_spelling_is_the_same_question(text: str) -> None:
    assert hits([LONG], [text]) == [Hit(1, "b", "0", "same", 1.0)]


def test_short_questions_are_found_too() -> None:
    assert hits([SHORT], ["compute \\[\\sqrt{49}+2^{10}\\]"]) == [Hit(1, "b", "0", "same", 1.0)]


def test_a_near_duplicate_has_its_jaccard() -> None:
    """Nine words have 7 pieces of three; one word more at the end has 8: 7 of 8 are common."""
    words = "alpha beta gamma delta epsilon zeta eta theta iota"
    assert hits([words], [f"{words} kappa"]) == [Hit(1, "b", "0", "near", 0.875)]
    assert hits([words], [f"{words} kappa"], similarity=0.9) == []


def test_another_number_is_another_question() -> None:
    """One of 25 words differs, which leaves 20 of 26 pieces common; a word is a rewrite, a number is a new question."""
    text = "Anna has 7 apples and gives some of them to Bert who eats half of what he got and sells the other half for money today"
    assert [hit.kind for hit in hits([text], [text.replace("Anna", "Paula")], similarity=0.7, ngram=30)] == ["near"]
    assert hits([text], [text.replace("7", "8")], similarity=0.7, ngram=30) == []


def test_a_question_inside_a_post_is_found_by_its_run_of_words() -> None:
    post = f"Hello all, I found this one hard. {LONG} Any hints are welcome, thanks in advance, I need it tomorrow " * 2
    found = hits([LONG], [post])
    assert [(hit.kind, hit.overlap) for hit in found] == [("ngram", 1.0)]


def test_twelve_words_in_a_row_are_no_run_of_thirteen() -> None:
    run = [f"word{'abcdefghijklmnop'[at]}" for at in range(13)]
    other = [
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
    ]
    benchmark = " ".join([*run, *other])
    assert [hit.kind for hit in hits([benchmark], [" ".join(["said", *run, "said"])])] == ["ngram"]
    assert hits([benchmark], [" ".join(["said", *run[1:], "said"])]) == []


def test_a_list_of_numbers_is_no_run_of_words() -> None:
    numbers = " ".join(str(n) for n in range(1, 30))
    assert (
        hits([f"Add {numbers} and say the whole sum of it please"], [f"What follows after {numbers} in the row"]) == []
    )


PHRASE = "where m and n are relatively prime positive integers find the value of m plus n as an integer"


def test_a_phrase_of_several_benchmark_questions_does_not_count() -> None:
    questions = [f"The answer to riddle {word} is a fraction {PHRASE}" for word in ("ox", "cat", "horse")]
    row = f"Something else entirely happens here and gives a fraction {PHRASE}"
    assert [hit.kind for hit in hits(questions[:1], [row])] == ["ngram"]
    assert hits(questions, [row], similarity=0.99) == []


def test_a_phrase_of_many_rows_does_not_count() -> None:
    rows = [f"Problem about {word * 3}, quite another one, {PHRASE}" for word in "abcdefghijklmnopqrstuvwxyz"[:21]]
    question = [f"The riddle of the ox and of the cat {PHRASE}"]
    assert len(hits(question, rows[:20])) == 20
    assert hits(question, rows) == []


def test_benchmarks_that_share_a_question_each_have_a_hit() -> None:
    found = Contamination([("one", "1", LONG), ("two", "9", LONG)])
    found.add(5, LONG)
    assert len(found) == 1
    assert found.hits() == [Hit(5, "one", "1", "same", 1.0), Hit(5, "two", "9", "same", 1.0)]


def test_nothing_to_compare_with() -> None:
    assert hits([], [LONG]) == []
    assert hits([LONG], ["", "$$", "?"]) == []
