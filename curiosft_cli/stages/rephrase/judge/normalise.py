"""One spelling for all ways of writing the same: LaTeX, plain text, full-width signs, blanks and thin spaces."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Literal, NamedTuple

# What is written differently and means the same: the spelling that counts, then the others.
SPELLINGS = r"""
    <= \le \leq \leqslant \leqq ≤ ⩽ ≦; >= \ge \geq \geqslant \geqq ≥ ⩾ ≧; != \ne \neq ≠; * \times \cdot \ast × · ⋅ ∗ •;
    - − – ‐ ‑; ... \ldots \cdots \dots \dotsc \dotsb …; | \mid \vert \lvert \rvert ∣; \to \rightarrow → ->;
    \frac \dfrac \tfrac \cfrac; \binom \dbinom \tbinom; " “ ” „ « » ``; ' ’ ‘ `; . 。 ．; , ،; [ 【 〔; ] 】 〕;
    : \colon; % \%; # \# №; \in ∈; \infty ∞; \sqrt √; \angle ∠; \triangle △ \bigtriangleup; \perp ⊥; \pm ±;
    \emptyset \varnothing ∅; \cup ∪; \cap ∩; \epsilon \varepsilon; \phi \varphi; \lambda \lamda; ° ^\circ ^{\circ};
    a а; c с; e е; o о; p р; x х; y у; A А; B В; C С; E Е; H Н; K К; M М; O О; P Р; T Т; X Х
"""
ONE_SPELLING = {other: first for first, *others in map(str.split, SPELLINGS.split(";")) for other in others}
# What changes how a text looks, not what it says.
LOOKS_ONLY = r"""
    \left \right \big \Big \bigg \Bigg \bigl \bigr \Bigl \Bigr \displaystyle \textstyle \limits \nolimits \quad \qquad
    \text \textbf \textit \textrm \mathrm \mathbf \rm \bf \operatorname \, \; \: \! \( \) \[ \] $ $$ ~ **
"""
ONE_SPELLING |= dict.fromkeys(LOOKS_ONLY.split(), "")
SIGNS = frozenset({*"+-*/=<>^|%°", "<=", ">=", "!=", r"\pm", r"\cup", r"\cap"})
BLANK = "____"
CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
TOKEN = re.compile(
    r"(?P<blank>(?:\\?[_＿]\s*){2,}|\$\s*\\q?quad\s*\$|[(（][\s\u3000]*[)）]"
    r"|\\underline\s*\{(?:\\q?quad|\\hspace\*?\{[^{}]*\}|\\[ ,;:~]|[\s~\u3000])*\})"
    r"|(?P<number>(?:(?<=frac)|(?<=[\^_]))\d(?=\d)"
    r"|\d{1,3}(?P<comma>,|\{,\}|\\[,!]|[ \u00a0\u2009\u202f~])\d{3}(?:(?P=comma)\d{3})*(?!\d)|\d+)"
    r"|(?P<raised>[⁰¹²³⁴⁵⁶⁷⁸⁹]+)|(?P<lowered>[₀-₉]+)"
    rf"|(?P<sign>\^\s*(?:\\circ|{{\\circ}})|\\[A-Za-z]+|\\[^\w]|(?<![\w)])\*\*|\*\*(?![\w(])|\$\$|\.{{3,}}|<=|>=|!=|->|``)"
    rf"|(?P<word>[{CJK}]|[A-Z](?: [A-Z])+(?![A-Za-z])|(?:(?![{CJK}⁰¹²³⁴⁵⁶⁷⁸⁹₀-₉①-⓿½¼¾])[^\W\d_])+)|(?P<other>\S)"
)


class Token(NamedTuple):
    """A piece of a text that means something: its one spelling, and where it stands in the text."""

    text: str
    start: int
    end: int


@lru_cache(maxsize=16)
def tokens(text: str) -> list[Token]:
    """The words, numbers and signs of a text; dollars around formulas, spaces and sizes of brackets are none."""
    found: list[Token] = []
    for match in TOKEN.finditer(text):
        for piece in _spelled(match):
            if piece == "}" and found and found[-1].text == "{":
                found.pop()
            elif piece == "}" and len(found) > 1 and found[-2].text == "{":
                found[-2:] = [found[-1]]  # {x} is x
            else:
                found.append(Token(piece, *match.span()))
            parts = found[-2:]
            if len(found) > 2 and found[-3].text == "\\frac" and not any(part.text in "{}" for part in parts):
                found[-3:] = parts[0], Token("/", parts[0].end, parts[1].start), parts[1]  # \frac12 is 1/2
    return found


def spelled(text: str) -> list[str]:
    """The tokens without their places."""
    return [token.text for token in tokens(text)]


@lru_cache(maxsize=10_000)
def kind(token: str) -> Literal["number", "sign", "command", "character", "letter", "word", "stop"]:
    """What a token is.

    A sign is one of mathematics. A command is of LaTeX. A character is of a script in which characters are words. A
    letter stands alone: mostly a variable. A stop is punctuation, a bracket or a blank.
    """
    if token[0].isdigit():
        return "number"
    if token in SIGNS:
        return "sign"
    if token[0] in "\\{}":
        return "command"
    if not token[0].isalpha():
        return "stop"
    if re.match(f"[{CJK}]", token):
        return "character"
    return "letter" if len(token) == 1 else "word"


@lru_cache(maxsize=10_000)
def script(token: str) -> str:
    """The script of a word, as Unicode names it; "" for a token that is none, or a short one."""
    is_long = kind(token) == "character" or (kind(token) == "word" and len(token) > 2)
    return unicodedata.name(token[0], "").partition(" ")[0] * is_long


def _spelled(match: re.Match[str]) -> list[str]:
    """The spelling that counts of one match; nothing for what only changes the looks."""
    text, group = match[0], match.lastgroup
    plain = "".join(unicodedata.normalize("NFKC", text).split())
    if group == "blank":
        return [BLANK]
    if group in ("raised", "lowered"):
        return ["^" if group == "raised" else "_", plain]
    if group == "number":
        return [re.sub(r"\D", "", plain)]
    if group == "word" and len(plain) == 1 and unicodedata.name(plain, "").startswith("GREEK SMALL LETTER"):
        plain = "\\" + unicodedata.name(plain).split()[3].lower()
    text = ONE_SPELLING.get(text, ONE_SPELLING.get(plain, plain))
    return [text.casefold() if group == "word" and text[1:].islower() else text] if text else []
