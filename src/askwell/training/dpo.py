"""`askwell train --method dpo`: direct preference optimization from question sets (Rafailov et al., 2023).

    loss = -log sigmoid(beta * (log-ratio of the better - log-ratio of the worse)), a mean over preferences

where a candidate's log-ratio is the sum of its tokens' log-probabilities, its end-of-turn token included, under the
policy less that under the starting policy (`training.preferences`). Reads QuestionSet records (`askwell contrast`),
writes metrics.jsonl and checkpoint/.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from askwell import runs
from askwell.errors import DataError, RecipeError
from askwell.recipes import TrainRecipe
from askwell.records import QuestionSet
from askwell.runs import Run
from askwell.training import batches, reading
from askwell.training.trees import Piece

MADE_BY = "askwell contrast"


def inputs(recipe: TrainRecipe) -> list[Path]:
    """The question sets and the policy to start from."""
    if recipe.model == "scratch":
        raise RecipeError(
            "method 'dpo' starts from a policy that can already ask; train one with `--method sft` and name it with "
            "--model"
        )
    runs.require(recipe.input, made_by=MADE_BY)
    return reading.inputs(recipe)


def plan(recipe: TrainRecipe) -> dict[str, object]:
    """Question sets, preferences and steps, without loading torch."""
    inputs(recipe)
    counts: Counter[str] = Counter()
    sets = list(chosen(recipe, counts))
    steps = batches.total_steps(len(sets), batch=recipe.batch, epochs=recipe.epochs) if sets else 0
    return {**counts, "rows": len(sets), "steps": steps}


def chosen(recipe: TrainRecipe, counts: Counter[str]) -> Iterator[QuestionSet]:
    """The question sets of the split, with the preferences in the recipe's attributes; counts those without any."""
    wanted, seen = set(recipe.dpo.attributes), set()
    for record in runs.sample_of(recipe.input, QuestionSet, made_by=MADE_BY, split=recipe.split, limit=recipe.limit):
        counts["question_sets"] += 1
        seen |= {preference.attribute for preference in record.preferences}
        kept = tuple(each for each in record.preferences if not wanted or each.attribute in wanted)
        counts["preferences"] += len(kept)
        counts["sets_without_preference"] += not kept
        if kept:
            yield record.model_copy(update={"preferences": kept})
    if unknown := wanted - seen:
        raise RecipeError(
            f"dpo.attributes: no preference in {', '.join(sorted(unknown))} in {recipe.input}; there are preferences "
            f"in {', '.join(sorted(seen)) or 'nothing'}"
        )


def run(recipe: TrainRecipe, run: Run) -> dict[str, object]:
    """Train, and leave the policy in checkpoint/."""
    # Late, so that `plan` answers without the seconds that torch takes to load.
    from askwell import rendering, weights
    from askwell.training import loop, preferences, scoring

    counts: Counter[str] = Counter()
    policy = weights.load(recipe.model, lora=recipe.lora, trainable=True)
    prompt = rendering.system_prompt(recipe.prompt, stop_marker=recipe.stop_marker)
    rows = []
    for record in chosen(recipe, counts):
        fitted = [
            rendering.fit(policy.tokenizer, record.context, each.text, prompt=prompt, room=recipe.max_tokens)
            for each in record.candidates
        ]
        if len({each and each[2] for each in fitted}) > 1 or fitted[0] is None:
            # Candidates that see different contexts cannot be compared.
            counts["sets_too_long"] += 1
            continue
        pieces = [Piece(each[0] + each[1], range(len(each[0]), len(each[0]) + len(each[1]))) for each in fitted if each]
        rows.append(preferences.Row(pieces, [(each.better, each.worse) for each in record.preferences]))
    if not rows:
        raise DataError(f"{recipe.input}: nothing to train on in split {recipe.split!r} ({dict(counts)})")
    longest = max(len(piece.ids) for row in rows for piece in row.pieces)
    layout = scoring.layout_of(policy.model, recipe, longest=longest)
    trained = loop.train(policy, preferences.task(policy.model, rows, layout, recipe.dpo), recipe, run)
    loop.leave(policy, run)
    return {**counts, "rows": len(rows), **trained}
