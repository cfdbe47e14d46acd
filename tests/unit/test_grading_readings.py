"""The spelling and the readings that decide most answers without algebra."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curiosft_cli.grading.normalise import normalise
from curiosft_cli.grading.parse import (
    alternatives,
    collection,
    in_order,
    named_values,
    numeral,
    order_of_name,
    plain_number,
    split_outside_brackets,
    words,
)
from curiosft_cli.grading.units import _registry, strip_units

SPELLINGS = [
    ("\uff11\uff12", "12"),
    ("\u200b5\u200d", "5"),
    ("5\x00", "5"),
    ("\u22125", "-5"),
    ("x²", "x^{2}"),
    ("10⁻⁸", "10^{-8}"),
    ("1101₂", "1101_{2}"),
    ("2√13", r"2\sqrt{13}"),
    ("½", r"\frac{1}{2}"),
    ("3½", r"\frac{7}{2}"),
    ("3 1/2", r"\frac{7}{2}"),
    (r"3\dfrac{1}{2}", r"\frac{7}{2}"),
    (r"\frac12", r"\frac{1}{2}"),
    (r"0.1\overline{6}", r"\frac{15}{90}"),
    (r"\$18.90", r"18.90 \text{ dollars}"),
    (r"$69$,$84$", "69,84"),
    ("7,200", "7200"),
    ("1,234,567.5", "1234567.5"),
    (r"7\,200", "7200"),
    ("7{,}200", "7200"),
    (r"11,\! 111,\! 100", "11111100"),
    ("27,54,108", "27,54,108"),
    ("1,23", "1,23"),
    ("2, 300", "2, 300"),
    ("1.2e-5", r"1.2 \times 10^{-5}"),
    ("6.3E+07", r"6.3 \times 10^{7}"),
    ("2e", "2e"),
    ("x1e5", "x1e5"),
    ("4.5 x 10^33", r"4.5 \times 10^{33}"),
    (r"5 \text{ million}", r"5 \times 10^{6}"),
    ("38.", "38"),
    (r" \, 38 \quad", "38"),
    ("3...", "3..."),
    (r"\text{Answer: } 5", "5"),
    ("np.arcsin(10/13)", r"\arcsin (10/13)"),
    ("62.5%", r"62.5\%"),
]


@pytest.mark.parametrize(("text", "spelling"), SPELLINGS)
def test_spelling(text: str, spelling: str) -> None:
    assert normalise(text) == spelling


def test_commas_stay_where_they_are_asked_to() -> None:
    assert normalise("(312,123,231)", thousands=False) == "(312,123,231)"


@given(st.text(alphabet=st.sampled_from("0123456789.,eE+-\\{}$%x ^_/"), max_size=30))
def test_spelling_is_stable_up_to_edges(text: str) -> None:
    """A spelling can be spelled again without an error, and nothing invisible is left."""
    assert normalise(normalise(text)).isprintable()


@given(st.fractions(max_denominator=10**6).filter(lambda f: f.denominator > 1))
def test_fractions_are_read_exactly(value: Fraction) -> None:
    assert plain_number(rf"\frac{{{value.numerator}}}{{{value.denominator}}}") == (value, True, "")
    assert plain_number(f"{value.numerator}/{value.denominator}") == (value, True, "")


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**6), max_value=10**6))
def test_decimals_are_read_exactly(value: object) -> None:
    assert plain_number(str(value)) == (Fraction(str(value)), False, "")


NUMBERS = [
    (r"1.5 \times 10^{3}", Fraction(1500)),
    (r"10^{-2}", Fraction(1, 100)),
    (r"+7", Fraction(7)),
    (r"7\%", Fraction(7)),
    (r"-\frac{1}{2}", Fraction(-1, 2)),
    (".5", Fraction(1, 2)),
]


@pytest.mark.parametrize(("text", "value"), NUMBERS)
def test_number_forms(text: str, value: Fraction) -> None:
    number = plain_number(text)
    assert number is not None and number[0] == value


@pytest.mark.parametrize(
    "text", ["", "x", "1/0", r"\frac{1}{0}", "5x", "1+1", "--1", "1e5", "2^3", "5!", "1,2", r"\pi^2"]
)
def test_other_things_are_no_numbers(text: str) -> None:
    assert plain_number(text) is None


@given(st.integers(1, 500), st.integers(1, 500), st.integers(1, 50), st.sampled_from(["", "-"]))
def test_multiples_have_the_value_they_show(a: int, b: int, c: int, sign: str) -> None:
    root = plain_number(rf"{sign}\frac{{{a}\sqrt{{{b}}}}}{{{c}}}")
    assert root == plain_number(rf"{sign}\frac{{{a}}}{{{c}}}\sqrt{{{b}}}")
    assert root is not None and root.exact
    assert root.kind == ("" if math.isqrt(b) ** 2 == b else "root")
    size = math.sqrt(abs(root.value)) if root.kind else abs(root.value)
    assert float(size) == pytest.approx(a * math.sqrt(b) / c)
    assert (root.value < 0) == (sign == "-")
    assert plain_number(rf"{sign}{a}\pi") == (Fraction(int(f"{sign}{a}")), True, "pi")


@pytest.mark.parametrize("text", ["", "-", "x", r"\sqrt{2}+1", r"\pi^{2}", r"\sqrt{x}", r"\frac{1}{0}", r"\frac{}{2}"])
def test_other_things_are_no_multiples(text: str) -> None:
    assert plain_number(text) is None


def test_collections() -> None:
    assert collection("(1,-2)") == ("(", ["1", "-2"])
    assert collection(r"\{1,2, (3,4)\}") == ("{", ["1", "2", "(3,4)"])
    assert collection(r"1,x \text{ and } 0.5") == ("", ["1", "x", "0.5"])
    assert collection("(1,2),(3,4)") == ("", ["(1,2)", "(3,4)"])
    assert collection("1") is collection("[1,2)") is collection(r"(1,2)\cup(3,4)") is None


def test_values_are_split_outside_brackets() -> None:
    assert split_outside_brackets(r"(1,2),\{3,4\},5\,6") == ["(1,2)", r"\{3,4\}", r"5\,6"]


def test_words() -> None:
    assert words(r"\text{The Ellipse}") == words("ellipse") == "ellipse"
    assert words("x") is None and words("2 cats") is None and words(r"\alpha") is None


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        ("1101_2", ("1101", 2)),
        ("(1101)_{2}", ("1101", 2)),
        (r"1101_{\text{two}}", ("1101", 2)),
        (r"1101 \text{ (base 2)}", ("1101", 2)),
        (r"\text{BC}_{16}", ("BC", 16)),
        ("x_1", ("X_1", None)),
        ("x_{12}", ("X_{12}", None)),
        ("1101", ("1101", None)),
        ("1101_x", ("1101_X", None)),
    ],
)
def test_numeral_with_base(text: str, reading: tuple[str, int | None]) -> None:
    assert numeral(text) == reading


def test_values_are_read_by_name() -> None:
    assert named_values("y=3, x=2") == named_values("(x,y)=(2,3)") == [{"x": "2", "y": "3"}]
    assert named_values(r"3 \text{ apples}, 4 \text{ pears}") == [{"apple": "3", "pear": "4"}]
    assert named_values("p=5,q=2;p=7,q=2") == [{"p": "5", "q": "2"}, {"p": "7", "q": "2"}]
    assert named_values("x=1, 2") == named_values("2x=1") == named_values("3 apples") == []
    assert sorted(["x_{10}", "x_2"], key=order_of_name) == ["x_2", "x_{10}"]
    assert in_order({"q": "1", "p": "2"}, ("p", "q"), False) == "(2,1)"
    assert in_order({"x_1": "1", "x_2": "2"}, ("x_2", "x_1"), False) == "2,1"


def test_one_name_is_split_from_its_values() -> None:
    assert named_values(r"x=1 \text{ or } x=2") == [{"x": "1"}, {"x": "2"}]
    assert named_values("x=1") == [{"x": "1"}] and named_values("x=5+5=10") == [{"x": "5+5=10"}]


def test_conditions_are_split_into_alternatives() -> None:
    assert alternatives("-2 < x < 2") == ["-2 < x < 2"]
    assert alternatives(r"x<1 \text{ or } x \ge 3") == ["x<1 ", r" x \ge 3"]
    assert alternatives(r"\{x : x<1 \land x \ne \pm 2\}") == [r" x<1 , x \ne + 2, x<1 , x \ne - 2"]
    assert alternatives("x") == alternatives("x=1") == alternatives("x<" * 30) == []


@pytest.mark.parametrize(
    ("text", "core", "unit"),
    [
        (r"5 \text{ cm}", "5", "cm"),
        (r"5\,\mathrm{cm}^2", "5", "cm**2"),
        (r"5 \text{ m/s}", "5", "m/s"),
        (r"5 \text{ miles per hour}", "5", "mile/hour"),
        ("5 mph", "5", "mph"),
        ("5 dollars", "5", "dollar"),
        (r"5 \text{ apples}", "5", ""),
        (r"5 \text{ cm}, 6 \text{ cm}", "5, 6", "cm"),
        (r"5 + \text{cm}", r"5 + \text{cm}", ""),
        (r"2\text{i}", r"2\text{i}", ""),
        ("6m", "6m", ""),
        (r"5\text{ or six}", r"5\text{ or six}", ""),
    ],
)
def test_units_come_off_the_end(text: str, core: str, unit: str) -> None:
    assert strip_units(text) == (core, {_registry().parse_units(unit)} if unit else set())


def test_a_bare_letter_is_a_unit_only_where_it_is_asked_for() -> None:
    assert strip_units("6m", letters=True) == ("6", {_registry().parse_units("m")})
