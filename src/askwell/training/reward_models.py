"""The loss and the scores of reward models on trees: a question set's candidates share their context.

    loss = -log sigmoid(r(better) - r(worse) - margin) + centre * (r(better) + r(worse))^2, a mean over preferences

(Bradley and Terry, 1952; centring: Eisenstein et al., 2024, as in TRL). r is the model's one label at the last token of
a candidate that is not the padding one, where `transformers` reads it: its end of turn, or the token before that where
a tokenizer pads with it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import logsigmoid

from askwell.recipes import BradleyTerry
from askwell.training import loop, scoring
from askwell.training.examples import Candidates
from askwell.training.preferences import AHEAD, pairs_of, sums_of


def task(model: Any, rows: Sequence[Candidates], layout: scoring.Layout, recipe: BradleyTerry) -> loop.Task:
    """What the optimizer loop trains on; items are preferences."""

    def collate(group: list[Candidates]) -> dict[str, torch.Tensor]:
        pieces = [piece for row in group for piece in row.pieces]
        pairs = pairs_of(group)
        laid = scoring.lay_out(scoring.last_places(model, pieces), layout, own=True)
        return {**laid.tensors(), "pairs": pairs, "labels": loop.items(len(pairs))}

    def loss(model: Any, inputs: dict[str, torch.Tensor]) -> loop.Losses:
        return reward_loss(scoring.rewards(model, scoring.Batch.of(inputs)), inputs["pairs"], recipe)

    return loop.Task(rows, [layout.size(row.pieces) for row in rows], collate, loss)


def reward_loss(rewards: torch.Tensor, pairs: torch.Tensor, recipe: BradleyTerry) -> loop.Losses:
    """Sums over P preferences (P, 2) among candidates with these rewards (C,); beside the loss the share of preferences
    that the model has the right way round, their margins, and the rewards of better and worse."""
    better, worse = rewards[pairs].unbind(1)
    each = -logsigmoid(better - worse - recipe.margin) + recipe.centre * (better + worse) ** 2
    return loop.Losses(each.sum(), sums_of(better, worse))


def rewards_of(model: Any, rows: Sequence[Candidates], layout: scoring.Layout) -> list[list[float]]:
    """Of each question set the rewards of its candidates, without gradient."""
    was_training = model.training
    model.eval()
    found: list[list[float]] = []
    with torch.no_grad():
        for at in range(0, len(rows), AHEAD):
            some = rows[at : at + AHEAD]
            pieces = scoring.last_places(model, [piece for row in some for piece in row.pieces])
            rewards = scoring.rewards(model, scoring.lay_out(pieces, layout, own=True)).cpu()
            found += [part.tolist() for part in rewards.split([len(row.pieces) for row in some])]
    model.train(was_training)
    return found
