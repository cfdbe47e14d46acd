"""Math-Verify behind two functions: the only place that imports it, on first use.

Its own timeouts are off: they count seconds on the wall, so that a busy machine would turn right answers into wrong
ones, and they cancel an alarm that the caller has set. Ours count CPU seconds. Both are signals: main thread only.
"""

from __future__ import annotations

import logging
import re
import signal
import threading
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, TypeVar

from curiosft_cli.data.records import GradeStatus
from curiosft_cli.grading.parse import MEMBER, condition
from curiosft_cli.run.errors import CurioError

T = TypeVar("T")

LIBRARY_TIMEOUT_S = 3.0

_TOKEN = re.compile(
    r"\\(?:begin|end|text|mathrm|mathbb|mathcal|operatorname|mbox)\s*\{[^{}]*\}|\\[A-Za-z]+"
    r"|(?<![A-Za-z])(?:and|or)(?![A-Za-z])|[A-Za-z]"
)
_SUBSCRIPT_COMMAND = re.compile(r"_\{?\\(max|min|odot|oplus|infty)(?![A-Za-z])\s*\}?")
_INDEXED_E = re.compile(r"(?<![A-Za-z\\])e(?=_)")
_INDEX_I = re.compile(r"\\(?:sum|prod|cup|cap)|_\s*(?:i|\{[^{}]*i[^{}]*\})")
_SYMBOL = r"(?:[A-Za-z]|\\(?!frac|d?frac)[A-Za-z]+)(?:_(?:\w|\{\w+\}))?"
_DERIVATIVE = re.compile(
    rf"\\frac\{{\s*d(?:\^\{{?(\d)\}}?)?\s*({_SYMBOL})(?:\([a-z]\))?\s*\}}\{{\s*d\s*({_SYMBOL})(?(1)\^\{{?\1\}}?)\s*\}}"
)
_SPARE_SYMBOLS = r"\xi \chi \upsilon \kappa \zeta \eta \iota \nu \psi \tau \rho \sigma \phi \omega \varphi \beta \alpha"
_MISREAD = ("E", "I", "d", r"\gamma", r"\Gamma")
_AGAIN_S = 0.5


@lru_cache(maxsize=1)
def _library() -> Any:
    """Import Math-Verify (0.5 s) and fix what it looks for: LaTeX, with its own removal of units off.

    The library would take the `m` of `6m` for metres; and asked for bare expressions too, it reads a number out of
    LaTeX that it cannot parse. Returns (module, extraction targets).
    """
    import math_verify
    from latex2sympy2_extended import NormalizationConfig

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    spelling = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all", equations=False
    )
    target = math_verify.LatexExtractionConfig(boxed_match_priority=0, normalization_config=spelling)
    return math_verify, (target,)


def load() -> None:
    """Import the library now, so that the first item does not pay for it."""
    _library()


def equal(gold: str, answer: str, timeout_s: float = LIBRARY_TIMEOUT_S) -> tuple[bool, GradeStatus]:
    """Compare a normalised answer with a normalised gold by Math-Verify, and say how the comparison went."""
    gold, answer = _distinct_symbols(gold, answer)
    golds, status = _parse_gold(gold, timeout_s)
    if status == "ok":
        answers, status = _parse(rf"\boxed{{{answer}}}", timeout_s)
    if status != "ok" or not golds or not answers:
        return False, status
    same, status = _guarded(lambda: _agree(golds, answers), timeout_s)
    return bool(same), status


def _agree(golds: tuple[Any, ...], answers: tuple[Any, ...]) -> bool:
    from curiosft_cli.grading import equivalence

    if (same := equivalence.same_number(golds[0], answers[0])) is not None:
        return same
    limits = {"float_rounding": 6, "numeric_precision": 15, "timeout_seconds": None}
    verify = partial(_library()[0].verify, strict=True, allow_set_relation_comp=False, raise_on_error=True, **limits)
    return verify(list(golds), list(answers)) or equivalence.same_expression(golds[0], answers[0])


def same_condition(
    gold: str, answer: str, timeout_s: float = LIBRARY_TIMEOUT_S, *, most: int = 20
) -> tuple[bool, GradeStatus]:
    """Compare two conditions, or a condition with a set. One of more than `most` relations equals none."""
    from curiosft_cli.grading import equivalence

    def read(text: str) -> Any:
        return _parse_gold(text, timeout_s)[0]

    sides: list[Any] = []
    for text in _distinct_symbols(gold, answer):
        alternatives = condition(text)
        if sum(map(len, alternatives)) > most:
            return False, "ok"
        relations = [[(read(left), sign, read(right)) for left, sign, right in joined] for joined in alternatives]
        sides.append(relations or read(MEMBER.sub("", text, count=1)))
    same, status = _guarded(lambda: equivalence.same_condition(*sides), timeout_s)
    return bool(same), status


def can_parse(gold: str, timeout_s: float = LIBRARY_TIMEOUT_S) -> bool:
    """Say whether a normalised gold can be read in time, if only as a text to be met exactly."""
    readings, status = _parse_gold(_distinct_symbols(gold, "")[0], timeout_s)
    return status == "ok" and bool(readings)


def plain_score(completion: str, gold: str, timeout_s: float = LIBRARY_TIMEOUT_S) -> tuple[bool, GradeStatus]:
    """Score a whole completion by Math-Verify with its default configuration, as the official evaluation does."""
    library = _library()[0]

    def score() -> bool:
        readings = [
            library.parse(text, parsing_timeout=None, raise_on_error=True)
            for text in (rf"\boxed{{{gold}}}", completion)
        ]
        return library.verify(*readings, timeout_seconds=None, raise_on_error=True)

    same, status = _guarded(score, timeout_s)
    return bool(same), status


@lru_cache(maxsize=4096)
def _parse_gold(gold: str, timeout_s: float) -> tuple[tuple[Any, ...], GradeStatus]:
    return _parse(f"${gold}$", timeout_s)


def _parse(text: str, timeout_s: float) -> tuple[tuple[Any, ...], GradeStatus]:
    from sympy import Basic, nan, zoo

    library, targets = _library()
    readings, status = _guarded(
        lambda: library.parse(text, targets, parsing_timeout=None, raise_on_error=True), timeout_s
    )
    return tuple(r for r in readings or () if not (isinstance(r, Basic) and r.has(nan, zoo))), status


def _guarded(call: Callable[[], T], timeout_s: float) -> tuple[T | None, GradeStatus]:
    """Run the library for so many CPU seconds; its exceptions become a status."""
    if threading.current_thread() is not threading.main_thread():
        raise CurioError("a completion is graded outside the main thread, where it cannot be timed", "use GraderPool")
    previous = signal.signal(signal.SIGVTALRM, _raise_out_of_time)
    signal.setitimer(signal.ITIMER_VIRTUAL, timeout_s, _AGAIN_S)
    try:
        return call(), "ok"
    except _OutOfTime:
        return None, "timeout"
    except MemoryError:
        return None, "oom"
    except Exception:
        return None, "parse_error"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, previous)


class _OutOfTime(BaseException):
    """Not an Exception, so that the library cannot catch it; raised again in case a bare except did."""


def _raise_out_of_time(signum: int, frame: object) -> None:
    raise _OutOfTime


def _distinct_symbols(gold: str, answer: str) -> tuple[str, str]:
    """Rename what the library would confuse.

    It lower-cases every symbol, reads E, I and gamma as constants and `d x` as one symbol, and cannot read e with an
    index: these become Greek letters that occur on neither side. A derivative becomes a symbol, because the derivative
    of a symbol is zero to it, and i becomes the root of -1, because it takes i for a variable.
    """
    texts = [_spelled_symbols(text) for text in (gold, answer)]
    tokens = {token for text in texts for token in _TOKEN.findall(text)}
    lowered = {token.lower() for token in tokens}
    spare = (symbol for symbol in _SPARE_SYMBOLS.split() if symbol not in lowered)
    names = {
        t: f"{next(spare, t)} " for t in sorted(tokens) if t in _MISREAD or (t != t.lower() and t.lower() in tokens)
    }
    if r"\int" in tokens:
        names.pop("d", None)
    if "i" in tokens and not any(_INDEX_I.search(text) for text in texts):
        names["i"] = r"\sqrt{-1}"
    ours, theirs = (_TOKEN.sub(lambda token: names.get(token[0], token[0]), text) for text in texts)
    return ours, theirs


def _spelled_symbols(text: str) -> str:
    text = _INDEXED_E.sub(r"\\varrho ", _SUBSCRIPT_COMMAND.sub(r"_{\1}", text))
    return _DERIVATIVE.sub(_derivative_symbol, text)


def _derivative_symbol(match: re.Match[str]) -> str:
    """Name d^2v/dt^2 by the numbers of its letters."""
    return "D_{" + "".join(str(ord(c)) for c in f"{match[1] or 1}{match[2]}/{match[3]}") + "}"
