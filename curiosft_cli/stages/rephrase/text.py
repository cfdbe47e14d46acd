"""What a text holds, in one spelling: its formulas, numbers, mathematical terms, words and script."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from difflib import SequenceMatcher
from functools import lru_cache

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

# Bounded, so that a delimiter that is never closed costs little.
MATH = re.compile(
    r"\$\$(.{1,2000}?)\$\$|(?<!\\)\$((?:\\.|[^$\\]){1,2000})\$|\\\[(.{1,2000}?)\\\]|\\\((.{1,2000}?)\\\)", re.DOTALL
)
_THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|,)(?:\\!)?(?=\d{3}(?!\d))")
_COMMAND = re.compile(r"\\[A-Za-z]+")
# A minus that is a number's own: after a bracket, comma, sign of relation or word, not after a variable or a number.
MINUS = "\u2212"
_SIGNED = re.compile(r"([(\[{,;:=<>]\s*|[^\W\d_]{2}\s+)-(?=\d)")
_TOKEN = re.compile(rf"{MINUS}?\d+(?:\.\d+)?|[^\W\d_]+", re.UNICODE)
_WRAPPED = re.compile(r"\\(?:text|mathrm|mbox|[,;:! ])|[{}$~]")
_MEASURE = re.compile(r"(\d)\s?((?:[kcmdµ]?m|[km]?g|[mcd]?[lL]|ft|mi|yd|lb|oz|mph|min|hr?|m?s|k?[NWJ])(?![^\W_]))")
_PART = re.compile(r"(?<!\w)\(?(?:[a-hA-H]|[ivxIVX]{1,4})\)")
_WORD = re.compile(r"\\(?:text\w*|mathrm|mbox|operatorname|begin|end)\s*\{[^{}]*\}")
_LETTERS = re.compile(r"(?<![^\W\d])(?<!['’.])(?:[B-HJ-Zb-z]|(?![AI](?!\w))[A-Z]{2,4})(?![^\W_]|['’]|\.[a-z])")
_POINTS = re.compile(r"(?<![A-Za-z\\])[A-Z]{1,5}(?![A-Za-z])")
_SYMBOL = re.compile(r"\\[A-Za-z]+|[A-Za-z]")
_CJK = re.compile(r"(?<=[\u3040-\u30ff\u3400-\u9fff])|(?=[\u3040-\u30ff\u3400-\u9fff])")
_LETTER_RUN = re.compile(r"[^\W\d_]+")
_IN_FORMULA = re.compile(r"[=<>^+*/_\\]")
_OPERATOR = re.compile(r"[=<>^+*/\\]")
_OPERAND = re.compile(r"-?\d[\d.,]*|[a-zA-Z]|-")
_NAMED = frozenset(NUMBER_WORDS.values())
_SCRIPTS = {
    "latin": "A-Za-z\u00c0-\u024f",
    "cyrillic": "\u0400-\u04ff",
    "cjk": "\u3040-\u30ff\u3400-\u9fff",
    "hangul": "\uac00-\ud7a3",
    "arabic": "\u0600-\u06ff",
    "hebrew": "\u0590-\u05ff",
    "devanagari": "\u0900-\u097f",
    "thai": "\u0e00-\u0e7f",
}
_FLAT = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\begin\{[a-z]+\*?\}|\\end\{[a-z]+\*?\}|\\\[|\\\]|\\\(|\\\)|\\\\|\$|&", ""),
        (r"\\(?:(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits|quad|qquad)(?![A-Za-z])|[,;:! ])", ""),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\(?:text|mathrm|textbf|mathbf|operatorname)\s*\{([^{}]*)\}", r"\1"),
        (r"\\(le|ge|ne)q(?![A-Za-z])", r"\\\1"),
        (r"\\[lc]?dots(?![A-Za-z])|…|\.{2,}", "..."),
        (_THOUSANDS.pattern, ""),
        (r"[*_]{2}", ""),
        (r"\s+", ""),
        (r"\{([^{}\\]|\\[A-Za-z]+)\}", r"\1"),
    )
]
_SIGNS = str.maketrans({
    "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "×": r"\times ", "·": r"\cdot ", "−": "-", "–": "-",
    "π": r"\pi ", "∞": r"\infty ",
    "°": r"^\circ ", "²": "^2", "³": "^3", "√": r"\sqrt ", "∈": r"\in ", "’": "'", "‘": "'",
})  # fmt: skip


@lru_cache(maxsize=512)
def formulas(text: str) -> tuple[str, ...]:
    """The delimited formulas of a text and its undelimited runs around an operator, in one spelling."""
    found = [next(filter(None, match.groups())) for match in MATH.finditer(text)]
    run: list[str] = []
    for word in [*without_formulas(text).split(), ""]:
        bare = word.strip(".,;:!?()\"'")
        if bare and (_IN_FORMULA.search(word) or _OPERAND.fullmatch(bare)):
            run.append(word)
            continue
        if run and _OPERATOR.search(" ".join(run)):
            found.append(" ".join(run))
        run = []
    return tuple(flat for formula in found if (flat := squeezed(formula).strip(".,;:!?。，").rstrip("=")))


@lru_cache(maxsize=512)
def squeezed(text: str) -> str:
    """A text without white space and delimiters, its formulas in one spelling."""
    text = unicodedata.normalize("NFKC", text.translate(_SIGNS))
    for pattern, replacement in _FLAT:
        text = pattern.sub(replacement, text)
    return text


def _words(text: str) -> list[str]:
    """Lower-case words and numbers, number words as digits, ideographs one by one."""
    text = unicodedata.normalize("NFKC", text.translate(_SIGNS)).replace("$", " ")
    text = _SIGNED.sub(rf"\1{MINUS}", _COMMAND.sub(" ", _THOUSANDS.sub("", text)))
    words = [piece for word in _TOKEN.findall(text) for piece in _CJK.split(word) if piece]
    return [NUMBER_WORDS.get(word.lower(), word.lower()) for word in words]


@lru_cache(maxsize=64)
def quantities(text: str) -> list[str]:
    """Numbers and mathematical terms in the order of the text, terms in the singular."""
    found: list[str] = []
    for word in _words(text):
        stems = (word, word.removesuffix("s"), word.removesuffix("es"))
        found += [word] if is_number(word) else [stem for stem in stems if stem in TERMS][:1]
    return found


def measures(text: str) -> Counter[str]:
    """The numbers with the symbol of a unit right behind them."""
    return Counter(f"{number} {unit}" for number, unit in _MEASURE.findall(_WRAPPED.sub("", text)))


def is_number(word: str) -> bool:
    """Whether a word is a number."""
    return word[-1].isdigit() or word in _NAMED


def only_numbers(words: list[str]) -> Counter[str]:
    """The numbers among some words."""
    return Counter(word for word in words if is_number(word))


@lru_cache(maxsize=512)
def without_formulas(text: str) -> str:
    """The prose of a text."""
    return MATH.sub(" , ", text)


def long_words(text: str) -> list[str]:
    """The words of the prose that have more than two letters."""
    return [word for word in _LETTER_RUN.findall(without_formulas(text).lower()) if len(word) > 2]


def all_words(text: str, *, keep_case: bool = False) -> list[str]:
    """The words of the prose, in lower case unless told otherwise."""
    prose = without_formulas(text)
    return _LETTER_RUN.findall(prose if keep_case else prose.lower())


def names(text: str) -> list[str]:
    """Words of three letters or more that are capitalised inside a sentence, such as people and weekdays."""
    return re.findall(r"(?<=[a-z\d,;] )[A-Z][a-z]{2,}(?![^\W\d_])", without_formulas(text))


def letters(text: str) -> list[str]:
    """Variables, points and other names of one letter, in the order of the text; `a` and `I` only inside formulas."""
    found: list[str] = []
    place = 0
    for match in [*MATH.finditer(text), None]:
        prose = text[place : match.start() if match else len(text)]
        found += [letter for run in _LETTERS.findall(_PART.sub(" ", prose)) for letter in run]
        if match:
            place = match.end()
            found += [letter for letter in _SYMBOL.findall(_WORD.sub("", match[0])) if letter[0] != "\\"]
    return found


def points(text: str) -> set[str]:
    """Segments, angles and figures that are named by points which other names of the text hold too."""
    runs = set(_POINTS.findall(text))
    counts = Counter(letter for run in runs for letter in set(run))
    return {run for run in runs if len(run) > 1 and all(counts[letter] > 1 for letter in run)}


def content_words(sentence: str) -> set[str]:
    """Its long words without those that any question may have."""
    return set(long_words(sentence)) - FREE_WORDS


def carries(sentence: str) -> bool:
    """Whether a sentence has a number, a formula or a term that is not also an everyday word."""
    return bool(formulas(sentence)) or any(is_number(word) or word not in COMMON_TERMS for word in quantities(sentence))


def script(text: str) -> str:
    """The script that most letters outside formulas belong to."""
    prose = without_formulas(text)
    if prose.isascii():
        return "latin" if _LETTER_RUN.search(prose) else "none"
    counts = {script: len(re.findall(f"[{letters}]", prose)) for script, letters in _SCRIPTS.items()}
    most = max(counts, key=lambda script: counts[script])
    return most if counts[most] else "none"


def same_word(word: str, other: str, similar: float = 0.8) -> bool:
    """Two forms of one word, or one of them misspelt: opposites mostly differ in their first letters."""
    if _stem(word) == _stem(other):
        return True
    ends_alike = (word[0], word[-1]) == (other[0], other[-1])
    return ends_alike and SequenceMatcher(None, word, other, autojunk=False).ratio() >= similar


def _stem(word: str) -> str:
    return re.sub(r"(?:ing|ed|es|s|d|e)$", "", word)
