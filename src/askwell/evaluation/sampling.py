"""Draw a policy's replies at logged turns: fixed batches, appended as each is finished, resumed where it was cut.

A batch is so many turns in their order with all their samples, and its seed depends on the recipe's seed and its number
alone. So the file of a killed and repeated run ends with the bytes of an undisturbed one. Writes Reply records.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from askwell import jsonl
from askwell.errors import DataError
from askwell.records import Message, Reply

log = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 5.0


class Policy(Protocol):
    """Whatever replies to contexts, one batch at a time; the same batch and seed give the same replies.

    `samples` replies a context, one context's after another's. `messages_left_out` counts messages that did not fit
    its window.
    """

    messages_left_out: int

    def replies(
        self,
        contexts: Sequence[Sequence[Message]],
        *,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        seed: int,
        samples: int = 1,
    ) -> list[str]: ...


class Place(Protocol):
    """Where a reply is drawn: a turn, or any other context with an id."""

    id: str
    context: tuple[Message, ...]


class Drawing(NamedTuple):
    """How replies are drawn, as recipes say it."""

    input: Path
    samples: int
    temperature: float
    top_p: float
    max_new_tokens: int
    batch: int
    seed: int


class Unit(NamedTuple):
    """What is generated at once: all samples of one batch of turns."""

    turns: Sequence[Place]
    seed: int


def draw(turns: Sequence[Place], load: Callable[[], Policy], *, path: Path, how: Drawing) -> list[Reply]:
    """All replies, in the order of units; what `path` already holds is kept. `load` is called only if some are owed.

    Raises DataError where `path` holds replies of other turns: the input was made anew since.
    """
    planned = list(units(turns, how))
    expected = [(turn.id, sample) for turn in turns for sample in range(how.samples)]
    with jsonl.Appender(path, Reply) as file:
        replies = list(file.done)
        if [(reply.turn_id, reply.sample) for reply in replies] != expected[: len(replies)]:
            raise DataError(
                f"{path}: holds replies at other turns than those of {how.input}, which was made anew since; "
                f"delete {path.parent} and start again"
            )
        if len(replies) == len(expected):
            return replies
        policy = load()
        progress = Progress(done=len(replies), total=len(expected))
        end = 0
        for unit in planned:
            size = len(unit.turns) * how.samples
            end += size
            if end <= len(replies):
                continue
            # A kill in mid-write leaves part of a unit: it is drawn again as a whole, for one seed drives it all.
            owed = drawn(unit, policy, how)[size - (end - len(replies)) :]
            file.append(owed)
            replies += owed
            progress.at(len(replies))
    if policy.messages_left_out:
        log.warning("replies: %d messages were left out of contexts too long for the policy", policy.messages_left_out)
    return replies


def drawn(unit: Unit, policy: Policy, how: Drawing) -> list[Reply]:
    """The replies at the turns of the unit, sample by sample at each."""
    texts = policy.replies(
        [turn.context for turn in unit.turns],
        temperature=how.temperature,
        top_p=how.top_p,
        max_new_tokens=how.max_new_tokens,
        seed=unit.seed,
        samples=how.samples,
    )
    places = ((turn.id, sample) for turn in unit.turns for sample in range(how.samples))
    return [Reply(turn_id=id, sample=sample, text=text) for (id, sample), text in zip(places, texts, strict=True)]


def units(turns: Sequence[Place], how: Drawing) -> Iterator[Unit]:
    """The turns in batches, in their order: a policy sorts its batch by length itself."""
    for number, start in enumerate(range(0, len(turns), how.batch)):
        yield Unit(turns[start : start + how.batch], seed_of(how.seed, number))


def seed_of(seed: int, batch: int) -> int:
    """A seed of 32 bits for one unit; sums and products of the two would give some units the same."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{batch}".encode()).digest()[:4], "big")


class Progress:
    """A line on the log every few seconds: done, rate, remaining time."""

    def __init__(self, *, done: int, total: int) -> None:
        self._first, self._total = done, total
        self._started = self._last = time.monotonic()
        if done:
            log.info("replies: %d of %d were already there", done, total)

    def at(self, done: int) -> None:
        now = time.monotonic()
        if now - self._last < SECONDS_BETWEEN_LINES and done < self._total:
            return
        self._last = now
        rate = (done - self._first) / max(now - self._started, 1e-9)
        log.info("replies: %d of %d, %.1f/s, %.0f s remain", done, self._total, rate, (self._total - done) / rate)
