"""`askwell train --method reward`: a model of preferences, which gives a question in its context one number.

Reads QuestionSet records (`askwell synthesize`, `askwell contrast`) and a policy, whose head gives way to one of a
single label (`training.reward_models` has the loss). Writes metrics.jsonl, checkpoint/ (a sequence classifier that
`transformers` and TRL load as it is), and report.json and report.md: how good the model is on a held-out split
(`training.reward_figures`).
"""

import logging
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from askwell import runs
from askwell.errors import DataError, RecipeError
from askwell.recipes import TrainRecipe
from askwell.runs import Run
from askwell.training import batches, reading, reward_figures

if TYPE_CHECKING:
    from askwell import weights
    from askwell.training import examples, scoring

log = logging.getLogger(__name__)


def inputs(recipe: TrainRecipe) -> list[Path]:
    """The question sets and the model to start from."""
    if recipe.model == "scratch":
        raise RecipeError(
            "method 'reward' starts from a policy that can read; train one with `--method sft` and name it with --model"
        )
    if recipe.reward.held_out == recipe.split:
        raise RecipeError(f"reward.held_out {recipe.reward.held_out!r} is the split to train on; name another one")
    runs.require(recipe.input, made_by=reading.QUESTION_SETS)
    return reading.inputs(recipe)


def plan(recipe: TrainRecipe) -> dict[str, object]:
    """Question sets, preferences and steps, without loading torch."""
    inputs(recipe)
    counts: Counter[str] = Counter()
    sets = list(reading.question_sets(recipe, counts))
    held: Counter[str] = Counter()
    list(reading.question_sets(recipe, held, split=recipe.reward.held_out))
    steps = batches.total_steps(len(sets), batch=recipe.batch, epochs=recipe.epochs) if sets else 0
    return {**counts, "rows": len(sets), "steps": steps, "preferences_held_out": held["preferences"]}


def run(recipe: TrainRecipe, run: Run) -> dict[str, object]:
    """Train, leave the model in checkpoint/, and say how good it is."""
    # Late, so that `plan` answers without the seconds that torch takes to load.
    from askwell import rendering, weights
    from askwell.training import examples, loop, reward_models, scoring

    counts: Counter[str] = Counter()
    model = weights.load_reward(recipe.model, lora=recipe.lora, trainable=True, seed=recipe.seed)
    limits = {
        "prompt": rendering.system_prompt(recipe.prompt, stop_marker=recipe.stop_marker),
        "max_tokens": recipe.max_tokens,
    }
    rows = examples.of_question_sets(reading.question_sets(recipe, counts), model.tokenizer, counts=counts, **limits)
    if not rows:
        raise DataError(f"{recipe.input}: nothing to train on in split {recipe.split!r} ({dict(counts)})")
    missed: Counter[str] = Counter()
    sets = reading.question_sets(recipe, missed, split=recipe.reward.held_out)
    held_out = examples.of_question_sets(sets, model.tokenizer, counts=missed, **limits)
    longest = max(len(piece.ids) for row in (*rows, *held_out) for piece in row.pieces)
    layout = scoring.layout_of(model.model, recipe, longest=longest)
    trained = loop.train(model, reward_models.task(model.model, rows, layout, recipe.reward), recipe, run)
    loop.leave(model, run)
    if runs.main_process():
        report(model, held_out, layout, run, preferences=missed["preferences"])
    return {**counts, "rows": len(rows), **trained}


def report(
    model: "weights.Policy",
    rows: "list[examples.Candidates]",
    layout: "scoring.Layout",
    run: Run,
    *,
    preferences: int,
) -> None:
    """Write report.json and report.md on held-out question sets; `preferences` were to be judged, some may not fit."""
    from askwell.training import reward_models

    scores = reward_models.rewards_of(model.model, rows, layout)
    found = reward_figures.figures(rows, scores, unscored=preferences - sum(len(row.pairs) for row in rows))
    runs.write_json(run.report, found)
    runs.write_text(run.path / "report.md", reward_figures.markdown(found))
    log.info("held out: %s", reward_figures.headline(found))
