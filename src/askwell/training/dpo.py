"""`askwell train --method dpo`: direct preference optimization from question sets (Rafailov et al., 2023).

    loss = -log sigmoid(beta * (log-ratio of the better - log-ratio of the worse)), a mean over preferences

where a candidate's log-ratio is the sum (or the mean) of its tokens' log-probabilities, its end-of-turn token included,
under the policy less that under the starting policy (`training.preferences`); or the loss of IPO. Reads QuestionSet
records (`askwell synthesize`, `askwell contrast`), writes metrics.jsonl and checkpoint/.
"""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from askwell import runs
from askwell.errors import DataError, RecipeError
from askwell.recipes import TrainRecipe
from askwell.runs import Run
from askwell.training import batches, reading

if TYPE_CHECKING:
    from askwell import weights
    from askwell.training import examples, scoring


def inputs(recipe: TrainRecipe) -> list[Path]:
    """The question sets and the policy to start from."""
    if recipe.model == "scratch":
        raise RecipeError(
            "method 'dpo' starts from a policy that can already ask; train one with `--method sft` and name it with "
            "--model"
        )
    runs.require(recipe.input, made_by=reading.QUESTION_SETS)
    return reading.inputs(recipe)


def plan(recipe: TrainRecipe) -> dict[str, object]:
    """Question sets, preferences and steps, without loading torch."""
    inputs(recipe)
    counts: Counter[str] = Counter()
    sets = list(reading.question_sets(recipe, counts))
    steps = batches.total_steps(len(sets), batch=recipe.batch, epochs=recipe.epochs) if sets else 0
    return {**counts, "rows": len(sets), "steps": steps}


def run(recipe: TrainRecipe, run: Run) -> dict[str, object]:
    """Train, and leave the policy in checkpoint/."""
    return fit(prepare(recipe), recipe, run)


class Prepared(NamedTuple):
    """All that training needs but the recipe's settings of the loss and the optimizer."""

    policy: "weights.Policy"
    rows: "list[examples.Candidates]"
    layout: "scoring.Layout"
    counts: Counter[str]


def prepare(recipe: TrainRecipe) -> Prepared:
    """The policy, the question sets as sequences, and their log-probabilities under it."""
    # Late, so that `plan` answers without the seconds that torch takes to load.
    from askwell import rendering, weights
    from askwell.training import examples, preferences, scoring

    counts: Counter[str] = Counter()
    policy = weights.load(recipe.model, lora=recipe.lora, trainable=True, seed=recipe.seed)
    rows = examples.of_question_sets(
        reading.question_sets(recipe, counts),
        policy.tokenizer,
        prompt=rendering.system_prompt(recipe.prompt, stop_marker=recipe.stop_marker),
        max_tokens=recipe.max_tokens,
        counts=counts,
        divided=recipe.each is not None,
    )
    if not rows:
        raise DataError(f"{recipe.input}: nothing to train on in split {recipe.split!r} ({dict(counts)})")
    longest = max(len(piece.ids) for row in rows for piece in row.pieces)
    layout = scoring.layout_of(policy.model, recipe, longest=longest)
    if recipe.dpo.precompute:
        rows = preferences.started(policy.model, rows, layout, bfloat16=recipe.precision == "bfloat16")
    return Prepared(policy, rows, layout, counts)


def only(prepared: Prepared, part: TrainRecipe) -> Prepared:
    """What the training in one attribute takes of it."""
    from askwell.training import examples

    [attribute] = part.preferences.attributes
    rows = [kept for row in prepared.rows if (kept := examples.only(row, attribute))]
    return prepared._replace(rows=rows, counts=examples.counted(part, rows))


def fit(prepared: Prepared, recipe: TrainRecipe, run: Run) -> dict[str, object]:
    """Train the prepared policy in place, and leave it in checkpoint/."""
    from askwell.training import loop, preferences

    policy, rows, layout, counts = prepared
    bfloat16 = recipe.precision == "bfloat16"
    task = preferences.task(policy.model, rows, layout, recipe.dpo, adapters=recipe.lora is not None, bfloat16=bfloat16)
    trained = loop.train(policy, task, recipe, run)
    loop.leave(policy, run)
    return {**counts, "rows": len(rows), **trained}
