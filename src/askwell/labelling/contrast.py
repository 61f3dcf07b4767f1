"""`askwell contrast`: turns to question sets, the expert's choice against utterances irrelevant to the dialogue.

So Learn-to-Ask builds its DPO baseline (section 5.1): the expert's response is chosen, one that has nothing to do with
the context is rejected. Here the rejected ones are what experts said in other dialogues, about other services where
services are known. Reads the Turn records of `askwell label`, writes QuestionSet records in their order.
"""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from askwell import jsonl, runs
from askwell.errors import DataError
from askwell.recipes import ContrastRecipe
from askwell.records import Candidate, Preference, QuestionSet, Turn

MADE_BY = "askwell label"
ATTRIBUTE = "relevance"
TRIES = 200
"""Draws for a turn before it is given up: with so many, a corpus of two services of equal share fails never."""


class Question(NamedTuple):
    """An expert's question somewhere in the split."""

    conversation_id: str
    service: str | None
    text: str


def inputs(recipe: ContrastRecipe) -> list[Path]:
    """The turns."""
    runs.require(recipe.input, made_by=MADE_BY)
    return [recipe.input]


def plan(recipe: ContrastRecipe) -> dict[str, object]:
    """What would be made, without writing it."""
    inputs(recipe)
    counts: Counter[str] = Counter()
    return {"question_sets": sum(1 for _ in question_sets(recipe, counts)), **counts}


def run(recipe: ContrastRecipe, run: runs.Run) -> dict[str, object]:
    """Write records.jsonl."""
    counts: Counter[str] = Counter()
    made = jsonl.write(run.records, question_sets(recipe, counts))
    if not made:
        raise DataError(f"{recipe.input}: no turn has a target and a rival ({dict(counts)}); label more dialogues")
    return {"question_sets": made, **counts}


def question_sets(recipe: ContrastRecipe, counts: Counter[str]) -> Iterator[QuestionSet]:
    """One question set a turn with a target, as long as there is somebody else's question to set against it."""
    turns = list(runs.records_of(recipe.input, Turn, made_by=MADE_BY))
    pools: dict[str, list[Question]] = {}
    for turn in turns:
        if turn.target and turn.target.decision == "continue":
            question = Question(turn.conversation_id, turn.service, turn.expert_reply)
            pools.setdefault(turn.split, []).append(question)
    for turn in turns:
        if turn.target is None:
            counts["turns_without_target"] += 1
            continue
        chosen = turn.expert_reply if turn.target.decision == "continue" else recipe.stop_marker
        worse = rivals(turn, chosen, pools.get(turn.split, ()), recipe)
        if not worse:
            counts["turns_without_rival"] += 1
            continue
        yield QuestionSet(
            id=turn.id,
            conversation_id=turn.conversation_id,
            group=turn.group,
            split=turn.split,
            context=turn.context,
            candidates=(
                Candidate(text=chosen, origin="human"),
                *(Candidate(text=text, origin="corrupted", attribute=ATTRIBUTE) for text in worse),
            ),
            preferences=tuple(
                Preference(attribute=ATTRIBUTE, better=0, worse=place) for place in range(1, len(worse) + 1)
            ),
            redacted=turn.redacted,
        )


def rivals(turn: Turn, chosen: str, pool: Sequence[Question], recipe: ContrastRecipe) -> list[str]:
    """Distinct questions of other dialogues and other services, drawn by the turn's id; fewer where there are few."""
    draw = random.Random(f"{recipe.seed}/{turn.id}")
    found: list[str] = []
    for _ in range(TRIES if pool else 0):
        question = pool[draw.randrange(len(pool))]
        elsewhere = question.conversation_id != turn.conversation_id
        foreign = turn.service is None or question.service != turn.service
        if elsewhere and foreign and question.text != chosen and question.text not in found:
            found.append(question.text)
            if len(found) == recipe.rivals:
                break
    return found
