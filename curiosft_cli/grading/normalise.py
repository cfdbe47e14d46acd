"""One spelling for an answer: Unicode, LaTeX and number notation, without changing what it says."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

_COMMANDS = """
    × times · cdot ⋅ cdot ± pm ∓ mp √ sqrt ∞ infty ≠ ne ≤ le ≥ ge ⩽ le ⩾ ge ≈ approx ≡ equiv ∪ cup ∩ cap ∈ in
    ∅ emptyset ⇒ Rightarrow → to … ldots ⌊ lfloor ⌋ rfloor ⌈ lceil ⌉ rceil ° degree º degree ℏ hbar
    ℝ mathbb{R} ℤ mathbb{Z} ℕ mathbb{N} ℚ mathbb{Q} ℂ mathbb{C} α alpha β beta γ gamma δ delta ε epsilon ζ zeta η eta
    θ theta ι iota κ kappa λ lambda μ mu ν nu ξ xi ο omicron π pi ρ rho ς varsigma σ sigma τ tau υ upsilon φ phi χ chi
    ψ psi ω omega Γ Gamma Δ Delta Θ Theta Λ Lambda Ξ Xi Φ Phi Ψ Psi Ω Omega
"""
_NAMES = dict(re.findall(r"(\S+) (\S+)", _COMMANDS))
_RATIOS = ("sin", "cos", "tan", "cot", "sec", "csc")
_FUNCTIONS = ["ln", "log", "exp", "sqrt", "abs", "factorial", "ceil", "floor", "cbrt"]
_FUNCTIONS += [f"{arc}{name}{h}" for arc in ("", "arc") for name in _RATIOS for h in ("", "h")]
_LETTERS = [name for sign, name in _NAMES.items() if "Α" <= sign <= "ω"]
_PLAIN_COMMANDS = {"ceiling": "ceil", "cosec": "csc"} | {name: name for name in (*_FUNCTIONS, *_LETTERS, "hbar")}
_PLAIN_COMMANDS |= {f"a{name[3:]}": name for name in _FUNCTIONS if name.startswith("arc")}
_PLAIN_COMMANDS |= dict.fromkeys(("inf", "infinity", "oo"), "infty") | {"tg": "tan", "ctg": "cot", "arctg": "arctan"}
_OPERATOR = re.compile(r"\\operatorname\s*\{\s*(\w+)\s*\}")
_PLAIN_NAME = re.compile(r"(?<![A-Za-z\\])\\?(?:(?:np|numpy|math)\.)?([A-Za-z]{2,})(?![A-Za-z'])(?=(\s*\(|[\^*])?)")
_PLAIN_BRACKET = re.compile(r"(?:(\\(?:sqrt|cbrt|abs|factorial|ceil|floor)|\^)\s*)?\(|\^\s*(\\[a-z]+)\s*\(|\)")
_AROUND = {r"\sqrt": (r"\sqrt{", "}"), r"\abs": ("|", "|"), r"\factorial": ("(", ")!"), "^": ("^{", "}")}
_AROUND |= {r"\cbrt": (r"\sqrt[3]{", "}")} | {rf"\{name}": (rf"\l{name} ", rf"\r{name} ") for name in ("ceil", "floor")}
_WORD_INDEX = re.compile(r"(?<![A-Za-z\\])([A-Za-z])_([A-Za-z]{2,}\d*)(?![A-Za-z_])")
_NUMBERED = re.compile(r"(?<![A-Za-z\\\d}])([A-Za-z])(\d+)(?![\w.])")
_RECIPROCAL = re.compile(r"\\(coth|sech|csch)\s*(\^\s*\{?\w+\}?)?\s*(\([^()]*\)|[A-Za-z](?![A-Za-z]))")
_INVERSES = {"coth": r"\tanh", "sech": r"\cosh", "csch": r"\sinh"}
_LOGARITHM = re.compile(r"\\log\s*\(([^(),]+),\s*(\w+)\)")
_BINOMIAL = re.compile(r"(?<![A-Za-z\\])(?:nCr|binom|binomial|choose)\s*\(([^(),]+),([^(),]+)\)")

# NFKC would flatten many of these into the text (x² into x2, 3½ into 31/2), so they are spelled out before it.
_PLAIN_SIGNS = {"−": "-", "–": "-", "—": "-", "﹣": "-", "÷": "/", "∶": ":", "、": ",", "。": ".", "′": "'", "’": "'"}
_PLAIN_SIGNS |= {"\u2044": "/", "或": " or ", "和": " and ", "\u00c5": r"\text{angstrom}", "\u212b": r"\text{angstrom}"}
_SIGNS = _PLAIN_SIGNS | {sign: rf"\{name} " for sign, name in _NAMES.items()}
_FRACTIONS = {c: unicodedata.normalize("NFKC", c).partition("\u2044") for c in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"}
_SIGN_TABLE = str.maketrans(_SIGNS | {c: rf"\frac{{{top}}}{{{low}}}" for c, (top, _, low) in _FRACTIONS.items()})
_SUPERSCRIPT = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱ]+")
_SUBSCRIPT = re.compile(r"[₀₁₂₃₄₅₆₇₈₉]+")
_ROOT = re.compile(r"√\s*(?:\(([^()]*)\)|(\d+|[A-Za-z]))")

FONT = r"\\(?:text(?:bf|it|rm|sf|tt|normal|sc)?|math(?:bf|it|rm|sf|tt|normal)|mbox|hbox|operatorname|boldsymbol)\*?"
"""A command that changes only how its argument is printed."""
GAP = r"(?:\s|\\[,; ])*"
_SYNONYMS = r"""
    \dfrac \frac \tfrac \frac \cfrac \frac \lt < \gt > != \ne \neq \ne \not= \ne := = \coloneqq = \langle ( \rangle )
    <= \le \leq \le \leqslant \le \leqq \le >= \ge \geq \ge \geqslant \ge \geqq \ge \varnothing \emptyset
    \varepsilon \epsilon \varphi \phi \vartheta \theta \varrho \rho \varsigma \sigma \lg \log_{10} \backslash \setminus
"""
_SYNONYM = dict(re.findall(r"(\S+) (\S+)", _SYNONYMS))
_THOUSANDS = re.compile(r"(?<![\d.])(?<!\d,)\d{1,3}(?:,\d{3})+(?!,?\d)")
_SCALE_WORDS = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_STYLE = (
    r"\\(?:(?:mathbf|boldsymbol|bm|pmb|underline|emph|textcolor\{\w+\})\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
    r"|(?:text(?:bf|tt|it|rm)?|mathrm)\s*\{\s*([-+\d.,:/%\s]+|(?<=\A\\text\{)[-+$.\d][^{}]*(?=\}\s*\Z))\s*\})"
)
CHANGES = (
    "not?|none|never|cannot|wrong|false|incorrect|impossible|if|unless|suppose|assume|except|over|either|choose|mod(?:ulo)?"
    "|at least|at most|(?:less|fewer|smaller|more|greater|larger|other) than|minus|plus|equals|negative|opposite"
    "|or (?:more|less|fewer|greater|higher|lower|above|below|so)|pairs?|dozens?|scores|twice|double|triple|halves"
    "|half|square[ds]|cube[ds]|(?:square |cube )?roots?|powers?|logarithm|reciprocal|inverses?|factorials?|multiples?"
    "|(?:third|fourth|quarter|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth|hundredth|thousandth)s?"
    "|bits|divide[ds]|(?:ten|hundred|thousand|million|billion|trillion|zeroe?)s"
)
"""Words that change the value beside which they stand. A label has none of them, and they are no unit."""
_LABEL = rf"(?!(?:[^$\\]|\\text)*\b(?:{CHANGES})\b)"
# What stands before the only mathematics of a text, and says that this is the answer: `We find that $x = 2$.`
_LABELLED = (
    rf"(?i)\A(?:{_LABEL}(?:(?:[a-z]+[\s,]+)*?"
    r"(?:answer|solution|result|is|are|equals?|that|therefore|thus|hence|so|find|get|have)\b[\s:,]*|[a-z][a-z ]*:))?\s*"
    r"(?:\$\$?([^$]+)\$\$?|\\\((.*)\\\)|\\\[(.*)\\\])"
    r"(?:\s*(?:is|as) (?:the|our) (?:answer|solution|result))?\s*\.?\s*\Z"
)
_TAKES_DEGREES = r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])"
_DEGREES = re.compile(r"(\d+(?:\.\d+)?)\s*\^\s*(?:\\circ(?![A-Za-z])|\{\s*\\circ\s*\})")
_EDGE = r"(?:\s|\\[,;: ]|\\q?quad(?![A-Za-z]))"


def _listed_rows(system: re.Match[str]) -> str:
    """Write a system of equations as a list; a function in cases stays as it is."""
    rows = [row.replace("&", "") for row in system[2].split(r"\\") if row.strip()]
    return ",".join(rows) if all("=" in row for row in rows) else system[0]


def _fraction(number: re.Match[str]) -> str:
    """0.1\\overline{6} is (16 - 1) / 90."""
    whole, fixed, period = number.groups()
    low = (10 ** len(period) - 1) * 10 ** len(fixed)
    return rf"\frac{{{int(whole + fixed + period) - int((whole + fixed) or 0)}}}{{{low}}}"


def _improper(number: re.Match[str]) -> str:
    whole, top, low = int(number[1]), int(number[2] or number[4]), int(number[3] or number[5])
    return rf"\frac{{{whole * low + top}}}{{{low}}}" if top < low else number[0]


def _compiled(*rows: tuple[str, Any]) -> list[tuple[re.Pattern[str], Any]]:
    return [(re.compile(pattern, re.DOTALL), spelling) for pattern, spelling in rows]


# In order: what a pattern leaves is what the next one reads.
_SPELLINGS = _compiled(
    (r"[\x00-\x08\x0b-\x1f\x7f]", ""),
    (r"[\n\t~]", " "),
    (r"\A(?:[^\\]|\\\\)*\\\\[A-Za-z]{2}(?:[^\\]|\\\\)*\Z", lambda m: m[0].replace(r"\\", "\\")),  # escaped twice
    *[(_STYLE, lambda m: m[1] or m[2] or "")] * 2,
    (_LABELLED, lambda m: next(filter(None, m.groups()), "")),
    (r"\A.*\\boxed\s*\{((?:[^{}]|\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})*)\}[^{}]*\Z", r"\1"),
    (r"\\left\s*<(.*?)\\right\s*>|\A\s*<([^<>=]*,[^<>=]*)>\s*\Z", lambda m: f"({m[1] or m[2]})"),
    (r"\A\s*([-+]?[\d.]+)\s*=\s*([A-Za-z])\s*\Z", r"\2 = \1"),
    (
        rf"(?i)\A{_LABEL}"
        r"(?:\\text(?:bf|rm|it)?\s*\{)?\s*(?:(?:the\s+)?(?:(?:final|correct)\s+)?"
        r"(?:answer|ans|result|value|solution)\b\s*(?:is\b\s*:?|[:=])"
        r"|(?:[a-z]+[\s}]+(?:\\text\s*\{\s*)?){2,9}is(?=\s*\}?\s*[-+$\d]))\s*(?:\}\s*:?)?",
        "",
    ),
    (r"\\\$\s*((?:[\d.,]|\\!|\{,\})*\d)(?=[\s$.]*(?:\Z|[,;]\s*\$?\\\$))", r"\1 \\text{ dollars} "),
    (r"\\?\$|\\!\s*|\\(?:(?:text|display)style|[bB]igg?[lrm]?)(?![A-Za-z])|\\color\{\w+\}|^\s*\*\*|\*\*\s*$", ""),
    (r"\A\s*\*([^*]+)\*\s*\Z", r"\1"),
    (r"\A\s*\{([^{}()[\]]*,[^{}()[\]]*)\}\s*\Z", r"\\{\1\\}"),
    (r"[€£¥₹₩]|\\(?:euro|pounds|yen)(?![A-Za-z])|\\(?:left|right)\.", ""),
    (r"\\not=|\\[A-Za-z]+|[!<>:]=", lambda m: f"{_SYNONYM[m[0]]} " if m[0] in _SYNONYM else m[0]),
    (r"\\log_\{?e(?![A-Za-z])\}?", r"\\ln "),
    (r"\\frac\s*(\w)", r"\\frac{\1}"),
    (r"\\frac\s*(\{[^{}]*\})\s*(\w)", r"\\frac\1{\2}"),
    (r"(?<=\d)\s*\\(?:mathrm|text)\{\s*[eE]\s*\}\s*\{?([+-]?\d+)\}?", r"e\1"),
    (r"\\mathrm\s*\{\s*([ei])\s*\}", r" \1"),
    (rf"(^|[-+=(])\s*{FONT}\s*\{{\s*([A-Za-z])\s*\}}", r"\1 \2"),
    (r"\\sqrt\s*(\[\w+\])?\s*(\d+|(?<=\])[A-Za-z])", lambda m: rf"\sqrt{m[1] or ''}{{{m[2]}}}"),
    (r"(?<=[)\]])\s*U\s*(?=[(\[])", r"\\cup "),
    (r"(?<=\\mathbb\{R\})\s*-\s*(?=\\\{)", r" \\setminus "),
    (r"\A.*\Z", lambda m: as_latex(m[0])),
    (r"\{([^{}]*)\\choose(?![A-Za-z])([^{}]*)\}", r"\\binom{\1}{\2}"),
    (r"\{([^{}]*)\\over(?![A-Za-z])([^{}]*)\}", r"\\frac{\1}{\2}"),
    (r"\A\s*(?:\\text\{)?\s*[Nn]o\s+(?:real\s+)?solutions?\s*\}?\s*\Z", r"\\emptyset "),
    (r"\\begin\{(cases|aligned)\}(.*)\\end\{\1\}", _listed_rows),
    (r"\{([-+:=/])\}", r"\1"),
    (r"(?<![A-Za-z\\])([AaPp])\.\s?[Mm]\.?(?![A-Za-z])", r"\1m"),
    (r"(?<=\d)(?:(?<=:\d\d)\s*|\s+)([AaPp][Mm])$", r"\\text{ \1}"),
    (r"\^?\{?\\degree(?![A-Za-z])\}?", r"^\\circ "),
    (r"(?<=[\d}])\s*(?:\\text\s*\{\s*)?\b(?:per ?cent|pct)\b\s*\}?", r"\\%"),
    (r"(?<!\\)%", r"\\%"),
    (r"(?<!\^)'", r"^{\\prime}"),
    (r"(?<=\d)\s*(?:[xX*]|\\ast|\\cdot|\\times)\s*10\s*\^", r" \\times 10^"),
    (r"(?<=\d)\.(?=[/*+)}\s-])", ""),
    (r"(?<![\w.}^/])(\d+)/(\d+)(?:\s+(?=\\)|\s*(?=[A-Za-z(]|\\(?:pi|sqrt)(?![A-Za-z])))", r"\\frac{\1}{\2} "),
    (r"(?<=\d)\^\s*(\d)\s+(?=\d)", r"^{\1} \\cdot "),
    (r"\^\s*(\\frac\{[^{}]*\}\{[^{}]*\}|[+-]\s?(?:\d+|[A-Za-z])|\d+!|\d\d+|e(?![A-Za-z]))", r"^{\1}"),
    (rf"\A.*{_TAKES_DEGREES}.*\Z", lambda m: _DEGREES.sub(r"(\\frac{\1\\pi}{180})", m[0])),  # the parser drops them
    (r"(?<=\d)(?:\\,|\s*\{,\}\s*)(?=\d{3}(?!\d))", ""),
)
_NUMBERS_AND_EDGES = _compiled(
    (r"(?<![\w.\\^])([+-]?(?:\d+(?:\.\d*)?|\.\d+))[eE]\+?(-?)0*(\d{1,4})(?![\w.]*\w)", r"\1 \\times 10^{\2\3}"),
    (
        rf"(?<=[\d}}]){GAP}({FONT}\s*\{{\s*)?\b({'|'.join(_SCALE_WORDS)})\b",
        lambda m: rf" \times 10^{{{_SCALE_WORDS[m[2]]}}}{m[1] or ''}",
    ),
    (rf"{FONT}\s*\{{\s*\}}", ""),
    (r"(?<!\d)(\d*)\.(\d*)\\(?:overline|bar|dot)\s*\{?(\d+)\}?", _fraction),
    (r"(?<![\w.})])(\d+)\s*(?:\\frac\s*\{(\d+)\}\s*\{(\d+)\}|(?<=\s)(\d+)\s*/\s*(\d+)(?![\d.]))", _improper),
    (r"(?<=\d)\s+(?=\d)", ""),
    (rf"\A(?:{_EDGE}|=|:|\\approx(?![A-Za-z]))+", ""),
    *[(rf"(?:{_EDGE}|[,;:]|\\\\|\\(?=\s*\Z))+\Z", ""), (r"(?<!\.)\.\Z", "")] * 2,
    (r"\\q?quad(?![A-Za-z])", ","),
)
_MARK = re.compile(r"\\.|[()\[\]{},=]", re.DOTALL)
_UNSEEN = re.compile(r"\\[,;: ]|\\(?:left|right)(?![A-Za-z])|\s+")


@lru_cache(maxsize=8192)
def normalise(text: str, *, thousands: bool = True) -> str:
    """Bring an answer or a gold into the one spelling that is compared.

    NFKC with mathematical signs spelled as LaTeX, no control or zero-width characters, no dollars around mathematics,
    no thousands separators (unless `thousands` is False: then a comma is always a comma), `1.2e-5` as
    `1.2 \\times 10^{-5}`, mixed numbers and repeating decimals as fractions, no space or full stop at the edges.
    """
    if not text.isascii():
        text = _SUPERSCRIPT.sub(lambda m: f"^{{{unicodedata.normalize('NFKC', m[0])}}}".replace("−", "-"), text)
        text = _SUBSCRIPT.sub(lambda m: f"_{{{unicodedata.normalize('NFKC', m[0])}}}", text)
        text = _ROOT.sub(lambda m: rf"\sqrt{{{m[1] or m[2]}}}", text)
        text = unicodedata.normalize("NFKC", text.translate(_SIGN_TABLE)).translate(_SIGN_TABLE)
        text = "".join(c for c in text if unicodedata.category(c) not in ("Cf", "Cs", "Co", "Cn"))
    for pattern, spelling in _SPELLINGS:
        text = pattern.sub(spelling, text)
    if thousands:
        text = _THOUSANDS.sub(lambda m: m[0].replace(",", ""), text)
    if text.endswith("}") and [depth for _, depth in marks(text)][-1] < 0:
        text = text[:-1]
    for pattern, spelling in _NUMBERS_AND_EDGES:
        text = pattern.sub(spelling, text)
    return text


def squeeze(text: str) -> str:
    """Remove what is not seen in print: white space, \\left and \\right, braces around the whole."""
    text = _UNSEEN.sub("", text)
    while text.startswith("{") and is_enclosed(text):
        text = text[1:-1]
    return text


def is_enclosed(text: str) -> bool:
    """Say whether the bracket that a text starts with closes at its end."""
    return next((mark.end() for mark, depth in marks(text) if depth == 0), 0) == len(text)


def marks(text: str) -> Iterator[tuple[re.Match[str], int]]:
    """Yield each bracket, comma and equals sign of a text, and how many brackets are open behind it."""
    depth = 0
    for mark in _MARK.finditer(text):
        depth += (mark[0][-1] in "([{") - (mark[0][-1] in ")]}")
        yield mark, depth


def as_latex(text: str) -> str:
    """Write known names as commands and brackets as braces where LaTeX wants them. LaTeX itself stays as it is."""
    text = text.replace("==", "=").replace("+/-", r"\pm ")
    text = _OPERATOR.sub(lambda m: f" {m[1]}" if m[1] in _PLAIN_COMMANDS else m[0], text)
    if "*" in text:
        text = _WORD_INDEX.sub(r"\1_{\2}", text.replace("**", "^"))
    text = _NUMBERED.sub(r"\1_{\2}", _PLAIN_NAME.sub(_command, text))
    text = _RECIPROCAL.sub(lambda m: rf"\frac{{1}}{{{_INVERSES[m[1]]}{m[2] or ''} {m[3]}}}", text)
    text = _BINOMIAL.sub(r"\\binom{\1}{\2}", _LOGARITHM.sub(r"\\log_{\2}(\1)", text))
    pieces, closing, done = [], [], 0
    for found in _PLAIN_BRACKET.finditer(text):
        pieces.append(text[done : found.start()])
        done = found.end()
        if found[0] == ")":
            pieces.append(closing.pop() if closing else ")")
        else:
            start, end = _AROUND.get(found[2] or found[1], ((found[2] or "") + "(", ")"))
            start, end = ("^{" + start, end + "}") if found[2] else (start, end)
            pieces.append(start)
            closing.append(end)
    return text if closing else "".join([*pieces, text[done:]])


def _command(word: re.Match[str]) -> str:
    name = word[1].lower() if word[2] and word[1] not in _PLAIN_COMMANDS else word[1]
    if name in _FUNCTIONS and word.end() == len(word.string):
        return word[0]  # `5 sec` is a time
    space = "" if word.string.startswith("_", word.end()) or word[0].startswith("\\") else " "
    return rf"\{_PLAIN_COMMANDS[name]}{space}" if name in _PLAIN_COMMANDS else word[0]
