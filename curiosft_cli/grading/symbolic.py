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
from typing import Any

from curiosft_cli.data.records import GradeStatus
from curiosft_cli.grading.parse import alternatives
from curiosft_cli.run.errors import CurioError

Comparison = tuple[bool, GradeStatus]

LIBRARY_TIMEOUT_S = 3.0

_SUBSCRIPT = r"(?:_\s*(?:\w|\\[A-Za-z]+|\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}))"
_SYMBOL = rf"(?:[A-Za-z]|\\(?!d?frac)[A-Za-z]+){_SUBSCRIPT}?"
_DERIVATIVE = re.compile(
    rf"\\frac\{{\s*d(?:\^\{{?(\d)\}}?)?\s*({_SYMBOL})(?:\([a-z]\))?\s*\}}\{{\s*d\s*({_SYMBOL})(?(1)\^\{{?\1\}}?)\s*\}}"
)
_TOKEN = re.compile(
    rf"\\(?:begin|end|text|math[a-z]+|operatorname|mbox|variable)\s*\{{[^{{}}]*\}}(?P<word>{_SUBSCRIPT})?"
    r"|(?<![A-Za-z])(?:and|or)(?![A-Za-z])"
    rf"|(?P<accent>\\(?:hat|vec|bar|d?dot|tilde|overline)\s*(?:\{{\w+\}}|[A-Za-z]){_SUBSCRIPT}?)"
    rf"|\\(?!log|lim|sum|prod|int|max|min|big)[A-Za-z]+(?P<greek>{_SUBSCRIPT})|\\[A-Za-z]+|[A-Za-z](?P<index>{_SUBSCRIPT})?"
)
_BOUND_I = re.compile(r"\\(?:sum|prod|big|cup|cap)")
_MISREAD = ("I", "d", "T", r"\gamma", r"\Gamma")
_AGAIN_S = 0.5


@lru_cache(maxsize=1)
def library() -> tuple[Any, Callable[[str], Any]]:
    """Import Math-Verify and its parser (0.5 s). Returns (the module, the reader of LaTeX).

    The parser's own removal of units is off: it would take the `m` of `6m` for metres. Math-Verify's `parse` is not
    used: it lower-cases every symbol, and its search for LaTeX in prose costs time.
    """
    import math_verify
    from latex2sympy2_extended import NormalizationConfig, latex2sympy
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig
    from math_verify.grader import should_treat_as_complex

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    spelling = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all", equations=False
    )
    convert = partial(
        latex2sympy, normalization_config=spelling, conversion_config=ConversionConfig(lowercase_symbols=False)
    )
    return math_verify, lambda text: convert(text, is_real=not should_treat_as_complex(text))


def equal(answer: str, gold: str, timeout_s: float = LIBRARY_TIMEOUT_S) -> Comparison:
    """Compare a normalised answer with a normalised gold as sympy objects, and say how the comparison went."""
    (theirs, status), (ours, our_status) = read(gold, timeout_s), read(answer, timeout_s)
    if theirs is None or ours is None:
        return False, status if status != "ok" else our_status
    same, status = _guarded(lambda: _agree(theirs, ours), timeout_s)
    return bool(same), status


def same_condition(answer: str, gold: str, timeout_s: float = LIBRARY_TIMEOUT_S) -> Comparison | None:
    """Compare two conditions, or a condition with a set. None when neither text is a condition."""
    is_condition = any(isinstance(read(text, timeout_s)[0], list) for text in (answer, gold) if alternatives(text))
    return equal(answer, gold, timeout_s) if is_condition else None


def _agree(gold: Any, answer: Any) -> bool:
    from curiosft_cli.grading import equivalence

    for same in (equivalence.same_condition, equivalence.same_number, equivalence.same_expression):
        if (verdict := same(gold, answer)) is not None:
            return verdict
    limits = {"float_rounding": 6, "numeric_precision": 15, "timeout_seconds": None}
    verify = partial(library()[0].verify, strict=True, allow_set_relation_comp=False, raise_on_error=True, **limits)
    return verify(gold, answer)


def plain_score(completion: str, gold: str, timeout_s: float = LIBRARY_TIMEOUT_S) -> tuple[bool, GradeStatus]:
    """Score a whole completion by Math-Verify with its default configuration, as the official evaluation does."""
    math_verify = library()[0]

    def score() -> bool:
        gold_reading, reading = (
            math_verify.parse(given, parsing_timeout=None, raise_on_error=True)
            for given in (rf"\boxed{{{gold}}}", completion)
        )
        return math_verify.verify(gold_reading, reading, timeout_seconds=None, raise_on_error=True)

    same, status = _guarded(score, timeout_s)
    return bool(same), status


@lru_cache(maxsize=8192)
def read(text: str, timeout_s: float) -> tuple[Any, GradeStatus]:
    """Return a normalised text as a sympy object or a condition, or None where it is none; and how the reading went."""
    from sympy import Basic, nan, zoo

    from curiosft_cli.grading import equivalence

    def parsed() -> Any:
        parts = [library()[1](_spelled(part)) for part in alternatives(text)]
        return equivalence.condition(parts) or library()[1](_spelled(text))

    reading, status = _guarded(parsed, timeout_s)
    is_undefined = isinstance(reading, Basic) and reading.has(nan, zoo)
    return None if is_undefined else reading, "ok" if status == "parse_error" else status


def _guarded(call: Callable[[], Any], timeout_s: float) -> tuple[Any, GradeStatus]:
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


def _spelled(text: str) -> str:
    """Name what the parser would confuse: `\\variable{NAME}` is a symbol to it, whatever the name.

    It reads I and gamma as constants, `^T` as nothing, `d x` as one symbol, the derivative of a symbol as zero, and no
    index of e, E or gamma. It takes i for a variable: outside of sums that is the root of -1.
    """
    text = _DERIVATIVE.sub(lambda m: rf"\variable{{D{m[1] or 1}{_plain(m[2])}by{_plain(m[3])}}}", text)
    is_integral, is_bound = r"\int" in text, _BOUND_I.search(text) is not None

    def spelled(token: re.Match[str]) -> str:
        if any(token.groups()) or (token[0] in _MISREAD and not (is_integral and token[0] == "d")):
            return rf"\variable{{{_plain(token[0])}}}"
        return r"\sqrt{-1}" if token[0] == "i" and not is_bound else token[0]

    return _TOKEN.sub(spelled, text)


def _plain(symbol: str) -> str:
    symbol = symbol.replace("-", "minus").replace("+", "plus")
    return re.sub(r"\\(?:text|mathrm|rm)(?![A-Za-z])|[^A-Za-z0-9]", "", symbol)
