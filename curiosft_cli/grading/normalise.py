"""One spelling for an answer: Unicode, LaTeX and number notation, without changing what it says."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

# NFKC would flatten many of these into the text (x² into x2, 3½ into 31/2), so they are spelled out before it.
_PLAIN_SIGNS = {"−": "-", "–": "-", "—": "-", "﹣": "-", "÷": "/", "∶": ":", "、": ",", "。": ".", "′": "'", "’": "'"}
_PLAIN_SIGNS |= {"\u00c5": r"\text{angstrom}", "\u212b": r"\text{angstrom}"}
_COMMANDS = """
    × times · cdot ⋅ cdot ± pm ∓ mp √ sqrt ∞ infty ≠ ne ≤ le ≥ ge ⩽ le ⩾ ge ≈ approx ≡ equiv ∪ cup ∩ cap ∈ in
    ∅ emptyset ⇒ Rightarrow → to … ldots ⌊ lfloor ⌋ rfloor ⌈ lceil ⌉ rceil ° degree º degree
    α alpha β beta γ gamma δ delta ε epsilon θ theta λ lambda μ mu π pi ρ rho σ sigma τ tau φ phi ω omega
    ℝ mathbb{R} ℤ mathbb{Z} ℕ mathbb{N} ℚ mathbb{Q} ℂ mathbb{C}
"""
_SIGNS = _PLAIN_SIGNS | {sign: rf"\{name} " for sign, name in re.findall(r"(\S+) (\S+)", _COMMANDS)}
_FRACTIONS = {c: unicodedata.normalize("NFKC", c).partition("\u2044") for c in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"}
_SIGN_TABLE = str.maketrans(_SIGNS | {c: rf"\frac{{{top}}}{{{low}}}" for c, (top, _, low) in _FRACTIONS.items()})
_INVISIBLE = {"Cf", "Cs", "Co", "Cn"}
_SUPERSCRIPT = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱ]+")
_SUBSCRIPT = re.compile(r"[₀₁₂₃₄₅₆₇₈₉]+")
_ROOT = re.compile(r"√\s*(?:\(([^()]*)\)|(\d+|[A-Za-z]))")

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_MATHS_WRAP = re.compile(r"\s*(?:\\\((.*)\\\)|\\\[(.*)\\\])\s*", re.DOTALL)
_GROUPED = re.compile(r"(?<=\d)(?:\\,|\s*\{,\}\s*)(?=\d{3}(?!\d))")
_COMMA_RUN = re.compile(r"(?<![\d.])\d+(?:,\d+)+(?!\d)")
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+")
_E_NOTATION = re.compile(r"(?<![\w.\\^])([+-]?(?:\d+(?:\.\d*)?|\.\d+))[eE]([+-]?\d{1,4})(?![\w.]*\w)")
_REPEATING = re.compile(r"(?<!\d)(\d*)\.(\d*)\\(?:overline|bar|dot)\s*\{?(\d+)\}?")
FONT = r"\\(?:text(?:bf|it|rm|sf|tt|normal|sc)?|math(?:bf|it|rm|sf|tt|normal)|mbox|hbox|operatorname|boldsymbol)\*?"
"""A command that changes only how its argument is printed."""
_MIXED = re.compile(r"(?<![\w.})])(\d+)\s*(?:\\frac\{(\d+)\}\{(\d+)\}|(?<=\s)(\d+)\s*/\s*(\d+)(?![\d.]))")
_SCALE_WORDS = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SCALE = re.compile(
    rf"(?<=[\d}}])(?:\s|~|\\[,; ])*(?:\\(?:text|mathrm|mbox)\s*\{{\s*)?\b({'|'.join(_SCALE_WORDS)})\b(\s*\}})?"
)
_STYLE = re.compile(
    r"\\(?:(?:mathbf|boldsymbol|bm|pmb|underline|textcolor\{\w+\})\s*\{([^{}]*)\}"
    r"|(?:text(?:bf|tt|it|rm)?|mathrm)\s*\{\s*([-+\d.,:/%\s]+)\s*\})"
)
_WHOLE_TEXT = re.compile(r"\s*\\text(?:bf|rm|it)?\s*\{\s*([-+$.\d][^{}]*)\}\s*")
_TRIGONOMETRIC = r"(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?"
_TAKES_DEGREES = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_DEGREES = re.compile(r"(\d+(?:\.\d+)?)\s*\^\s*(?:\\circ(?![A-Za-z])|\{\s*\\circ\s*\})")
_ESCAPED_TWICE = re.compile(r"(?:[^\\]|\\\\)*\\\\[A-Za-z]{2}(?:[^\\]|\\\\)*", re.DOTALL)


def _listed_rows(system: re.Match[str]) -> str:
    """Write a system of equations as a list; a function in cases stays as it is."""
    rows = [row.replace("&", "") for row in system[2].split(r"\\") if row.strip()]
    return ",".join(rows) if all("=" in row for row in rows) else system[0]


# In order: what a pattern leaves is what the next one reads.
_SPELLINGS = [
    (re.compile(r"\\?\$|\\!\s*|\\(?:text|display)style(?![A-Za-z])|\\color\{\w+\}|^\s*\*\*|\*\*\s*$"), ""),
    (re.compile(r"[€£¥₹₩]|\\(?:euro|pounds|yen)(?![A-Za-z])"), ""),
    (re.compile(r"~"), " "),
    (re.compile(r"\\(?:left|right)\."), ""),
    (re.compile(r"(?:\\left\s*)?\\langle(?![A-Za-z])"), "("),
    (re.compile(r"(?:\\right\s*)?\\rangle(?![A-Za-z])"), ")"),
    (re.compile(r"\\lg(?![A-Za-z])"), r"\\log_{10} "),
    (re.compile(r"\\log_\{?e(?![A-Za-z])\}?"), r"\\ln "),
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\frac\s*(\{[^{}]*\}|\d)\s*(\{[^{}]*\}|\d)"), lambda m: rf"\frac{_braced(m[1])}{_braced(m[2])}"),
    (re.compile(r"(?<=\d)\s*\\(?:mathrm|text)\{\s*[eE]\s*\}\s*\{?([+-]?\d+)\}?"), r"e\1"),
    (re.compile(r"\\mathrm\s*\{\s*([ei])\s*\}"), r" \1"),
    (re.compile(rf"(^|[-+=(])\s*{FONT}\s*\{{\s*([A-Za-z])\s*\}}"), r"\1 \2"),
    (re.compile(r"\\sqrt\s*(\d+)"), r"\\sqrt{\1}"),
    (re.compile(r"\\?(?<![A-Za-z])sqrt\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"(?<![A-Za-z\\])(?:np|numpy|math)\.([a-z]+)"), r"\\\1 "),
    (re.compile(r"(?<![A-Za-z\\])(?:infinity|inf|oo)(?![A-Za-z])"), r"\\infty "),
    (re.compile(r"(?<=[)\]])\s*U\s*(?=[(\[])"), r"\\cup "),
    (re.compile(r"(?<![A-Za-z\\])abs\s*\(([^()]*)\)"), r"|\1|"),
    (re.compile(r"(?<![A-Za-z\\])a(?=(?:sin|cos|tan)\()"), "arc"),
    (re.compile(rf"(?<![A-Za-z\\])(pi|{_TRIGONOMETRIC}|ln|log|exp)(?=[\s(/*+\-)}}\d]|$)"), r"\\\1 "),
    (re.compile(r"\{([^{}]*)\\choose(?![A-Za-z])([^{}]*)\}"), r"\\binom{\1}{\2}"),
    (re.compile(r"\{([^{}]*)\\over(?![A-Za-z])([^{}]*)\}"), r"\\frac{\1}{\2}"),
    (re.compile(r":=|\\coloneqq(?![A-Za-z])"), "="),
    (re.compile(r"\\neq(?![A-Za-z])|!="), r"\\ne "),
    (re.compile(r"\\lt(?![A-Za-z])"), "<"),
    (re.compile(r"\\gt(?![A-Za-z])"), ">"),
    (re.compile(r"<=|\\leqq(?![A-Za-z])"), r"\\le "),
    (re.compile(r">=|\\geqq(?![A-Za-z])"), r"\\ge "),
    (re.compile(r"\\geq?(?:slant)?(?![A-Za-z])"), r"\\ge "),
    (re.compile(r"\\leq?(?:slant)?(?![A-Za-z])"), r"\\le "),
    (re.compile(r"\\varnothing(?![A-Za-z])|^\s*(?:\\text\{)?\s*[Nn]o\s+solution\s*\}?\s*$"), r"\\emptyset "),
    (re.compile(r"\\var(?=epsilon|phi|theta|rho|sigma)"), r"\\"),
    (re.compile(r"\\begin\{(cases|aligned)\}(.*)\\end\{\1\}", re.DOTALL), _listed_rows),
    (re.compile(r"\{([-+:=/])\}"), r"\1"),
    (re.compile(r"(?<![A-Za-z\\])([AaPp])\.\s?[Mm]\.?(?![A-Za-z])"), r"\1m"),
    (re.compile(r"(?<=\d)(?:(?<=:\d\d)\s*|\s+)([AaPp][Mm])$"), r"\\text{ \1}"),
    (re.compile(r"\^?\{?\\degree(?![A-Za-z])\}?"), r"^\\circ "),
    (re.compile(r"(?<!\\)%"), r"\\%"),
    (re.compile(r"(?<!\^)'"), r"^{\\prime}"),
    (re.compile(r"(?<=\d)\s*(?:[xX*]|\\ast|\\cdot|\\times)\s*10\s*\^"), r" \\times 10^"),
    (re.compile(r"(?<=\d)\.(?=[/*+)}\s-])"), ""),
    (re.compile(r"(?<![\w.}^/])(\d+)/(\d+)\s+(?=[A-Za-z\\(])"), r"\\frac{\1}{\2} "),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"(?<=\d)\^\s*(\d)\s+(?=\d)"), r"^{\1} \\cdot "),
    (re.compile(r"\^\s*([+-]\s?\d+|\d\d+|e(?![A-Za-z]))"), r"^{\1}"),
]  # fmt: skip
_SPLIT_DIGITS = re.compile(r"(?<=\d)\s+(?=\d)")
_MARK = re.compile(r"\\.|[()\[\]{},=]", re.DOTALL)
_LABEL = re.compile(
    r"^(?:\\text(?:bf|rm|it)?\s*\{)?\s*(?:(?:the\s+)?(?:(?:final|correct)\s+)?(?:answer|ans|result|value|solution)\b"
    r"\s*(?:is\b\s*:?|[:=])|(?:[a-z]+[\s}]+(?:\\text\s*\{\s*)?){2,9}is(?=\s*\}?\s*[-+$\d]))\s*(?:\}\s*:?)?",
    re.IGNORECASE,
)
_EDGE = r"(?:\s|\\[,;: ]|\\q?quad(?![A-Za-z]))"
_LEADING = re.compile(rf"^(?:{_EDGE}|=|:|\\approx(?![A-Za-z]))+")
_TRAILING = re.compile(rf"(?:{_EDGE}|[,;:]|\\\\|\\(?=\s*$))+$")
_FULL_STOP = re.compile(r"(?<!\.)\.$")
_WIDE_SPACE = re.compile(r"\\q?quad(?![A-Za-z])")
_UNSEEN = re.compile(r"\\[,;: ]|\\(?:left|right)(?![A-Za-z])|\s+")


@lru_cache(maxsize=8192)
def normalise(text: str, *, thousands: bool = True) -> str:
    """Bring an answer or a gold into the one spelling that is compared.

    NFKC with mathematical signs spelled as LaTeX, no control or zero-width characters, no dollars, no thousands
    separators (unless `thousands` is False: then a comma is always a comma), `1.2e-5` as `1.2 \\times 10^{-5}`,
    mixed numbers and repeating decimals as fractions, no space or full stop at the edges.
    """
    text = _CONTROL.sub("", text if text.isascii() else _latex_signs(text)).replace("\n", " ").replace("\t", " ")
    text = text.replace(r"\\", "\\") if _ESCAPED_TWICE.fullmatch(text) else text
    for _ in range(2):
        text = _STYLE.sub(lambda m: m[1] or m[2] or "", text)
    text = _WHOLE_TEXT.sub(r"\1", text) if _WHOLE_TEXT.fullmatch(text) else text
    if wrapped := _MATHS_WRAP.fullmatch(text):
        text = wrapped[1] or wrapped[2] or ""
    text = _LABEL.sub("", text)
    for pattern, spelling in _SPELLINGS:
        text = pattern.sub(spelling, text)
    if _TAKES_DEGREES.search(text):
        text = _DEGREES.sub(r"(\\frac{\1\\pi}{180})", text)  # nothing behind it knows of degrees
    text = _GROUPED.sub("", text)
    if thousands:
        text = _COMMA_RUN.sub(lambda m: m[0].replace(",", "") if _THOUSANDS.fullmatch(m[0]) else m[0], text)
    text = _SCALE.sub(_scaled, _E_NOTATION.sub(lambda m: rf"{m[1]} \times 10^{{{int(m[2])}}}", text))
    if text.endswith("}") and [depth for _, depth in marks(text)][-1] < 0:
        text = text[:-1]
    text = _MIXED.sub(_improper, _REPEATING.sub(_fraction, text))
    text = _SPLIT_DIGITS.sub("", text)
    text = _FULL_STOP.sub("", _TRAILING.sub("", _LEADING.sub("", text)))
    return _WIDE_SPACE.sub(",", _TRAILING.sub("", text))


def squeeze(text: str) -> str:
    """Remove what is not seen in print: white space, \\left and \\right, braces around the whole."""
    text = _UNSEEN.sub("", text)
    while text.startswith("{") and next((mark.end() for mark, depth in marks(text) if depth == 0), 0) == len(text):
        text = text[1:-1]
    return text


def marks(text: str) -> Iterator[tuple[re.Match[str], int]]:
    """Yield each bracket, comma and equals sign of a text, and how many brackets are open behind it."""
    depth = 0
    for mark in _MARK.finditer(text):
        depth += (mark[0][-1] in "([{") - (mark[0][-1] in ")]}")
        yield mark, depth


def _latex_signs(text: str) -> str:
    text = _SUPERSCRIPT.sub(lambda m: "^{" + unicodedata.normalize("NFKC", m[0]).replace("−", "-") + "}", text)
    text = _SUBSCRIPT.sub(lambda m: "_{" + unicodedata.normalize("NFKC", m[0]) + "}", text)
    text = _ROOT.sub(lambda m: rf"\sqrt{{{m[1] or m[2]}}}", text)
    text = unicodedata.normalize("NFKC", text.translate(_SIGN_TABLE)).translate(_SIGN_TABLE)
    return "".join(c for c in text if unicodedata.category(c) not in _INVISIBLE)


def _braced(argument: str) -> str:
    return argument if argument.startswith("{") else f"{{{argument}}}"


def _scaled(word: re.Match[str]) -> str:
    power = rf" \times 10^{{{_SCALE_WORDS[word[1]]}}}"
    return power if word[2] or "{" not in word[0] else power + r"\text{"


def _fraction(number: re.Match[str]) -> str:
    """0.1\\overline{6} is (16 - 1) / 90."""
    whole, fixed, period = number.groups()
    low = (10 ** len(period) - 1) * 10 ** len(fixed)
    return rf"\frac{{{int(whole + fixed + period) - int((whole + fixed) or 0)}}}{{{low}}}"


def _improper(number: re.Match[str]) -> str:
    whole, top, low = int(number[1]), int(number[2] or number[4]), int(number[3] or number[5])
    return rf"\frac{{{whole * low + top}}}{{{low}}}" if top < low else number[0]
