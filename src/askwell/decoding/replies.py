"""Replies drawn from a model, as token ids: what `generate` of `transformers` would say, in other batches. No files.

The replies of a group share the row of their context: at each step the row takes a token of each, and a mask shows
each reply its context and itself. A reply that ended leaves the batch at once.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from askwell import weights
from askwell.decoding.contexts import Batch, read
from askwell.errors import DataError


class Drawing(NamedTuple):
    """How replies are drawn."""

    temperature: float
    top_p: float
    max_new_tokens: int
    ends: Sequence[int]
    pad: int


def sample(
    model: Any,
    contexts: Sequence[Sequence[int]],
    *,
    group: int,
    temperature: float,
    top_p: float,
    max_new_tokens: int,
    ends: Sequence[int],
    pad: int,
    seed: int | Sequence[int],
) -> list[list[list[int]]]:
    """`group` replies a context, each with its end token where it reached one; greedy at temperature 0.

    A pure function of the arguments. Every reply has random numbers of its own: which contexts share a batch changes
    it by rounding alone. `seed`: one for all of them, or one a context, whose replies then do not depend on the
    others. The model is evaluated, without gradients, and left in its mode. Raises DataError for a model that cannot be
    used so, or that gives no probabilities.
    """
    how = Drawing(temperature, top_p, max_new_tokens, ends, pad)
    if isinstance(seed, int):
        chances = uniform((len(contexts), group, max_new_tokens), seed)
    else:
        chances = torch.stack([uniform((group, max_new_tokens), own) for own in seed])
    replies: list[list[list[int]]] = [[] for _ in contexts]
    with evaluated(model), torch.no_grad():
        for batch in read(model, [tuple(context) for context in contexts], group=group, spare=max_new_tokens):
            said = decoded(model, batch, chances[batch.places].flatten(0, 1), how)
            for number, place in enumerate(batch.places):
                replies[place] = said[number * group : (number + 1) * group]
    return replies


def uniform(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Random numbers in [0, 1) of a seed, whatever the global generator's state."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def decoded(model: Any, batch: Batch, chances: torch.Tensor, how: Drawing) -> list[list[int]]:
    """The replies of a batch; `chances` holds a random number for each token of each (N, max_new_tokens)."""
    device = batch.logits.device
    chances, ends = chances.to(device), torch.tensor(how.ends, device=device)
    said = torch.full(chances.shape, -1, device=device)
    # Which reply stands in each slot (R, S), -1 where one ended, and what it sees (R, S, width).
    numbers = torch.arange(len(chances), device=device).view(-1, batch.slots)
    seen = batch.seen[:, None].expand(-1, batch.slots, -1)
    positions = batch.seen.sum(1, keepdim=True)
    logits = batch.logits.repeat_interleave(batch.slots, 0)
    for step in range(how.max_new_tokens):
        live = numbers >= 0
        drawn = chosen(logits, chances[numbers[live], step], how)
        said[numbers[live], step] = drawn
        tokens = torch.full_like(numbers, how.pad).masked_scatter(live, drawn)
        numbers = numbers.masked_fill(torch.isin(tokens, ends), -1)
        rows, slots = closed_up(numbers >= 0)
        if not len(rows) or step + 1 == how.max_new_tokens:
            break
        numbers, tokens = numbers[rows].gather(1, slots), tokens[rows].gather(1, slots)
        seen, positions = seen[rows[:, None], slots], positions[rows]
        batch.cache.reorder_cache(rows)
        own = torch.eye(slots.shape[1], dtype=torch.bool, device=device).expand(len(rows), -1, -1)
        seen = torch.cat([seen, own], 2)
        with weights.head_only_at(model, numbers >= 0):
            out = model(
                input_ids=tokens,
                attention_mask=mask_of(seen, model) if batch.slots > 1 else seen[:, 0].long(),
                position_ids=(positions + step).expand_as(tokens),
                past_key_values=batch.cache,
                use_cache=True,
            )
        logits = out.logits[0].float()
    return [[token for token in reply if token >= 0] for reply in said.tolist()]


def chosen(logits: torch.Tensor, chances: torch.Tensor, how: Drawing) -> torch.Tensor:
    """A token a row, (N,): the likeliest at temperature 0, else the one at which the summed odds pass the chance."""
    order = None
    if how.temperature == 0:
        total, tokens = logits.max(-1)
    else:
        odds = (logits / how.temperature).softmax(-1)
        if how.top_p < 1:
            odds, order = odds.sort(-1, descending=True)
            # The token that reaches top_p is the last to stay.
            odds = odds.masked_fill(odds.cumsum(-1) - odds >= how.top_p, 0)
        sums = odds.cumsum(-1, dtype=torch.float64)
        total = sums[:, -1]
        tokens = torch.searchsorted(sums, (chances * total)[:, None], right=True)
        tokens = (tokens if order is None else order.gather(-1, tokens)).squeeze(-1)
    if not bool(total.isfinite().all()):
        raise DataError("the model's logits are no finite numbers: its weights are broken; go back to an earlier one")
    return tokens


def closed_up(live: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (R',) and of each its slots (R', S') that still hold every live reply of (R, S).

    The last rows move into the gaps, the others stay where they are: nothing is copied for them.
    """
    counts = live.sum(1)
    left = counts > 0
    size = int(left.sum())
    rows = torch.arange(size, device=live.device)
    rows[~left[:size]] = size + left[size:].nonzero().squeeze(1)
    slots = live.int().argsort(dim=1, descending=True, stable=True)[rows, : int(counts.max())]
    return rows, slots


def mask_of(seen: torch.Tensor, model: Any) -> torch.Tensor:
    """What each slot sees, (R, 1, S, width), as the model's attention takes it."""
    if model.config._attn_implementation == "eager":
        # Eager attention adds its mask to the scores.
        lowest = torch.finfo(model.dtype).min
        return torch.zeros_like(seen, dtype=model.dtype).masked_fill(~seen, lowest)[:, None]
    return seen[:, None]


@contextmanager
def evaluated(model: Any) -> Iterator[None]:
    """Inside no dropout, nor gradient checkpoints, which forbid a cache; afterwards every module is in its own mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
