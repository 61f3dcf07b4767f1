"""Which sequences make up which optimizer step: a pure function of lengths, batch and seed. No torch, no I/O.

Sequences of like length share a batch, so that little is padding. The last batch of an epoch is filled up with
blanks, which carry no loss: every sequence is used once an epoch, whatever the number of processes.
"""

import random
from collections.abc import Sequence

from askwell.errors import RecipeError

BLANK = -1
POOL = 50
"""Batches that are drawn together and sorted by length; more means less padding and less chance."""


def steps_per_epoch(rows: int, *, batch: int) -> int:
    """Optimizer steps in one pass over the data."""
    return -(-rows // batch)


def total_steps(rows: int, *, batch: int, epochs: float) -> int:
    """Optimizer steps of the whole training, at least one."""
    return max(1, round(epochs * steps_per_epoch(rows, batch=batch)))


def order(lengths: Sequence[int], *, batch: int, steps: int, seed: int) -> list[int]:
    """Row numbers in the order of training, `batch` for each step, BLANK where an epoch's last batch is not full."""
    rows: list[int] = []
    epoch = 0
    while len(rows) < steps * batch:
        for group in epoch_batches(lengths, batch=batch, seed=seed, epoch=epoch):
            rows += group
        epoch += 1
    return rows[: steps * batch]


def epoch_batches(lengths: Sequence[int], *, batch: int, seed: int, epoch: int) -> list[list[int]]:
    """The batches of one epoch: shuffled, sorted by length within pools of batches, the batches shuffled again."""
    draw = random.Random(f"{seed}/{epoch}")
    shuffled = list(range(len(lengths)))
    draw.shuffle(shuffled)
    groups: list[list[int]] = []
    for start in range(0, len(shuffled), POOL * batch):
        pool = sorted(shuffled[start : start + POOL * batch], key=lambda row: lengths[row], reverse=True)
        groups += [pool[at : at + batch] for at in range(0, len(pool), batch)]
    draw.shuffle(groups)
    return [group + [BLANK] * (batch - len(group)) for group in groups]


def micro_batch(batch: int, *, at_most: int, processes: int, name: str = "batch") -> int:
    """Sequences a forward pass on each process: the largest divisor of its share of the batch up to `at_most`. `name`:
    where the batch comes from, for the refusal of one that cannot be shared."""
    share, rest = divmod(batch, processes)
    if rest:
        raise RecipeError(
            f"{name} {batch} cannot be shared by {processes} processes; make it a multiple of {processes}"
        )
    return max(size for size in range(1, min(share, at_most) + 1) if share % size == 0)


def padding(rows: Sequence[int], lengths: Sequence[int], *, micro: int) -> float:
    """Share of padding among the tokens that the model computes, in [0, 1)."""
    real = padded = 0
    for start in range(0, len(rows), micro):
        group = [lengths[row] if row != BLANK else 1 for row in rows[start : start + micro]]
        real += sum(lengths[row] for row in rows[start : start + micro] if row != BLANK)
        padded += max(group) * len(group)
    return 1 - real / padded if padded else 0.0
