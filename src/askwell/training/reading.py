"""What a training run reads: the records of its split, the model, the prompt. No torch."""

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from askwell import runs
from askwell.recipes import TrainRecipe
from askwell.records import Conversation, Message, Turn
from askwell.texts import prompt_file


def inputs(recipe: TrainRecipe) -> list[Path]:
    """The records, the model where it is a folder, the prompt."""
    paths = [recipe.input]
    if recipe.model != "scratch" and Path(recipe.model).is_dir():
        paths.append(Path(recipe.model))
    if recipe.prompt:
        paths.append(prompt_file(recipe.prompt))
    return paths


def turns(recipe: TrainRecipe, counts: Counter[str]) -> Iterator[Turn]:
    """The turns to train on; those without a target are left out and counted."""
    seen: set[str] = set()
    rows = runs.sample_of(recipe.input, Turn, made_by="askwell label", split=recipe.split, limit=recipe.limit)
    for turn in rows:
        if turn.conversation_id not in seen:
            seen.add(turn.conversation_id)
            counts["conversations"] += 1
        counts["turns" if turn.target else "turns_without_target"] += 1
        if turn.target:
            yield turn


def conversations(recipe: TrainRecipe, counts: Counter[str]) -> Iterator[Conversation]:
    """The conversations to train on."""
    rows = runs.sample_of(recipe.input, Conversation, made_by="askwell ingest", split=recipe.split, limit=recipe.limit)
    for conversation in rows:
        counts["conversations"] += 1
        yield conversation


def dialogues(recipe: TrainRecipe) -> Iterator[tuple[Message, ...]]:
    """The messages of each conversation in the training rows, once: what a scratch tokenizer is trained on."""
    if recipe.loss == "all":
        yield from (conversation.messages for conversation in conversations(recipe, Counter()))
        return
    for _, group in itertools.groupby(turns(recipe, Counter()), key=lambda turn: turn.conversation_id):
        turn = next(group)
        yield (*turn.context, Message(role="assistant", content=turn.expert_reply), *turn.future)
