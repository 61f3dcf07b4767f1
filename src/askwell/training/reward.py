"""`askwell train --method reward`: a model of preferences, which gives a question in its context one number.

Reads QuestionSet records (`askwell synthesize`, `askwell contrast`) and a policy, whose head gives way to one of a
single label (`training.reward_models` has the loss). Writes metrics.jsonl, checkpoint/ (a sequence classifier that
`transformers` and TRL load as it is), and report.json and report.md: how good the model is on a held-out split
(`training.reward_figures`).
"""

import logging
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

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
    return fit(prepare(recipe), recipe, run)


class Prepared(NamedTuple):
    """All that training needs but the recipe's settings of the loss and the optimizer."""

    model: "weights.Policy"
    rows: "list[examples.Candidates]"
    held_out: "list[examples.Candidates]"
    unfit: Counter[str]
    """Held-out preferences of each attribute that have no room."""
    layout: "scoring.Layout"
    counts: Counter[str]


def prepare(recipe: TrainRecipe) -> Prepared:
    """The model, and the question sets of both splits as sequences."""
    # Late, so that `plan` answers without the seconds that torch takes to load.
    from askwell import rendering, weights
    from askwell.training import examples, scoring

    counts: Counter[str] = Counter()
    model = weights.load_reward(recipe.model, lora=recipe.lora, trainable=True, seed=recipe.seed)
    limits = {
        "prompt": rendering.system_prompt(recipe.prompt, stop_marker=recipe.stop_marker),
        "max_tokens": recipe.max_tokens,
        "divided": recipe.each is not None,
    }
    rows = examples.of_question_sets(reading.question_sets(recipe, counts), model.tokenizer, counts=counts, **limits)
    if not rows:
        raise DataError(f"{recipe.input}: nothing to train on in split {recipe.split!r} ({dict(counts)})")
    sets = list(reading.question_sets(recipe, Counter(), split=recipe.reward.held_out))
    held_out = examples.of_question_sets(sets, model.tokenizer, counts=Counter(), **limits)
    longest = max(len(piece.ids) for row in (*rows, *held_out) for piece in row.pieces)
    layout = scoring.layout_of(model.model, recipe, longest=longest)
    unfit = Counter(each.attribute for record in sets for each in record.preferences)
    unfit.subtract(each.attribute for row in held_out for each in row.record.preferences)
    return Prepared(model, rows, held_out, unfit, layout, counts)


def only(prepared: Prepared, part: TrainRecipe) -> Prepared:
    """What the training in one attribute takes of it."""
    from askwell.training import examples

    [attribute] = part.preferences.attributes
    rows, held_out = (
        [kept for row in some if (kept := examples.only(row, attribute))] for some in (prepared.rows, prepared.held_out)
    )
    unfit = Counter({attribute: prepared.unfit[attribute]})
    return prepared._replace(rows=rows, held_out=held_out, unfit=unfit, counts=examples.counted(part, rows))


def fit(prepared: Prepared, recipe: TrainRecipe, run: Run) -> dict[str, object]:
    """Train the prepared model in place, leave it in checkpoint/, and say how good it is."""
    from askwell.training import loop, reward_models

    model, rows, held_out, unfit, layout, counts = prepared
    trained = loop.train(model, reward_models.task(model.model, rows, layout, recipe.reward), recipe, run)
    if runs.main_process():
        rewards = reward_models.rewards_of(model.model, held_out, layout)
        found = reward_figures.figures(held_out, rewards, unscored=unfit.total())
        runs.write_json(run.report, found)
        runs.write_text(run.path / "report.md", reward_figures.markdown(found))
        log.info("held out: %s", reward_figures.headline(found))
    # Last, for it takes away what a run that is cut here would go on from.
    loop.leave(model, run)
    return {**counts, "rows": len(rows), **trained}
