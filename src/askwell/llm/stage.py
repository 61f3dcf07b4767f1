"""Many items through an endpoint: each ends in one state, and what came of it is written in the order of the input.

Items are taken as the endpoint can serve them; what is done is spooled to the run directory at once, by number, so that
a run that was cut goes on with what is left, and memory does not grow with the input. A stage whose share of items
without a usable answer passes `max_unscored` is stopped as soon as that is certain enough.
"""

import asyncio
import gc
import json
import logging
import math
import sys
import time
from array import array
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from askwell.errors import EndpointError
from askwell.llm.client import Client, Failed

log = logging.getLogger(__name__)
T = TypeVar("T")
EVERY = 10.0
"""Seconds between lines of progress where there is no terminal."""
Z = 2.33
"""One-sided 99 %: so sure the share must be above the limit before a stage is stopped."""


class Outcome(NamedTuple):
    """What became of an item: `ok` with its value, or the class of its failure with the reason."""

    ordinal: int
    state: str
    value: Any


class Spool:
    """Outcomes by the number of their item, on disk as they come; a torn last line is cut off.

    What failed before is tried again, and of what is `ok` that of which `again` says so by its value.
    """

    def __init__(self, path: Path, again: Callable[[Any], bool] | None = None) -> None:
        self.path = path
        self._places = array("q")
        self.states: Counter[str] = Counter()
        self._file = path.open("a+b")
        self._file.seek(0)
        place = end = 0
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            place, end = end, end + len(line)
            ordinal, state, value = line.split(b"\t", 2)
            if state == b"ok" and not (again and again(json.loads(value))):
                self._note(int(ordinal), "ok", place)
        self._file.truncate(end)
        self._end = end

    def __contains__(self, ordinal: int) -> bool:
        return ordinal < len(self._places) and self._places[ordinal] >= 0

    def put(self, outcome: Outcome) -> None:
        """Add an outcome, which a kill of the process leaves there. Not synced: what is lost in a crash of the machine
        is made again from the stored answers."""
        line = f"{outcome.ordinal}\t{outcome.state}\t{json.dumps(outcome.value)}\n".encode()
        self._file.write(line)
        self._file.flush()
        self._note(outcome.ordinal, outcome.state, self._end)
        self._end += len(line)

    def _note(self, ordinal: int, state: str, place: int) -> None:
        if ordinal >= len(self._places):
            self._places.extend([-1] * max(ordinal + 1 - len(self._places), len(self._places)))
        self._places[ordinal] = place
        self.states[state] += 1

    def in_order(self) -> Iterator[Outcome]:
        """All outcomes, by number."""
        for ordinal, place in enumerate(self._places):
            if place >= 0:
                self._file.seek(place)
                _, state, value = self._file.readline().split(b"\t", 2)
                yield Outcome(ordinal, state.decode(), json.loads(value))

    def close(self) -> None:
        self._file.close()


async def each(
    items: Iterable[T],
    work: Callable[[T], Awaitable[Any]],
    client: Client,
    spool: Spool,
    *,
    total: int | None = None,
    noun: str = "items",
    at_once: int | None = None,
) -> dict[str, int]:
    """`work` on every item that is not spooled yet, at most `at_once` of them side by side (unset: somewhat more than
    the endpoint has slots, for items of one call); returns the number of items by state.

    `work` returns what JSON can hold, or raises Failed. Raises EndpointError where the endpoint is lost for good, the
    budget is used up, or too many items have no usable answer.
    """
    gc.freeze()  # what is there now stays: the collector need not go through it while calls come and go
    waiting = ((ordinal, item) for ordinal, item in enumerate(items) if ordinal not in spool)
    progress = Progress(client, spool, total, noun)

    async def worker() -> None:
        for ordinal, item in waiting:
            try:
                outcome = Outcome(ordinal, "ok", await work(item))
            except Failed as failed:
                reason = {"detail": failed.detail, "text": failed.text}
                outcome = Outcome(ordinal, failed.kind, reason)
            spool.put(outcome)
            check_share(spool.states, client.endpoint.max_unscored, noun, final=False)

    async with client:
        # A few more than there are slots, so that claims are written while all slots are in use.
        workers = [asyncio.create_task(worker()) for _ in range(at_once or client.endpoint.concurrency * 2)]
        showing = asyncio.create_task(progress.show())
        try:
            await asyncio.gather(*workers)
        finally:
            for task in (*workers, showing):
                task.cancel()
            await asyncio.gather(*workers, showing, return_exceptions=True)
            progress.end()
    states = spool.states
    log.info("%s", reconciled(states, noun))
    if states["over_budget"]:
        raise EndpointError(
            f"the budget of the recipe is used up with {states['over_budget']} of {states.total()} {noun} left; raise "
            "its cap and repeat the command: what is answered is stored and costs nothing again"
        )
    check_share(states, client.endpoint.max_unscored, noun, final=True)
    return dict(sorted(states.items()))


def check_share(
    states: Counter[str], most: float, noun: str, *, final: bool, endpoint: str = "endpoint", spooled: bool = True
) -> None:
    """Raise EndpointError where more than `most` of the items have no usable answer: at the end by their share, before
    it by the lower end of its interval (Wilson, one-sided 99 %).

    `endpoint` is what the recipe calls it, `spooled` whether a spool has what was answered.
    """
    failed = states.total() - states["ok"] - states["over_budget"]
    if not failed or failed + states["ok"] < (1 if final else 20):
        return
    share, count = failed / (failed + states["ok"]), failed + states["ok"]
    sure = share if final else lower(share, count)
    if sure <= most:
        return
    kinds = ", ".join(f"{kind} ({times})" for kind, times in states.most_common() if kind not in ("ok", "over_budget"))
    raise EndpointError(
        f"{failed} of {count} {noun} have no usable answer ({share:.0%}), above --{endpoint}.max_unscored {most:.0%}: "
        f"{kinds}; {'read them in spool.jsonl of the run directory, and ' if spooled else ''}mend the prompt, the "
        "model or its max_tokens"
    )


def lower(share: float, count: int, z: float = Z) -> float:
    """Lower end of Wilson's interval of a share."""
    middle = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return (middle - spread) / (1 + z * z / count)


def reconciled(states: Counter[str], noun: str) -> str:
    """`items in 1301 = ok 1290 + failed(length) 6 + ...`: every item in one state."""
    kinds = [f"ok {states['ok']}"]
    kinds += [f"failed({kind}) {times}" for kind, times in states.most_common() if kind not in ("ok", "over_budget")]
    kinds += [f"over_budget {states['over_budget']}"] if states["over_budget"] else []
    return f"{noun} in {states.total()} = {' + '.join(kinds)}"


class Progress:
    """One live line on a terminal, plain lines elsewhere."""

    def __init__(self, client: Client, spool: Spool, total: int | None, noun: str) -> None:
        self.client, self.spool, self.total, self.noun = client, spool, total, noun
        self.began, self.before = time.monotonic(), spool.states.total()
        self.live = sys.stderr.isatty()

    async def show(self) -> None:
        while True:
            await asyncio.sleep(0.5 if self.live else EVERY)
            if self.live:
                print(f"\r\x1b[K{self.line()}", end="", file=sys.stderr, flush=True)
            else:
                log.info("%s", self.line())

    def end(self) -> None:
        if self.live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        log.info("%s", self.line())

    def line(self) -> str:
        """Done, rate, in flight, failures, cost, remaining time."""
        states, client = self.spool.states, self.client
        done = states.total()
        rate = (done - self.before) / max(1e-9, time.monotonic() - self.began)
        of = f" of {self.total}" if self.total else ""
        parts = [f"{done}{of} {self.noun}", f"{rate:.1f}/s", f"{client.pace.in_flight} in flight"]
        if failed := done - states["ok"]:
            parts.append(f"{failed} failed")
        if retried := sum(times for kind, times in client.ledger.items() if kind.startswith("failed: ")):
            parts.append(f"{retried} attempts failed")
        if client.budget.spent[2]:
            parts.append(f"cost {client.budget.spent[2] / 1e6:.4f}")
        if self.total and rate:
            parts.append(f"{(self.total - done) / rate:.0f} s left")
        return ", ".join(parts)
