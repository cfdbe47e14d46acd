"""Prices of tokens, and the budget of a run in requests and US dollars."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from curiosft_cli.engine.endpoint.outcomes import Spent
from curiosft_cli.engine.endpoint.transport import is_loopback
from curiosft_cli.run.errors import GUARD, CurioError

if TYPE_CHECKING:
    from curiosft_cli.run.sections import Rephrase

MILLION = 1e6
CHARACTERS_PER_TOKEN = 3.0  # fewer than mathematics in English has, so that an estimate is rather too high


@dataclass(frozen=True)
class Price:
    """US dollars per million tokens, and where they come from.

    Discounts for cached prompts and quiet hours are left out, so that costs are upper bounds.
    """

    input_usd: float
    output_usd: float
    origin: str = "as configured"

    def of(self, prompt_tokens: float, completion_tokens: float) -> float:
        """The cost of these tokens, in US dollars."""
        return (prompt_tokens * self.input_usd + completion_tokens * self.output_usd) / MILLION


FREE = Price(0.0, 0.0, "a server on this machine")
# They change: rephrase.input_usd_per_million and output_usd_per_million go first.
LISTED = "list price of September 2025"
PRICES = {
    "deepseek-chat": Price(0.56, 1.68, LISTED),
    "deepseek-reasoner": Price(0.56, 1.68, LISTED),
    "gpt-4o": Price(2.50, 10.00, LISTED),
    "gpt-4o-mini": Price(0.15, 0.60, LISTED),
    "gpt-4.1-mini": Price(0.40, 1.60, LISTED),
}


def price_of(settings: Rephrase) -> Price | None:
    """The configured prices, else the table's; a server on this machine is free; None when the price is unknown.

    Raises:
        CurioError: one of the two prices is missing, or there is a budget but no price.
    """
    own = settings.base_url == "local" or is_loopback(urlsplit(settings.base_url).hostname or "")
    listed = FREE if own else PRICES.get(settings.model)
    paid_in, paid_out = settings.input_usd_per_million, settings.output_usd_per_million
    if listed is not None and paid_in is None and paid_out is None:
        return listed
    if listed is not None:
        paid_in = listed.input_usd if paid_in is None else paid_in
        paid_out = listed.output_usd if paid_out is None else paid_out
    if paid_in is not None and paid_out is not None:
        return Price(paid_in, paid_out)
    if settings.budget_usd is not None or paid_in is not None or paid_out is not None:
        raise CurioError(
            f"the price of '{settings.model}' is not known",
            "Set rephrase.input_usd_per_million and rephrase.output_usd_per_million.",
        )
    return None


class OutOfBudget(CurioError):
    """The next request would go beyond what the run may spend; exit code 4."""


class Budget:
    """Counts requests and US dollars; no request starts whose expected cost goes beyond what is left.

    The expected cost of requests in flight is set aside. So only answers much longer than expected exceed the limit.

    Args:
        price: None counts requests only.
        usd: limit in US dollars, over all runs of this stage.
        requests: limit of requests, over all runs of this stage.
        spent_usd: spent before.
        sent: requests sent before.
    """

    def __init__(
        self,
        price: Price | None = None,
        *,
        usd: float | None = None,
        requests: int | None = None,
        spent_usd: float = 0.0,
        sent: int = 0,
    ) -> None:
        self._price, self._usd, self._requests = price, usd, requests
        self._reserved_usd = 0.0
        self.spent_usd = spent_usd
        self.sent = sent

    def reserve(self, prompt_characters: int, answer_characters: int) -> float:
        """Set aside the expected cost of a request, in US dollars, until `settle`.

        Raises:
            OutOfBudget: the budget does not pay for it.
        """
        if self._requests is not None and self.sent >= self._requests:
            raise OutOfBudget(
                f"{self.sent} requests were sent, as many as rephrase.max_requests allows",
                "Finished answers are kept; raise it, and the same command continues.",
                GUARD,
            )
        expected = self.cost(
            Spent(int(prompt_characters / CHARACTERS_PER_TOKEN), int(answer_characters / CHARACTERS_PER_TOKEN))
        )
        if self._usd is not None and self.spent_usd + self._reserved_usd + expected > self._usd:
            raise OutOfBudget(
                f"${self.spent_usd:.4f} of rephrase.budget_usd = {self._usd:g} are spent and the rest does not pay for "
                "another request",
                "Finished answers are kept; raise it, and the same command continues.",
                GUARD,
            )
        self.sent += 1
        self._reserved_usd += expected
        return expected

    def settle(self, reserved_usd: float, spent: Spent) -> None:
        """Replace the amount set aside for a request by its cost."""
        self._reserved_usd -= reserved_usd
        self.spent_usd += self.cost(spent)

    def cost(self, spent: Spent) -> float:
        """The cost of these tokens, in US dollars; 0 without a price."""
        return self._price.of(spent.prompt_tokens, spent.completion_tokens) if self._price else 0.0
