"""The words that the checks on rewritten questions know."""

from __future__ import annotations

# To digits. Without one, first and second, which are mostly other things than numbers.
NUMBER_WORDS = {
    "zero": "0", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8",
    "nine": "9", "ten": "10", "eleven": "11", "twelve": "12",
    "thirteen": "13", "fourteen": "14", "fifteen": "15", "sixteen": "16",
    "seventeen": "17", "eighteen": "18", "nineteen": "19", "twenty": "20",
    "third": "3", "fourth": "4", "fifth": "5", "sixth": "6", "seventh": "7", "eighth": "8", "ninth": "9", "tenth": "10",
    "thirds": "3", "fourths": "4", "fifths": "5", "thirty": "30", "forty": "40", "fifty": "50", "sixty": "60",
    "seventy": "70", "eighty": "80", "ninety": "90", "hundred": "100", "thousand": "1000", "million": "1000000",
    "dozen": "12", "half": "half", "twice": "twice", "thrice": "3",
    "double": "twice", "triple": "3", "quarter": "quarter",
}  # fmt: skip
TERMS = frozenset(
    """
    positive negative nonnegative nonzero integer natural real rational irrational complex even odd prime composite
    distinct different consecutive increasing decreasing maximum minimum maximal minimal largest smallest greatest least
    most highest lowest sum product difference quotient remainder divisor multiple factor area perimeter volume surface
    radius diameter circumference length width height depth angle side edge diagonal median altitude bisector midpoint
    probability expected average mean variance ratio percent percentage distance speed rate time sine cosine tangent
    square rectangle triangle circle cube sphere cone cylinder polygon pentagon hexagon parallelogram trapezoid rhombus
    isosceles equilateral right acute obtuse parallel perpendicular inscribed circumscribed interior exterior inside
    outside convex regular divisible equal unequal not exactly more less fewer each every only inclusive exclusive
    remaining left total altogether together root solution digit permutation combination arrangement subset element
    finite infinite continuous differentiable linear quadratic cubic polynomial function sequence series arithmetic
    geometric derivative integral limit matrix determinant vector without replacement independent random uniform biased
    fair meter metre kilometer km cm mm inch foot feet mile hour minute second day week month year dollar cent kg gram
    liter litre degree radian older younger taller shorter before after above below clockwise unique simultaneously
    never always least add subtract multiply divide gain lose give take spend earn buy sell smaller larger bigger
    youngest oldest major minor upper lower same refuse except unless cannot opposite neither both arc chord
    tangent secant center centre up down upward downward north south east west heads tails
    """.split()  # noqa: SIM905
)
FREE_WORDS = frozenset(
    """
    the and are for that this when where with then there which what how many much find let such have has was were been
    its his her their from into each can you who does did given following value values determine compute calculate
    evaluate all one any will would should they them these those than not but per out now
    """.split()  # noqa: SIM905
)
# Terms that also fill a sentence that is no mathematics.
COMMON_TERMS = frozenset(
    """
    time hour minute second day week month year dollar cent foot feet speed rate average mean mode right left not
    exactly more less fewer each every only total altogether together different before after above below outside inside
    never always least most natural real complex odd even fair lose gain give take spend earn buy sell same both neither
    except unless cannot opposite older younger smaller larger bigger major minor lower upper oldest youngest root
    series function product factor solution unique up down
    """.split()  # noqa: SIM905
)
