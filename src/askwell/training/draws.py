"""What rollouts are drawn at (contexts of turns, threads or question sets), in which order, for how many steps.

No torch. Where reward models alone say what a question is worth, any context in which somebody was asked something will
do, ALFA's posts among them; Learn-to-Ask's reward needs turns with their targets.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from askwell import runs
from askwell.errors import DataError, RecipeError
from askwell.recipes import TrainRecipe
from askwell.records import QuestionSet, Thread, Turn
from askwell.training import batches, reading

Ask = Turn | Thread | QuestionSet
CONTEXTS = (*reading.QUESTIONS, reading.TURNS)


class Worth(NamedTuple):
    """What replies are worth (None: unscored), and what a line of metrics.jsonl says of them, a value a reply."""

    rewards: list[float | None]
    figures: dict[str, list[float | None]]


class Judge(Protocol):
    """Says what replies at contexts are worth, by the contexts' ids; `ended` names those that were not cut."""

    def worth(self, ids: Sequence[str], replies: Sequence[str], ended: Sequence[bool]) -> Worth: ...


def inputs(recipe: TrainRecipe) -> None:
    """Refuse what holds no contexts."""
    runs.require(recipe.input, made_by=CONTEXTS)
    reading.of_threads(recipe.input)


def shared(recipe: TrainRecipe) -> None:
    """Refuse a draw that its updates, or the processes, cannot share."""
    settings = recipe.rollouts
    if settings.turns % settings.updates:
        raise RecipeError(
            f"rollouts.turns {settings.turns} cannot be shared by {settings.updates} updates; make it a multiple"
        )
    micro_batch(recipe, processes=runs.processes())


def models_alone(recipe: TrainRecipe) -> None:
    """Refuse terms of Learn-to-Ask's reward where reward models are the whole of it: nothing would come of them."""
    rule = recipe.rollouts.reward
    given = {name: getattr(rule, name) for name in type(rule).model_fields if name != "models"}
    for name, value in given.items():
        if value != type(rule).model_fields[name].default:
            raise RecipeError(
                f"rollouts.reward.{name} {value!r} is of the reward of a grader or judge, and reward models alone say "
                f"what a reply is worth; drop it, or for grpo and its kin name a grader or a judge"
            )


def reward_models(recipe: TrainRecipe) -> list[Path]:
    """The recipe's reward models, where it names any. Raises DataError for a run that is not finished."""
    models = recipe.rollouts.reward.models
    for path in models.paths if models else ():
        if (path / "recipe.json").is_file() and not runs.finished(path):
            raise DataError(f"{path}: an unfinished run (no manifest.json); repeat its command, which resumes it")
        if not path.is_dir():
            raise DataError(
                f"{path}: no such directory; make it with `askwell train --method reward` or `askwell merge`"
            )
    return list(models.paths) if models else []


def asks(recipe: TrainRecipe, counts: Counter[str]) -> Iterator[Ask]:
    """The contexts of the split in which something was asked; turns at which the expert stopped are left out."""
    command = runs.recipe_of(recipe.input).get("command")
    which: dict[str, Any] = {"made_by": CONTEXTS, "split": recipe.split, "limit": recipe.limit}
    if command == "label":
        records: Iterator[Ask] = runs.sample_of(recipe.input, Turn, **which)
    elif command == "ingest":
        records = runs.sample_of(recipe.input, Thread, **which)
    else:
        records = runs.sample_of(recipe.input, QuestionSet, **which)
    for record in records:
        if isinstance(record, Turn) and record.target and record.target.decision == "stop":
            counts["stops_left_out"] += 1
            continue
        counts["contexts"] += 1
        yield record


def said(record: Ask) -> tuple[str, ...]:
    """What the data have to say in a record's context: the human's question, or all candidates."""
    if isinstance(record, QuestionSet):
        return tuple(candidate.text for candidate in record.candidates)
    return (record.expert_reply if isinstance(record, Turn) else record.question,)


def per_draw(recipe: TrainRecipe) -> int:
    """Optimizer steps on the rollouts drawn at once."""
    return recipe.rollouts.updates * recipe.rollouts.iterations


def steps_of(count: int, recipe: TrainRecipe) -> int:
    """Optimizer steps of the whole training: an epoch draws once at each of `count` contexts."""
    draws = max(1, round(recipe.epochs * count / recipe.rollouts.turns))
    return draws * per_draw(recipe)


def order(chosen: Sequence[Ask], *, draws: int, recipe: TrainRecipe) -> list[str]:
    """Ids for all draws, epoch after epoch: dialogues shuffled, what belongs to each together, in its order."""
    dialogues: dict[str, list[str]] = {}
    for record in chosen:
        dialogues.setdefault(record.conversation_id, []).append(record.id)
    wanted = draws * recipe.rollouts.turns
    ids: list[str] = []
    epoch = 0
    while len(ids) < wanted:
        shuffled = sorted(dialogues)
        random.Random(f"{recipe.seed}/{epoch}").shuffle(shuffled)
        ids += [id for name in shuffled for id in dialogues[name]]
        epoch += 1
    return ids[:wanted]


def micro_batch(recipe: TrainRecipe, *, processes: int) -> int:
    """Places whose rollouts make a forward pass on each process. Raises RecipeError where they cannot be shared."""
    settings = recipe.rollouts
    return batches.micro_batch(
        settings.turns // settings.updates,
        at_most=recipe.micro_batch,
        processes=processes,
        name=f"rollouts.turns {settings.turns} / rollouts.updates {settings.updates} =",
    )


def places(number: int, recipe: TrainRecipe, *, micro: int, rank: int = 0, processes: int = 1) -> list[list[int]]:
    """Of each update on draw `number` the places in the order of ids that a process holds.

    Processes take turns with micro-batches of `micro` places, so that an update is on the same rollouts whatever the
    number of processes.
    """
    turns = recipe.rollouts.turns
    share = turns // recipe.rollouts.updates
    return [
        [place for place in range(first, first + share) if (place - first) // micro % processes == rank]
        for first in range(number * turns, (number + 1) * turns, share)
    ]


def seed_of(recipe: TrainRecipe, place: int) -> int:
    """What the rollouts at a place in the order of ids are drawn with: no other place has a part in it."""
    return int.from_bytes(hashlib.sha256(f"{recipe.seed}/{place}".encode()).digest()[:4], "big")
