"""What a run may spend: calls, tokens, money. Reserved before a call is sent, settled when it is answered.

    spent + reserved <= cap    at every moment

A call reserves what it may cost at most. Where the rest of the cap is held by calls in flight, the next one waits for
them, because most calls cost less than they reserve; it is refused when nothing in flight can free enough.
"""

import asyncio
from collections import deque

from askwell.llm.store import Spent
from askwell.recipes import Endpoint


class OverBudget(Exception):
    """The cap leaves no room for the call."""


class Budget:
    """Counts one run's calls, tokens and cost (in millionths of the prices' currency) against its caps."""

    def __init__(self, endpoint: Endpoint, before: Spent | None = None) -> None:
        caps, self.prices = endpoint.budget, endpoint.prices
        self.caps = (caps.calls, caps.tokens, None if caps.money is None else caps.money * 1e6)
        self.spent: list[float] = [*(before or (0, 0, 0.0))]
        self.reserved: list[float] = [0, 0, 0.0]
        self.in_flight = 0
        self._capped = any(cap is not None for cap in self.caps)
        self._waiting: deque[asyncio.Future[None]] = deque()

    def cost(self, prompt: int, completion: int) -> float:
        """Cost of so many tokens; prices are per million."""
        return prompt * self.prices.prompt + completion * self.prices.completion

    async def reserve(self, tokens: int, cost: float) -> None:
        """Take a call's worth out of what is left. Raises OverBudget."""
        while self._capped and not self.fits(tokens, cost):
            if not self.in_flight:
                raise OverBudget
            settled = asyncio.get_running_loop().create_future()
            self._waiting.append(settled)
            await settled
        self.in_flight += 1
        for place, amount in enumerate((1, tokens, cost)):
            self.reserved[place] += amount

    def fits(self, tokens: int, cost: float) -> bool:
        """Whether a call of that worth stays under every cap."""
        return all(
            cap is None or spent + reserved + amount <= cap
            for cap, spent, reserved, amount in zip(
                self.caps, self.spent, self.reserved, (1, tokens, cost), strict=True
            )
        )

    def settle(self, tokens: int, cost: float, used_tokens: int, used_cost: float, *, call: int = 1) -> None:
        """Give back what was reserved and note what was used; `call` 0: it was never sent."""
        self.in_flight -= 1
        for place, amount in enumerate((1, tokens, cost)):
            self.reserved[place] -= amount
        if not self.in_flight:
            self.reserved = [0, 0, 0.0]  # no trace of rounding
        for place, amount in enumerate((call, used_tokens, used_cost)):
            self.spent[place] += amount
        while self._waiting:
            settled = self._waiting.popleft()
            if not settled.done():
                settled.set_result(None)
