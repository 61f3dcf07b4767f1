"""How many calls are in flight, how long one may take, and when to stop asking an endpoint that is down.

Everything takes its time from the running loop, so that tests can run it on a clock of their own.
"""

import asyncio
import random
from bisect import insort
from collections import deque

from askwell.errors import EndpointError

FIRST = 32
"""Calls in flight at the start."""
SLICE = 0.25
"""Seconds at least over which the limit stands before it is looked at again."""
RETRIES = 0.2
"""Share of the slots that retries may take while first attempts wait."""


class Pace:
    """Slots for calls in flight, as many as `limit`, which rises slowly and falls when the endpoint is overrun.

    In each slice of time: more than one response in twenty throttled takes three tenths off, unless fewer calls were
    seen not to be throttled less; a median latency that has doubled while throughput has not risen takes a tenth off;
    otherwise, if all slots were in use, it doubles until the first such sign and rises by a tenth from then on.
    """

    def __init__(self, most: int, *, first: int = FIRST, slice: float = SLICE) -> None:
        self.most, self.limit, self.slice = most, min(first, most), slice
        self.in_flight = self.retrying = 0
        self._fresh: deque[asyncio.Future[None]] = deque()
        self._again: deque[asyncio.Future[None]] = deque()
        self._doubling = True
        self._latencies: list[float] = []
        self._throttled = 0
        self._full = False
        self._began: float | None = None
        self._best = float("inf")
        self._rate = 0.0
        self._lowered: float | None = None
        self._inherent = 0.0

    async def acquire(self, *, retry: bool) -> None:
        """Wait for a slot; a retry lets first attempts pass while it would take more than its share."""
        queue = self._again if retry else self._fresh
        if not queue and self._free(retry):
            self._take(retry)
            return
        self._full = True
        granted = asyncio.get_running_loop().create_future()
        queue.append(granted)
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self.release(retry=retry)
            raise

    def release(self, *, retry: bool) -> None:
        """Give a slot back."""
        self.in_flight -= 1
        self.retrying -= retry
        self._grant()

    def _free(self, retry: bool) -> bool:
        return self.in_flight < self.limit and (
            not retry or not self._fresh or self.retrying < max(1, RETRIES * self.limit)
        )

    def _take(self, retry: bool) -> None:
        self.in_flight += 1
        self.retrying += retry

    def _grant(self) -> None:
        for queue, retry in ((self._again, True), (self._fresh, False)):
            while queue and self._free(retry):
                granted = queue.popleft()
                if not granted.done():
                    self._take(retry)
                    granted.set_result(None)

    def heard(self, latency: float | None, *, throttled: bool = False) -> None:
        """A response came: its latency in seconds (None: it says nothing about speed), or that we ask too fast."""
        now = asyncio.get_running_loop().time()
        self._began = now if self._began is None else self._began
        self._throttled += throttled
        if latency is not None:
            insort(self._latencies, latency)
        elapsed, count = now - self._began, len(self._latencies)
        median = self._latencies[count // 2] if count else 0.0
        if elapsed >= max(self.slice, median):
            self._adjust(median, count / elapsed, self._throttled / (count + self._throttled or 1))
            self._latencies, self._throttled, self._full, self._began = [], 0, False, now
            self._grant()

    def _adjust(self, median: float, rate: float, throttled: float) -> None:
        if self._lowered is not None and throttled > 0.8 * self._lowered:
            self._inherent = throttled  # asking less did not help: it is not our doing
        self._inherent = min(self._inherent, throttled)
        self._lowered = None
        if throttled > 0.05 + 1.5 * self._inherent:
            self.limit = max(1, int(self.limit * 0.7))
            self._doubling = False
            self._lowered = throttled
        elif self._full and median > 2 * self._best and rate < 1.1 * self._rate:
            self.limit = max(1, int(self.limit * 0.9))
            self._doubling = False
            if self.limit <= FIRST // 4:
                self._best = median  # slow with few calls, too: it has become slower, and not for our sake
        elif self._full:
            self.limit = min(self.most, 2 * self.limit if self._doubling else self.limit + max(1, self.limit // 10))
        if median:
            self._best = min(self._best, median)
        self._rate = rate


class Timeouts:
    """How long an attempt may take: four times the 99th percentile seen for calls of its length, at least `floor`.

    Until fifty were seen, and never more than, `longest`. Seconds.
    """

    def __init__(self, longest: float, *, floor: float = 30.0) -> None:
        self.longest, self.floor = longest, min(floor, longest)
        self._seen: dict[int, deque[float]] = {}

    def saw(self, length: int, latency: float) -> None:
        """An attempt at a call of `length` tokens at most took so long."""
        self._seen.setdefault(length.bit_length(), deque(maxlen=1000)).append(latency)

    def limits(self) -> dict[int, float]:
        """Seconds by the bits of the length; what is not in it has `longest`."""
        return {
            bits: min(self.longest, max(self.floor, 4 * sorted(seen)[int(0.99 * len(seen))]))
            for bits, seen in self._seen.items()
            if len(seen) >= 50
        }


class Breaker:
    """Stops the traffic to an endpoint that fails every call, lets one call try after a pause, and gives up in the end.

    `patience`: seconds without one good response after which the run ends.
    """

    def __init__(self, patience: float, *, after: int = 30, pause: float = 1.0) -> None:
        self.patience, self.after, self.first_pause = patience, after, pause
        self.answered = False
        self._failures = 0
        self._pause = pause
        self._good: float | None = None
        self._down = self._turn = False
        self._changed = asyncio.Event()

    async def ready(self) -> None:
        """Wait while the endpoint is down; after each pause one caller goes through to try it."""
        if self._good is None:
            self._good = asyncio.get_running_loop().time()
        while self._down and not self._turn:
            await self._changed.wait()
        self._turn = False

    def good(self) -> None:
        """The endpoint answered, whatever it said."""
        self.answered, self._down = True, False
        self._failures, self._pause = 0, self.first_pause
        self._good = asyncio.get_running_loop().time()
        self._wake()

    def bad(self, what: str) -> None:
        """An attempt failed. Raises EndpointError where patience has run out."""
        loop = asyncio.get_running_loop()
        self._failures += 1
        silent = loop.time() - (self._good or loop.time())
        if silent > self.patience:
            raise EndpointError(
                f"the endpoint gave no answer for {silent:.0f} s, above --endpoint.patience {self.patience:.0f}; the "
                f"last of {self._failures} failures: {what}; what was received is stored: the same command goes on "
                "where this one was cut"
            )
        if self._failures >= self.after and not self._down:
            self._down = True
            loop.call_later(self._pause, self._try_one)

    def _try_one(self) -> None:
        if self._down:
            self._turn = True
            self._wake()
            self._pause = min(60.0, 2 * self._pause)
            asyncio.get_running_loop().call_later(self._pause, self._try_one)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def backoff(attempt: int, asked: float, *, base: float = 0.5, draw: random.Random) -> float:
    """Seconds before attempt number `attempt` + 1: what the endpoint asks for, at least; doubling from `base` to 32."""
    return max(asked, draw.uniform(0.5, 1.0) * base * 2 ** min(attempt - 1, 5))
