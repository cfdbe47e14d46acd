"""Math-Verify behind two functions: the only place that imports it, on first use.

It works only in the main thread (its timeouts are alarms), and it is not symmetric: the gold comes first.
"""

from __future__ import annotations

import logging
import math
import re
import signal
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

from curiosft_cli.run.errors import CurioError
from curiosft_cli.tasks.records import GradeStatus

T = TypeVar("T")

LIBRARY_TIMEOUT_S = 3.0

_TOKEN = re.compile(r"\\(?:begin|end|text|mathrm|mathbb|mathcal|operatorname|mbox)\s*\{[^{}]*\}|\\[A-Za-z]+|[A-Za-z]")
_SUBSCRIPT_COMMAND = re.compile(r"_\{?\\(max|min|odot|oplus|infty)(?![A-Za-z])\s*\}?")
_SYMBOL = r"(?:[A-Za-z]|\\(?!frac|d?frac)[A-Za-z]+)(?:_(?:\w|\{\w+\}))?"
_DERIVATIVE = re.compile(
    rf"\\frac\{{\s*d(?:\^\{{?(\d)\}}?)?\s*({_SYMBOL})(?:\([a-z]\))?\s*\}}\{{\s*d\s*({_SYMBOL})(?(1)\^\{{?\1\}}?)\s*\}}"
)
_SPARE_SYMBOLS = ("\\xi", "\\chi", "\\upsilon", "\\kappa", "\\zeta", "\\eta", "\\iota", "\\nu", "\\psi", "\\tau")
_LIFT_BELOW = 1e-3
_LIFT_ZERO = 30


@lru_cache(maxsize=1)
def _library() -> Any:
    """Import Math-Verify (0.5 s) and fix what it looks for: LaTeX, with its own removal of units off.

    The library would take the `m` of `6m` for metres; and asked for bare expressions too, it reads a number out of
    LaTeX that it cannot parse. Returns (module, its timeout exception, extraction targets).
    """
    import math_verify
    import math_verify.errors
    import math_verify.utils
    from latex2sympy2_extended import NormalizationConfig

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    spelling = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all", equations=False
    )
    target = math_verify.LatexExtractionConfig(boxed_match_priority=0, normalization_config=spelling)
    return math_verify, math_verify.errors.TimeoutException, (target,)


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
    power = _lifting_power(gold, timeout_s)
    same, status = _guarded(
        lambda: _library()[0].verify(
            [_lifted(reading, power) for reading in golds],
            [_lifted(reading, power) for reading in answers],
            float_rounding=6,
            numeric_precision=15,
            strict=True,
            allow_set_relation_comp=False,
            timeout_seconds=math.ceil(timeout_s),
            raise_on_error=True,
        )
    )
    if not same and status == "ok" and (exact := _exact_pair(golds[0], answers[0])):
        timed = _library()[0].utils.timeout(math.ceil(timeout_s))
        same, status = _guarded(lambda: timed(_agree)(*exact))
    return bool(same), status


def can_parse(gold: str, timeout_s: float = LIBRARY_TIMEOUT_S) -> bool:
    """Say whether a normalised gold can be read in time, if only as a text to be met exactly."""
    readings, status = _parse_gold(_distinct_symbols(gold, "")[0], timeout_s)
    return status == "ok" and bool(readings)


def plain_score(completion: str, gold: str, timeout_s: float = LIBRARY_TIMEOUT_S) -> tuple[bool, GradeStatus]:
    """Score a whole completion by Math-Verify with its default configuration, as the official evaluation does."""
    library, seconds = _library()[0], math.ceil(timeout_s)

    def score() -> bool:
        readings = [
            library.parse(text, parsing_timeout=seconds, raise_on_error=True)
            for text in (rf"\boxed{{{gold}}}", completion)
        ]
        return library.verify(*readings, timeout_seconds=seconds, raise_on_error=True)

    same, status = _guarded(score)
    return bool(same), status


@lru_cache(maxsize=4096)
def _parse_gold(gold: str, timeout_s: float) -> tuple[tuple[Any, ...], GradeStatus]:
    return _parse(f"${gold}$", timeout_s)


def _parse(text: str, timeout_s: float) -> tuple[tuple[Any, ...], GradeStatus]:
    library, _, targets = _library()
    readings, status = _guarded(
        lambda: library.parse(text, targets, parsing_timeout=math.ceil(timeout_s), raise_on_error=True)
    )
    return tuple(readings or ()), status


def _guarded(call: Callable[[], T]) -> tuple[T | None, GradeStatus]:
    """Run the library: its exceptions become a status, and the caller's own alarm, which it cancels, is set again."""
    if threading.current_thread() is not threading.main_thread():
        raise CurioError(
            "a completion is graded outside the main thread, where Math-Verify cannot time itself", "use GraderPool"
        )
    remaining_s, interval_s = signal.getitimer(signal.ITIMER_REAL)
    try:
        return call(), "ok"
    except _library()[1]:
        return None, "timeout"
    except MemoryError:
        return None, "oom"
    except Exception:
        return None, "parse_error"
    finally:
        if remaining_s:
            signal.setitimer(signal.ITIMER_REAL, remaining_s, interval_s)


def _distinct_symbols(gold: str, answer: str) -> tuple[str, str]:
    """Rename what the library would confuse: it lower-cases every symbol, and reads E as Euler's number.

    A capital whose small letter occurs on either side, and every E and every e with an index, becomes a Greek letter
    that occurs on neither; a derivative becomes a symbol, because the derivative of a symbol is zero to the library.
    """
    texts = [_DERIVATIVE.sub(_derivative_symbol, _SUBSCRIPT_COMMAND.sub(r"_{\1}", text)) for text in (gold, answer)]
    tokens = {token for text in texts for token in _TOKEN.findall(text)}
    spare = (symbol for symbol in _SPARE_SYMBOLS if not tokens & {symbol, symbol[0] + symbol[1:].title()})
    names = {t: next(spare, t) for t in sorted(tokens) if t == "E" or (t != t.lower() and t.lower() in tokens)}
    if any(re.search(r"(?<![A-Za-z\\])e_", text) for text in texts):
        names["e_"] = next(spare, "e_") + "_"

    def rename(match: re.Match[str]) -> str:
        indexed = match[0] + match.string[match.end() : match.end() + 1]
        symbol = names.get(match[0]) or (names["e_"][:-1] if indexed == "e_" and "e_" in names else None)
        return f"{symbol} " if symbol else match[0]

    return _TOKEN.sub(rename, texts[0]), _TOKEN.sub(rename, texts[1])


def _exact_pair(gold: Any, answer: Any) -> tuple[Any, Any] | None:
    """Return the readings when the gold is a rational and the answer another exact number, else None."""
    from sympy import Expr, Float, Rational

    is_exact = isinstance(gold, Rational) and isinstance(answer, Expr) and not isinstance(answer, Rational)
    return (gold, answer) if is_exact and answer.is_number and not answer.has(Float) else None


def _agree(gold: Any, answer: Any, digits: int = 30) -> bool:
    """Compare by value to 30 digits, which the library does only where neither side is a plain number."""
    try:
        return abs(complex((answer - gold).evalf(digits, maxn=200))) < 10.0 ** (5 - digits)
    except (TypeError, ValueError, OverflowError):
        return False


def _derivative_symbol(match: re.Match[str]) -> str:
    """Name d^2v/dt^2 by the numbers of its letters."""
    return "D_{" + "".join(str(ord(c)) for c in f"{match[1] or 1}{match[2]}/{match[3]}") + "}"


@lru_cache(maxsize=4096)
def _lifting_power(gold: str, timeout_s: float) -> int:
    """Return the power of ten that lifts a tiny gold to about one, and what hides near a gold of zero into sight.

    The library rounds to six places and chops what is below 1e-15, so 4.6e-24 would equal 9.9e-24.
    """
    from sympy import Expr

    for reading in _parse_gold(gold, timeout_s)[0]:
        if isinstance(reading, Expr) and reading.is_number:
            size, _ = _guarded(lambda value=reading: abs(complex(value.evalf())))
            if size == 0:
                return _LIFT_ZERO
            return -math.floor(math.log10(size)) if size and size < _LIFT_BELOW else 0
    return 0


def _lifted(reading: Any, power: int) -> Any:
    from sympy import Expr, Integer

    return reading * Integer(10) ** power if power and isinstance(reading, Expr) else reading
