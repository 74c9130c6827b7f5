"""What may be spent: a limit in tokens or in money, of which requests under way hold their upper bound."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from recfound_data.errors import UsageError

_MILLION = 1_000_000


@dataclass(frozen=True)
class Spending:
    """What may be spent, and what a token costs.

    Attributes:
        tokens: most tokens, prompts and answers together; None sets no limit.
        amount: most money, in the currency of the prices; None sets no limit.
        price_in: of a million tokens of prompts.
        price_out: of a million tokens of answers.
    """

    tokens: int | None = None
    amount: float | None = None
    price_in: float | None = None
    price_out: float | None = None

    def __post_init__(self) -> None:
        if (self.price_in is None) != (self.price_out is None):
            raise UsageError("--price-in and --price-out belong together: name both, per million tokens")
        if self.amount is not None and self.price_in is None:
            raise UsageError("--budget needs --price-in and --price-out; --budget-tokens needs no prices")
        if self.amount is not None and self.tokens is not None:
            raise UsageError("name --budget or --budget-tokens, not both")
        values = (self.tokens, self.amount, self.price_in, self.price_out)
        if any(value is not None and not 0 <= value < float("inf") for value in values):
            raise UsageError("budgets and prices are numbers from 0 up")

    def cost(self, tokens_in: int, tokens_out: int) -> float | None:
        """Return what tokens cost; None where no price was named."""
        if self.price_in is None or self.price_out is None:
            return None
        return (tokens_in * self.price_in + tokens_out * self.price_out) / _MILLION

    def counted(self, tokens_in: int, tokens_out: int) -> float:
        """Return how much of the limit tokens take."""
        cost = self.cost(tokens_in, tokens_out)
        return cost if self.amount is not None and cost is not None else tokens_in + tokens_out

    @property
    def limit(self) -> float | None:
        """The limit, in what `counted` counts."""
        return self.amount if self.amount is not None else self.tokens


class Budget:
    """Keeps what was spent, with what is under way, below the limit."""

    def __init__(self, spending: Spending, spent: float) -> None:
        self._spending, self._spent, self._held = spending, spent, 0.0
        self._closed = False
        self._changed = threading.Condition()

    def hold(self, tokens_in: int, tokens_out: int) -> bool:
        """Set the upper bound of a request aside; return whether it can be afforded.

        While others are under way, which may cost less than their bounds, this waits for them: so requests that are
        begun in order are afforded in order.
        """
        amount, limit = self._spending.counted(tokens_in, tokens_out), self._spending.limit
        with self._changed:
            while limit is not None and self._spent + self._held + amount > limit:
                if self._closed or self._held <= 0 or self._spent + amount > limit:
                    return False
                self._changed.wait()
            self._held += amount
            return True

    def settle(self, held: tuple[int, int], used: tuple[int, int]) -> None:
        """Give back what a request held, in tokens, and count what it used."""
        with self._changed:
            self._held -= self._spending.counted(*held)
            if self._held < 1e-9:
                self._held = 0.0  # sums of prices do not cancel to the last bit
            self._spent += self._spending.counted(*used)
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody wait any more: the run is over."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
