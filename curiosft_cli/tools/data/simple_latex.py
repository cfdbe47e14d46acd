"""A small grammar of LaTeX expressions that every parser reads. Golds in it need no algebra to be checked.

equation   = values ["=" values]
values     = expression {"," expression}
expression = [sign] term {sign term}
term       = factor {["\\cdot" | "\\times" | "/"] factor}
factor     = atom ["^" (digit | letter | "{" expression "}" | "\\circ")]
atom       = number | letter [subscript] | Greek letter | "\\frac{..}{..}" | "\\sqrt[n]{..}" | function atom
           | "(" | "[" values ")" | "]"
"""

from __future__ import annotations

import re

_TOKEN = re.compile(r"\s*(\\[A-Za-z]+|\d+(?:\.\d+)?|[a-zA-Z]|[-+^{}()\[\],/=_])")
_SIZE = re.compile(r"\\(?:left|right)(?![A-Za-z])")
_SIGNS = ("+", "-", r"\cup")
_GREEK = {rf"\{name}" for name in ("pi", "alpha", "beta", "theta", "omega", "lambda", "mu", "sigma", "phi", "infty")}
_FUNCTIONS = {rf"\{name}" for name in ("sin", "cos", "tan", "cot", "ln", "log", "arctan", "arcsin", "arccos")}
_CIRCLE = (["{", r"\circ", "}"], [r"\circ"])


def is_simple(text: str, max_tokens: int = 100) -> bool:
    """Whether the whole text is in the grammar. `text` must be normalised (`\\frac`, not `\\dfrac`)."""
    tokens: list[str] = []
    at = 0
    text = _SIZE.sub("", text).rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if not match or len(tokens) == max_tokens:
            return False
        tokens.append(match[1])
        at = match.end()
    try:
        return _equation(tokens, 0) == len(tokens) > 0
    except (_NotSimple, IndexError):
        return False


class _NotSimple(Exception):
    pass


def _equation(tokens: list[str], at: int) -> int:
    at = _values(tokens, at)
    return _values(tokens, at + 1) if at < len(tokens) and tokens[at] == "=" else at


def _values(tokens: list[str], at: int) -> int:
    at = _expression(tokens, at)
    while at < len(tokens) and tokens[at] == ",":
        at = _expression(tokens, at + 1)
    return at


def _expression(tokens: list[str], at: int) -> int:
    at = _term(tokens, at + (tokens[at] in "+-"))
    while at < len(tokens) and tokens[at] in _SIGNS:
        at = _term(tokens, at + 1)
    return at


def _term(tokens: list[str], at: int) -> int:
    at = _factor(tokens, at)
    while at < len(tokens):
        if tokens[at] in (r"\cdot", r"\times", "/"):
            at = _factor(tokens, at + 1)
        elif tokens[at][0].isalnum() or tokens[at] in {r"\frac", r"\sqrt", "(", *_GREEK, *_FUNCTIONS}:
            at = _factor(tokens, at)
        else:
            break
    return at


def _factor(tokens: list[str], at: int) -> int:
    at = _atom(tokens, at)
    if at < len(tokens) and tokens[at] == "^":
        for circle in _CIRCLE:
            if tokens[at + 1 : at + 1 + len(circle)] == circle:
                return at + 1 + len(circle)
        return _braced(tokens, at + 1) if tokens[at + 1] == "{" else _short(tokens, at + 1)
    return at


def _atom(tokens: list[str], at: int) -> int:
    token = tokens[at]
    if token[0].isdigit() or token in _GREEK:
        return at + 1
    if token[0].isalpha():
        subscript = at + 1 < len(tokens) and tokens[at + 1] == "_"
        return at + 1 if not subscript else _index(tokens, at + 2)
    if token in _FUNCTIONS:
        return _atom(tokens, at + 1)
    if token == r"\frac":
        return _braced(tokens, _braced(tokens, at + 1))
    if token == r"\sqrt":
        at += 1
        if tokens[at] == "[":
            at = _expect(tokens, _short(tokens, at + 1), "]")
        return _braced(tokens, at)
    if token in ("(", "["):
        at = _values(tokens, at + 1)
        if tokens[at] in (")", "]"):
            return at + 1
    raise _NotSimple


def _index(tokens: list[str], at: int) -> int:
    return _expect(tokens, _short(tokens, at + 1), "}") if tokens[at] == "{" else _short(tokens, at)


def _braced(tokens: list[str], at: int) -> int:
    return _expect(tokens, _expression(tokens, _expect(tokens, at, "{")), "}")


def _short(tokens: list[str], at: int) -> int:
    if len(tokens[at]) == 1 and tokens[at].isalnum():
        return at + 1
    raise _NotSimple


def _expect(tokens: list[str], at: int, token: str) -> int:
    if tokens[at] != token:
        raise _NotSimple
    return at + 1
