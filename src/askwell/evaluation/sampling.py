"""Draw a policy's replies at logged turns: fixed batches, appended as each is finished, resumed where it was cut.

Which turns share a batch depends on the turns and the batch size alone, and a batch's seed on the recipe's seed,
the batch's number and the sample. So the file of a killed and repeated run ends with the bytes of an undisturbed one.
Writes Reply records.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from askwell import jsonl
from askwell.errors import DataError
from askwell.recipes import EvaluateTurnsRecipe
from askwell.records import Message, Reply, Turn

log = logging.getLogger(__name__)
WINDOW = 16
"""Batches whose turns are sorted by length together: little padding, and an even pace from first to last."""
SECONDS_BETWEEN_LINES = 5.0


class Policy(Protocol):
    """Whatever replies to contexts, one batch at a time; the same batch and seed give the same replies.

    `messages_left_out` counts messages that did not fit its window.
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
    ) -> list[str]: ...


class Unit(NamedTuple):
    """What is generated at once: one sample of one batch of turns."""

    turns: Sequence[Turn]
    sample: int
    seed: int


def draw(turns: Sequence[Turn], load: Callable[[], Policy], *, path: Path, recipe: EvaluateTurnsRecipe) -> list[Reply]:
    """All replies, in the order of units; what `path` already holds is kept. `load` is called only if some are owed.

    Raises DataError where `path` holds replies of other turns: the input was made anew since.
    """
    planned = list(units(turns, recipe))
    expected = [(turn.id, unit.sample) for unit in planned for turn in unit.turns]
    with jsonl.Appender(path, Reply) as file:
        replies = list(file.done)
        if [(reply.turn_id, reply.sample) for reply in replies] != expected[: len(replies)]:
            raise DataError(
                f"{path}: holds replies at other turns than those of {recipe.input}, which was made anew since; "
                f"delete {path.parent} and start again"
            )
        if len(replies) == len(expected):
            return replies
        policy = load()
        progress = Progress(done=len(replies), total=len(expected))
        end = 0
        for unit in planned:
            end += len(unit.turns)
            if end <= len(replies):
                continue
            # A kill in mid-write leaves part of a unit: it is drawn again as a whole, for one seed drives it all.
            owed = drawn(unit, policy, recipe)[len(unit.turns) - (end - len(replies)) :]
            file.append(owed)
            replies += owed
            progress.at(len(replies))
    if policy.messages_left_out:
        log.warning("replies: %d messages were left out of contexts too long for the policy", policy.messages_left_out)
    return replies


def drawn(unit: Unit, policy: Policy, recipe: EvaluateTurnsRecipe) -> list[Reply]:
    """One reply a turn of the unit."""
    texts = policy.replies(
        [turn.context for turn in unit.turns],
        temperature=recipe.temperature,
        top_p=recipe.top_p,
        max_new_tokens=recipe.max_new_tokens,
        seed=unit.seed,
    )
    return [Reply(turn_id=turn.id, sample=unit.sample, text=text) for turn, text in zip(unit.turns, texts, strict=True)]


def units(turns: Sequence[Turn], recipe: EvaluateTurnsRecipe) -> Iterator[Unit]:
    """Every batch `samples` times."""
    for number, batch in enumerate(batches(turns, recipe.batch)):
        for sample in range(recipe.samples):
            yield Unit(batch, sample, seed_of(recipe.seed, number, sample))


def batches(turns: Sequence[Turn], size: int) -> Iterator[list[Turn]]:
    """Turns of like length together: sorted by the length of the context within windows of WINDOW batches."""
    for start in range(0, len(turns), WINDOW * size):
        window = sorted(turns[start : start + WINDOW * size], key=length)
        for first in range(0, len(window), size):
            yield window[first : first + size]


def length(turn: Turn) -> int:
    """Characters of the context."""
    return sum(len(message.content) for message in turn.context)


def seed_of(seed: int, batch: int, sample: int) -> int:
    """A seed of 32 bits for one unit; sums and products of the three would give some units the same."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{batch}/{sample}".encode()).digest()[:4], "big")


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
