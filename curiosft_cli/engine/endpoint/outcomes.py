"""What becomes of one request to an endpoint: a reply, a fault that may pass, or a failure of this request alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Spent(NamedTuple):
    """Tokens that the endpoint counts and bills, and the requests that were sent for them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    tries: int = 0

    def plus(self, other: Spent) -> Spent:
        """Both together."""
        return Spent(*(one + two for one, two in zip(self, other, strict=True)))


NOTHING = Spent()


class Reply(NamedTuple, Generic[T]):
    """What was read from a response, what all its tries spent, and the duration of the last one in seconds."""

    value: T
    spent: Spent
    seconds: float


@dataclass(eq=False)
class RequestFailed(Exception):
    """One request failed; the others go on.

    Attributes:
        message: why.
        spent: in all its tries.
        may_pass: the endpoint did not refuse it: a later run may succeed.
    """

    message: str
    spent: Spent = NOTHING
    may_pass: bool = False

    def __str__(self) -> str:
        return self.message


@dataclass(eq=False)
class Fault(Exception):
    """One try failed in a way that may pass.

    Attributes:
        kind: its name in the counts, e.g. "429".
        detail: what happened.
        retry_after_s: the wait that the endpoint demands, in seconds.
        overload: fewer requests at once may help.
        alive: the endpoint did respond, so the fault belongs to this request.
        unreachable: no connection could be made.
        spent: in this try.
    """

    kind: str
    detail: str
    retry_after_s: float = 0.0
    overload: bool = False
    alive: bool = False
    unreachable: bool = False
    spent: Spent = NOTHING

    def __str__(self) -> str:
        return self.detail


def spent_on(response: object) -> Spent:
    """One try, with the tokens that the response reports; none where it reports none."""
    usage = response.get("usage") if isinstance(response, Mapping) else None
    if not isinstance(usage, Mapping):
        usage = {}
    return Spent(_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")), tries=1)


def first_choice(response: object) -> Mapping[str, Any]:
    """The first of a response's choices.

    Raises:
        Fault: there is none.
    """
    choices = response.get("choices") if isinstance(response, Mapping) else None
    if not choices:
        raise Fault("empty", "a response without a choice", alive=True)
    return choices[0]


def _count(value: Any, limit: int = 2**63) -> int:
    return value if isinstance(value, int) and 0 < value < limit else 0
