"""One spelling for all ways of writing the same: LaTeX, plain text, full-width signs, blanks and thin spaces."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache
from typing import NamedTuple

# What is written differently and means the same: the spelling that counts, then the others.
SPELLINGS = r"""
    <= \le \leq \leqslant \leqq ≤ ⩽ ≦; >= \ge \geq \geqslant \geqq ≥ ⩾ ≧; != \ne \neq ≠; * \times \cdot \ast × · ⋅ ∗ •;
    - − – ‐ ‑; ... \ldots \cdots \dots \dotsc \dotsb …; | \mid \vert \lvert \rvert ∣; \to \rightarrow → ->;
    \frac \dfrac \tfrac \cfrac; \binom \dbinom \tbinom; " “ ” „ « » ``; ' ’ ‘ `; . 。 ．; , ،; [ 【 〔; ] 】 〕;
    : \colon; % \%; # \# №; \in ∈; \infty ∞; \sqrt √; \angle ∠; \triangle △ \bigtriangleup; \perp ⊥; \pm ±;
    \emptyset \varnothing ∅; \cup ∪; \cap ∩
"""
ONE_SPELLING = {other: first for first, *others in map(str.split, SPELLINGS.split(";")) for other in others}
# What changes how a text looks, not what it says.
LOOKS_ONLY = r"""
    \left \right \big \Big \bigg \Bigg \bigl \bigr \Bigl \Bigr \displaystyle \textstyle \limits \nolimits \quad \qquad
    \text \textbf \textit \textrm \mathrm \mathbf \rm \bf \operatorname \, \; \: \! \( \) \[ \] $ $$ ~ **
"""
LOOKS = frozenset(LOOKS_ONLY.split())
BLANK = "____"
CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉", "01234567890123456789")
TOKEN = re.compile(
    r"(?P<blank>(?:\\?_\s*){2,}|[(（][\s\u3000]*[)）]"
    r"|\\underline\s*\{(?:\\q?quad|\\hspace\*?\{[^{}]*\}|\\[ ,;:~]|[\s~\u3000])*\})"
    r"|(?P<number>\d{1,3}(?:(?:,|\{,\}|\\[,!]|[ \u00a0\u2009\u202f~])+\d{3})+(?!\d)|\d+)"
    r"|(?P<raised>[⁰¹²³⁴⁵⁶⁷⁸⁹]+)|(?P<lowered>[₀-₉]+)"
    rf"|(?P<sign>\\[A-Za-z]+|\\[^\w]|(?<![\w)])\*\*|\*\*(?![\w(])|\$\$|\.{{3,}}|<=|>=|!=|->|``)"
    rf"|(?P<word>[{CJK}]|(?:(?![{CJK}⁰¹²³⁴⁵⁶⁷⁸⁹₀-₉①-⓿½¼¾])[^\W\d_])+)|(?P<other>\S)"
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
            elif piece.isdigit() and len(piece) > 1 and found and _takes_one_digit(found, match):
                found += [Token(piece[0], *match.span()), Token(piece[1:], *match.span())]
            else:
                found.append(Token(piece, *match.span()))
    return found


def spelled(text: str) -> list[str]:
    """The tokens without their places."""
    return [token.text for token in tokens(text)]


def is_number(token: str) -> bool:
    """Whether a token is a number."""
    return token[0].isdigit()


def is_letter(token: str) -> bool:
    """Whether a token is a single letter, mostly a variable; a sign of a script without letters is none."""
    return len(token) == 1 and token.isalpha() and not re.match(f"[{CJK}]", token)


def is_word(token: str) -> bool:
    """Whether a token is a word, or a sign of a script in which signs are words."""
    return token[0].isalpha() and not is_letter(token)


def without_formulas(text: str) -> str:
    """The words of a text."""
    return re.sub(r"\$\$.*?\$\$|\$[^$]*\$|\\\(.*?\\\)|\\\[.*?\\\]|\\[A-Za-z]+", " , ", text, flags=re.DOTALL)


def scripts(text: str) -> Counter[str]:
    """Letters by script, in words of more than two letters; Han and kana count as `cjk`."""
    found: Counter[str] = Counter()
    for word in re.findall(rf"[{CJK}]|[^\W\d_{CJK}]{{3,}}", without_formulas(text)):
        name = unicodedata.name(word[0], "none").partition(" ")[0].lower()
        found["cjk" if name in ("hiragana", "katakana") else name] += len(word)
    return found


def script(text: str) -> str:
    """The script that most letters outside formulas belong to."""
    return next((name for name, _ in scripts(text).most_common(1)), "none")


def _spelled(match: re.Match[str]) -> list[str]:
    """The spelling that counts of one match; nothing for what only changes the looks."""
    text, kind = match[0], match.lastgroup
    if kind == "blank":
        return [BLANK]
    if kind in ("raised", "lowered"):
        return ["^" if kind == "raised" else "_", text.translate(RAISED)]
    if kind == "number":
        return [unicodedata.normalize("NFKC", re.sub(r"\D", "", text))]
    if text == "°":
        return ["^", "\\circ"]
    text = ONE_SPELLING.get(text, text)
    if text in LOOKS or not (text := "".join(unicodedata.normalize("NFKC", text).split())):
        return []
    text = ONE_SPELLING.get(text, text)
    if kind == "word" and len(text) == 1 and unicodedata.name(text, "").startswith("GREEK SMALL LETTER"):
        return ["\\" + unicodedata.name(text).split()[3].lower()]
    return [text.casefold() if kind == "word" and text[1:].islower() else text]


def _takes_one_digit(found: list[Token], match: re.Match[str]) -> bool:
    r"""Whether the number stands right behind \frac: \frac12 is \frac{1}{2}."""
    return found[-1].text == "\\frac" and found[-1].end == match.start()
