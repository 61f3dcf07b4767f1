"""Reward models as a panel: what several of them say of a reply, as one number.

    worth = sum of weight_k * (r_k - mean_k) / deviation_k - penalty, where the reply was cut

Each model's scores are standardised by what it gives the questions of the training data, so that none speaks louder for
its scale alone (in the published code the sum is of bare scores). A single model, such as an average of several by
`askwell merge`, is a panel of one. A reply that a model cannot read is unscored, and has no worth.

A reply that was cut at `max_new_tokens` has no end, and its beginning may sound well: `penalty` is taken off its worth.
A stop asks nothing that could be scored: where nothing but questions is rewarded, it is worth -penalty.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from askwell import rendering, runs, weights
from askwell.errors import DataError
from askwell.grading.replies import parse
from askwell.recipes import RewardModels, TrainRecipe
from askwell.records import Message
from askwell.runs import Run
from askwell.training import draws, reward_agreement, scoring
from askwell.training.draws import Ask, Worth
from askwell.training.parts import training_of
from askwell.training.trees import Piece

log = logging.getLogger(__name__)
AT_ONCE = 128
"""Replies in a forward pass."""
LEAST_DEVIATION = 1e-6
"""A model whose scores vary less tells nothing apart."""


class Scale(NamedTuple):
    """What a model gives the questions of the training data: mean and standard deviation."""

    mean: float
    deviation: float


class Member:
    """A reward model with the prompt and the room that it was trained with."""

    def __init__(self, path: Path, recipe: TrainRecipe) -> None:
        told = training_of(path)
        self.name = path.parent.name if path.name == "checkpoint" else path.name
        self.policy = weights.load_reward(str(path))
        self.policy.model.eval().requires_grad_(False).to(weights.device())
        self.prompt = rendering.system_prompt(
            told.get("prompt", ""), stop_marker=told.get("stop_marker", recipe.stop_marker)
        )
        self.room = int(told.get("max_tokens", recipe.max_tokens))
        self.layout = scoring.layout_of(self.policy.model, recipe, longest=self.room)

    def scores(self, contexts: Sequence[Sequence[Message]], replies: Sequence[str]) -> list[float | None]:
        """A score a reply in its context; None where the reply does not fit even without the older messages."""
        pieces: dict[int, Piece] = {}
        for place, (context, reply) in enumerate(zip(contexts, replies, strict=True)):
            fitted = rendering.fit(self.policy.tokenizer, context, reply, prompt=self.prompt, room=self.room)
            if fitted is not None:
                pieces[place] = Piece(fitted[0] + fitted[1], ())
        found: list[float | None] = [None] * len(replies)
        places = list(pieces)
        with torch.no_grad():
            for at in range(0, len(places), AT_ONCE):
                some = places[at : at + AT_ONCE]
                ends = scoring.last_places(self.policy.model, [pieces[place] for place in some])
                batch = scoring.lay_out(ends, self.layout, own=True)
                for place, score in zip(some, scoring.rewards(self.policy.model, batch).tolist(), strict=True):
                    found[place] = score
        return found


class Panel:
    """Reward models, and what they say of replies at the records' contexts, by their ids."""

    def __init__(
        self, members: Sequence[Member], scales: Sequence[Scale], records: Sequence[Ask], recipe: TrainRecipe
    ) -> None:
        settings = recipe.rollouts.reward.models
        assert settings is not None
        self.members = members
        self.scales = scales
        self.shares = settings.shares
        self.penalty = settings.penalty
        self.stop_marker = recipe.stop_marker
        self.contexts = {record.id: record.context for record in records}

    def worth(self, ids: Sequence[str], replies: Sequence[str], ended: Sequence[bool]) -> Worth:
        """Of each reply at the context of this id; `ended` says which were not cut."""
        stops = [parse(reply, self.stop_marker).decision == "stop" for reply in replies]
        asked = [place for place, stop in enumerate(stops) if not stop]
        contexts = [self.contexts[ids[place]] for place in asked]
        figures: dict[str, list[float | None]] = {}
        for member, scale in zip(self.members, self.scales, strict=True):
            scores = member.scores(contexts, [replies[place] for place in asked])
            column: list[float | None] = [None] * len(replies)
            for place, score in zip(asked, scores, strict=True):
                column[place] = None if score is None else (score - scale.mean) / scale.deviation
            figures[f"score of {member.name}"] = column
        rewards: list[float | None] = []
        for place, stop in enumerate(stops):
            if stop:
                rewards.append(-self.penalty)
                continue
            each = [column[place] for column in figures.values()]
            scored = [score for score in each if score is not None]
            total = sum(share * score for share, score in zip(self.shares, scored, strict=False))
            rewards.append(total - self.penalty * (not ended[place]) if len(scored) == len(each) else None)
        return Worth(rewards, {**figures, "stops": [float(stop) for stop in stops]})


def open_panel(records: Sequence[Ask], recipe: TrainRecipe, run: Run) -> Panel:
    """The recipe's reward models, on the scale of what the data have to say at `records`.

    The scale, and how far the models agree, are in report.json; a run that was cut reads the scale there.
    """
    settings = recipe.rollouts.reward.models
    assert settings is not None
    members = [Member(path, recipe) for path in settings.paths]
    if run.report.is_file():
        told = json.loads(run.report.read_text(encoding="utf-8"))["reward_models"]
    else:
        told = calibrate(members, records, settings, run)
    scales = [Scale(entry["mean"], entry["deviation"]) for entry in told["models"]]
    if not settings.standardised:
        scales = [Scale(0.0, 1.0)] * len(members)
    return Panel(members, scales, records, recipe)


def calibrate(members: Sequence[Member], records: Sequence[Ask], settings: RewardModels, run: Run) -> dict[str, Any]:
    """Score a sample of what the data have to say; the figures, which the main process writes to report.json."""
    said = [(record, text) for record in sampled(records, settings.sample) for text in draws.said(record)]
    contexts, texts = [record.context for record, _ in said], [text for _, text in said]
    columns = [member.scores(contexts, texts) for member in members]
    kept = [place for place in range(len(said)) if all(column[place] is not None for column in columns)]
    scores = [[float(column[place] or 0.0) for place in kept] for column in columns]
    for member, column in zip(members, scores, strict=True):
        if len(column) < 2 or reward_agreement.deviation(column) < LEAST_DEVIATION:
            raise DataError(
                f"reward model {member.name!r}: its scores of {len(column)} of {len(said)} questions of the training "
                "data do not vary, so they have no scale; it has learned nothing, or has no room for them (max_tokens)"
            )
    found = reward_agreement.figures(
        [member.name for member in members],
        settings.shares,
        scores,
        contexts=[said[place][0].id for place in kept],
        groups=[said[place][0].group for place in kept],
        unscored=len(said) - len(kept),
    )
    if runs.main_process():
        runs.write_text(run.path / "report.md", reward_agreement.markdown(found))
        runs.write_json(run.report, {"reward_models": found})
        log.info("reward models: %s", reward_agreement.headline(found))
    return found


def sampled(records: Sequence[Ask], count: int) -> list[Ask]:
    """At most so many records, evenly from their order by the hash of their ids."""
    return sorted(records, key=lambda record: hashlib.sha256(record.id.encode()).digest())[:count]
