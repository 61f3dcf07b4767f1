"""`askwell train --method sft`: imitate the expert's next utterance or the stop marker; or whole conversations.

Reads the Turn records of `askwell label` (with `loss: all`, the Conversation records of `askwell ingest`) and a model.
Writes metrics.jsonl, one line a step, and checkpoint/. Works under `torchrun` (and `accelerate launch`, which on CPUs
starts one process whatever it is told): only the main process holds the run directory; the others call `run` with a
Run of the same path and leave the records and the policy to it.
"""

import itertools
import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from askwell import runs
from askwell.errors import DataError
from askwell.recipes import TrainRecipe
from askwell.records import Conversation, Message, Turn
from askwell.runs import Run
from askwell.texts import prompt_file
from askwell.training import batches

log = logging.getLogger(__name__)
CHARACTERS = 4
"""Characters of a token, for the estimate: 4.0 by a 4,096-token BPE of the Schema-Guided Dialogues."""


def main_process() -> bool:
    """Whether this process holds the run directory: the only one, or the first of those of `accelerate launch`."""
    return int(os.environ.get("RANK", "0")) == 0


def inputs(recipe: TrainRecipe) -> list[Path]:
    """The records, the model where it is a folder, the prompt."""
    paths = [recipe.input]
    if recipe.model != "scratch" and Path(recipe.model).is_dir():
        paths.append(Path(recipe.model))
    if recipe.prompt:
        paths.append(prompt_file(recipe.prompt))
    return paths


def plan(recipe: TrainRecipe) -> dict[str, object]:
    """Rows, steps, and what can be told of tokens and parameters without loading torch or a model."""
    counts: Counter[str] = Counter()
    if recipe.loss == "all":
        sizes = [sum(len(message.content) for message in row.messages) for row in conversations(recipe, counts)]
    else:
        sizes = chains(turns(recipe, counts))
    steps = batches.total_steps(len(sizes), batch=recipe.batch, epochs=recipe.epochs) if sizes else 0
    tokens = sum(min(size // CHARACTERS, recipe.max_tokens) for size in sizes)
    found: dict[str, object] = {**counts, "sequences": len(sizes), "tokens_estimated": tokens, "steps": steps}
    if recipe.model == "scratch":
        found["parameters"] = recipe.scratch.parameters
    return found


def run(recipe: TrainRecipe, run: Run) -> dict[str, object]:
    """Train, and leave the policy in checkpoint/."""
    # Late, so that `plan` answers without the seconds that torch takes to load.
    from askwell import rendering, weights
    from askwell.training import examples, loop

    counts: Counter[str] = Counter()
    if recipe.model == "scratch":
        texts = [message.content for messages in dialogues(recipe) for message in messages]
        policy = weights.create(recipe.scratch, texts, stop_marker=recipe.stop_marker, seed=recipe.seed)
    else:
        policy = weights.load(recipe.model, lora=recipe.lora, trainable=True)
    prompt = rendering.system_prompt(recipe.prompt, stop_marker=recipe.stop_marker)
    limits = {"prompt": prompt, "max_tokens": recipe.max_tokens, "counts": counts}
    if recipe.loss == "all":
        rows = examples.of_conversations(conversations(recipe, counts), policy.tokenizer, **limits)
    else:
        rows = examples.of_turns(turns(recipe, counts), policy.tokenizer, stop_marker=recipe.stop_marker, **limits)
    if not rows:
        raise DataError(f"{recipe.input}: nothing to train on in split {recipe.split!r} ({dict(counts)})")
    counts["sequences"] = len(rows)
    counts["tokens"] = sum(len(row.ids) for row in rows)
    counts["tokens_with_loss"] = sum(label != examples.IGNORED for row in rows for label in row.labels)
    if main_process():
        log.info("training on %s", ", ".join(f"{name} {count}" for name, count in counts.items()))
    trained = loop.train(policy, rows, recipe, run)
    if main_process():
        shutil.rmtree(run.checkpoint, ignore_errors=True)
        weights.save(policy, run.checkpoint)
        shutil.rmtree(run.path / "attempt")
    return {**counts, **trained}


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


def chains(rows: Iterator[Turn]) -> list[int]:
    """Characters of each sequence: turns that continue one another share one, as `examples.fold` makes of their ids."""
    sizes: list[int] = []
    before: Turn | None = None
    for turn in rows:
        size = sum(len(message.content) for message in turn.context) + len(turn.expert_reply)
        if before is not None and continues(before, turn):
            sizes[-1] = size
        else:
            sizes.append(size)
        before = turn
    return sizes


def continues(before: Turn, turn: Turn) -> bool:
    """Whether a turn's context is that of the turn before and the reply trained on there."""
    place = len(before.context)
    return (
        before.conversation_id == turn.conversation_id
        and before.target is not None
        and before.target.decision == "continue"
        and turn.context[:place] == before.context
        and place < len(turn.context)
        and turn.context[place].content == before.expert_reply
    )
