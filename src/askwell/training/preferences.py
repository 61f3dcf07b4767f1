"""The loss of preferences among a question set's candidates, on trees: the candidates share their context.

The starting policy's log-probabilities are computed once, before the first step, so that no second model stands in
memory; a resumed run computes the same, for its checkpoint is loaded later. Or at every step: from a frozen copy, or
from the model itself with its adapters switched off.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import logsigmoid

from askwell import weights
from askwell.recipes import Dpo
from askwell.training import loop, scoring
from askwell.training.examples import Candidates
from askwell.training.trees import Piece

AHEAD = 64
"""Question sets in a forward pass of the starting policy."""


def task(
    model: Any,
    rows: Sequence[Candidates],
    layout: scoring.Layout,
    recipe: Dpo,
    *,
    adapters: bool = False,
    bfloat16: bool = False,
) -> loop.Task:
    """What the optimizer loop trains on; items are preferences.

    Rows are `started`, unless the recipe has the starting policy at every step; `adapters`: `model` without them is it.
    `bfloat16`: the arithmetic of the training, and so of the starting policy.
    """
    reference = None if recipe.precompute else reference_of(model, adapters=adapters, bfloat16=bfloat16)

    def collate(group: list[Candidates]) -> dict[str, torch.Tensor]:
        pieces = [piece for row in group for piece in row.pieces]
        pairs = pairs_of(group)
        return {
            **scoring.lay_out(pieces, layout).tensors(),
            "lengths": lengths(pieces),
            "pairs": pairs,
            "start": torch.tensor([start for row in group for start in row.start], dtype=torch.float64),
            "labels": loop.items(len(pairs)),
        }

    def loss(model: Any, inputs: dict[str, torch.Tensor]) -> loop.Losses:
        batch, counts = scoring.Batch.of(inputs), inputs["lengths"]
        start = inputs["start"] if reference is None else totals(reference(model, batch), counts)
        ratios = (totals(scoring.score(model, batch).logprobs, counts) - start).float()
        if recipe.length_normalised:
            ratios = ratios / counts
        return preference_loss(ratios, inputs["pairs"], recipe)

    return loop.Task(rows, [layout.size(row.pieces) for row in rows], collate, loss)


def preference_loss(ratios: torch.Tensor, pairs: torch.Tensor, recipe: Dpo) -> loop.Losses:
    """Sums over P preferences (P, 2) among candidates with these log-ratios to the starting policy (C,), which are sums
    over tokens or, length-normalised, means.

    Beside the loss: the share of preferences that the policy has the right way round, their margins, and the rewards
    beta * ratio of better and worse.
    """
    better, worse = (recipe.beta * ratios)[pairs].unbind(1)
    margins = better - worse
    smoothing = recipe.label_smoothing
    if recipe.loss == "ipo":
        each = (margins / recipe.beta - 1 / (2 * recipe.beta)) ** 2
    else:
        each = -(1 - smoothing) * logsigmoid(margins) - smoothing * logsigmoid(-margins)
    return loop.Losses(each.sum(), sums_of(better, worse))


def sums_of(better: torch.Tensor, worse: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a step's line says of preferences whose sides have these rewards (P,)."""
    margins = better - worse
    return {
        "accuracy": (margins > 0).float().sum(),
        "margin": margins.sum(),
        "better": better.sum(),
        "worse": worse.sum(),
    }


def reference_of(model: Any, *, adapters: bool, bfloat16: bool = False) -> Callable[[Any, scoring.Batch], torch.Tensor]:
    """What gives a batch's log-probabilities under the starting policy: `model` as it is now, or without adapters."""
    frozen = None if adapters else copy.deepcopy(model).eval().requires_grad_(False)

    def logprobs(model: Any, batch: scoring.Batch) -> torch.Tensor:
        if frozen is not None:
            device = batch.input_ids.device
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                return scoring.score(frozen.to(device), batch).logprobs
        trained = scoring.inner(model)
        was_training = trained.training
        trained.eval()
        try:
            with torch.no_grad(), trained.disable_adapter():
                return scoring.score(trained, batch).logprobs
        finally:
            trained.train(was_training)

    return logprobs


def started(
    model: Any, rows: Sequence[Candidates], layout: scoring.Layout, *, bfloat16: bool = False
) -> list[Candidates]:
    """The rows with each candidate's log-probability under the model as it is now, in the arithmetic of the training:
    in another one, rounding alone would be a departure from the start."""
    was_training = model.training
    device = weights.device()
    model.eval().to(device)
    found: list[Candidates] = []
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        for at in range(0, len(rows), AHEAD):
            some = rows[at : at + AHEAD]
            pieces = [piece for row in some for piece in row.pieces]
            sums = totals(scoring.score(model, scoring.lay_out(pieces, layout)).logprobs, lengths(pieces)).cpu()
            parts = sums.split([len(row.pieces) for row in some])
            found += [row._replace(start=tuple(part.tolist())) for row, part in zip(some, parts, strict=True)]
    model.train(was_training)
    return found


def pairs_of(group: Sequence[Candidates]) -> torch.Tensor:
    """The preferences of some question sets, (P, 2): places of better and worse among all their candidates."""
    pairs: list[tuple[int, int]] = []
    first = 0
    for row in group:
        pairs += [(first + better, first + worse) for better, worse in row.pairs]
        first += len(row.pieces)
    return torch.tensor(pairs, dtype=torch.long).view(-1, 2)


def lengths(pieces: Sequence[Piece]) -> torch.Tensor:
    """Scored tokens of each piece, (C,)."""
    return torch.tensor([len(piece.scored) for piece in pieces], dtype=torch.long)


def totals(logprobs: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Sums over consecutive stretches of these lengths, (C,): of each candidate's tokens. In float64, for the loss
    lives on small differences of these large numbers."""
    counts = counts.to(logprobs.device)
    owners = torch.arange(len(counts), device=logprobs.device).repeat_interleave(counts)
    return logprobs.new_zeros(len(counts), dtype=torch.float64).index_add(0, owners, logprobs.double())
