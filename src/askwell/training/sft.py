"""`askwell train --method sft`: imitate the expert's next utterance or the stop marker; or whole conversations.

Reads the Turn records of `askwell label` (with `loss: all`, the Conversation records of `askwell ingest`; with
`questions`, the QuestionSet records of `askwell synthesize`, a row for all questions after one context; for real ones
the Thread records of `askwell ingest` will do) and a model.
Writes metrics.jsonl, one line a step, and checkpoint/. Under `accelerate launch` and `torchrun` only the main process
holds the run directory; the others call `run` with a Run of the same path and leave the records and the policy to it.
"""

import itertools
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from askwell import runs
from askwell.errors import DataError
from askwell.recipes import TrainRecipe
from askwell.records import Turn
from askwell.runs import Run
from askwell.training import batches, reading

log = logging.getLogger(__name__)
CHARACTERS = 4
"""Characters of a token, for the estimate: 4.0 by a 4,096-token BPE of the Schema-Guided Dialogues."""


def inputs(recipe: TrainRecipe) -> list[Path]:
    """The records that the recipe's kind of imitation takes, the model where it is a folder, the prompt."""
    reading.imitated(recipe)
    return reading.inputs(recipe)


def plan(recipe: TrainRecipe) -> dict[str, object]:
    """Rows, steps, and what can be told of tokens and parameters without loading torch or a model."""
    counts: Counter[str] = Counter()
    if recipe.questions:
        sizes = [
            sum(len(text) for text in (*(message.content for message in record.context), *said))
            for record, places in reading.questions(recipe, counts)
            if (said := [record.candidates[place].text for place in places])
        ]
    elif recipe.loss == "all":
        sizes = [sum(len(message.content) for message in row.messages) for row in reading.conversations(recipe, counts)]
    else:
        sizes = characters(reading.turns(recipe, counts))
    steps = batches.total_steps(len(sizes), batch=recipe.batch, epochs=recipe.epochs) if sizes else 0
    tokens = sum(min(size // CHARACTERS, recipe.max_tokens) for size in sizes)
    found: dict[str, object] = {**counts, "rows": len(sizes), "tokens_estimated": tokens, "steps": steps}
    if recipe.model == "scratch":
        found["parameters"] = recipe.scratch.parameters
    return found


def run(recipe: TrainRecipe, run: Run) -> dict[str, object]:
    """Train, and leave the policy in checkpoint/."""
    # Late, so that `plan` answers without the seconds that torch takes to load.
    from askwell import rendering, weights
    from askwell.training import examples, loop, scoring

    counts: Counter[str] = Counter()
    if recipe.model == "scratch":
        texts = [message.content for messages in reading.dialogues(recipe) for message in messages]
        policy = weights.create(recipe.scratch, texts, stop_marker=recipe.stop_marker, seed=recipe.seed)
    else:
        policy = weights.load(recipe.model, lora=recipe.lora, trainable=True, seed=recipe.seed)
    prompt = rendering.system_prompt(recipe.prompt, stop_marker=recipe.stop_marker)
    limits = {"prompt": prompt, "max_tokens": recipe.max_tokens, "counts": counts}
    if recipe.questions:
        rows = examples.of_questions(reading.questions(recipe, counts), policy.tokenizer, **limits)
    elif recipe.loss == "all":
        rows = examples.of_conversations(reading.conversations(recipe, counts), policy.tokenizer, **limits)
    else:
        rows = examples.of_turns(
            reading.turns(recipe, counts), policy.tokenizer, stop_marker=recipe.stop_marker, **limits
        )
    if not rows:
        raise DataError(f"{recipe.input}: nothing to train on in split {recipe.split!r} ({dict(counts)})")
    longest = max(len(piece.ids) for row in rows for piece in row)
    layout = scoring.layout_of(policy.model, recipe, longest=longest)
    sizes = [layout.size(row) for row in rows]
    counts["rows"] = len(rows)
    counts["tokens"] = sum(sizes)
    counts["tokens_padded"] = sum(len(piece.ids) for row in rows for piece in row)
    counts["tokens_with_loss"] = sum(len(piece.scored) for row in rows for piece in row)
    if runs.main_process():
        log.info("training on %s", ", ".join(f"{name} {count}" for name, count in counts.items()))

    def collate(group: list[examples.Row]) -> dict[str, Any]:
        batch = scoring.lay_out([piece for row in group for piece in row], layout)
        return {**batch.tensors(), "labels": loop.items(len(batch.targets))}

    def loss(model: Any, inputs: dict[str, Any]) -> loop.Losses:
        return loop.Losses(-scoring.score(model, scoring.Batch.of(inputs)).logprobs.sum(), {})

    trained = loop.train(policy, loop.Task(rows, sizes, collate, loss), recipe, run)
    loop.leave(policy, run)
    return {**counts, **trained}


def characters(rows: Iterator[Turn]) -> list[int]:
    """Characters of each conversation's tree: its longest context, and the replies that are in none."""
    sizes = []
    for _, group in itertools.groupby(rows, key=lambda turn: turn.conversation_id):
        longest = max(group, key=lambda turn: len(turn.context))
        sizes.append(sum(len(message.content) for message in longest.context) + len(longest.expert_reply))
    return sizes
