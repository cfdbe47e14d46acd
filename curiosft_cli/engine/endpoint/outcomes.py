"""What comes back from one question to a chat endpoint: an answer, a fault that may pass, or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple


class Spent(NamedTuple):
    """Tokens that the endpoint counts and bills."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def plus(self, other: Spent) -> Spent:
        """Both together."""
        return Spent(self.prompt_tokens + other.prompt_tokens, self.completion_tokens + other.completion_tokens)


NOTHING = Spent()


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        text: what the model wrote.
        truncated: it was cut at its token limit, also at the larger one.
        prompt_tokens: of all its tries, as the endpoint counts.
        completion_tokens: of all its tries, as the endpoint counts.
        tries: requests that it took.
        seconds: duration of the request that succeeded, in seconds.
        served_by: what the endpoint says that the model is, "" where it does not say; the requested name may be a
            moving one.
    """

    text: str
    truncated: bool
    prompt_tokens: int
    completion_tokens: int
    tries: int
    seconds: float
    served_by: str = ""


class QuestionFailed(Exception):
    """One question got no answer; the message says why. The others go on.

    Args:
        message: why.
        tries: requests that it took.
        spent: what they cost all the same.
        may_pass: it was not refused: asked later, it may be answered.
    """

    def __init__(self, message: str, *, tries: int = 1, spent: Spent = NOTHING, may_pass: bool = False) -> None:
        super().__init__(message)
        self.may_pass = may_pass
        self.tries = tries
        self.spent = spent


class Fault(Exception):
    """One try failed in a way that may pass.

    Args:
        kind: its name in the counts, e.g. "429".
        detail: what happened.
        retry_after_s: the wait that the endpoint asks for, in seconds.
        overload: fewer requests at once may help.
        alive: the endpoint did answer, so the fault is the question's.
        unreachable: no connection could be made.
        spent: what it cost all the same.
    """

    def __init__(
        self,
        kind: str,
        detail: str,
        *,
        retry_after_s: float = 0.0,
        overload: bool = False,
        alive: bool = False,
        unreachable: bool = False,
        spent: Spent = NOTHING,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.retry_after_s = retry_after_s
        self.overload = overload
        self.alive = alive
        self.unreachable = unreachable
        self.spent = spent


def spent_on(response: object) -> Spent:
    """The tokens that a response says it cost; none where it does not say."""
    usage = response.get("usage") if isinstance(response, Mapping) else None
    if not isinstance(usage, Mapping):
        return NOTHING
    return Spent(_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")))


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0
