"""`askwell train --each attribute`: a policy (or a reward model) for each attribute, all from one start.

What ALFA fuses (section 4.3). The model is loaded once, its weights are put back before each training; a question set's
sequences are rendered once, and so are their log-probabilities under the starting policy. Leaves a run directory for
each attribute:

    OUTPUT/ATTRIBUTE/    recipe.json (a training in this attribute alone), metrics.jsonl, checkpoint/, report.json,
                         manifest.json

so that `--model OUTPUT/ATTRIBUTE` names a policy, and the same command goes on after the last one that was finished.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from askwell import runs
from askwell.errors import DataError, RecipeError, RunError
from askwell.recipes import TrainRecipe
from askwell.runs import Run
from askwell.training import dpo, reading, reward

STAGES = {"dpo": dpo, "reward": reward}


def inputs(recipe: TrainRecipe) -> list[Path]:
    """Those of the method."""
    if (processes := runs.processes()) > 1:
        raise RecipeError(
            f"each {recipe.each!r} trains in one process, not {processes}; train each attribute by itself with "
            "--preferences.attributes"
        )
    return STAGES[recipe.method].inputs(recipe)


def plan(recipe: TrainRecipe) -> dict[str, object]:
    """The plan of the method for each attribute, without loading torch."""
    inputs(recipe)
    return {
        f"{attribute} {name}": count
        for attribute in attributes(recipe)
        for name, count in STAGES[recipe.method].plan(part_of(recipe, attribute)).items()
    }


def attributes(recipe: TrainRecipe) -> list[str]:
    """The attributes that the chosen preferences are in, in the alphabet's order."""
    counts: Counter[str] = Counter()
    found = {each.attribute for record in reading.question_sets(recipe, counts) for each in record.preferences}
    if not found:
        raise DataError(f"{recipe.input}: nothing to train on in split {recipe.split!r} ({dict(counts)})")
    for name in found:
        if name.startswith(".") or Path(name).name != name:
            raise DataError(f"{recipe.input}: attribute {name!r} cannot name a folder, which `each` makes of it")
    return sorted(found)


def part_of(recipe: TrainRecipe, attribute: str) -> TrainRecipe:
    """The recipe of one attribute's training."""
    chosen = recipe.preferences.model_copy(update={"attributes": (attribute,)})
    return recipe.model_copy(
        update={"each": None, "preferences": chosen, "output": recipe.output / attribute},
    )


def run(recipe: TrainRecipe, run: Run) -> dict[str, object]:
    """Train for one attribute after another."""
    stage: Any = STAGES[recipe.method]
    parts = {attribute: part_of(recipe, attribute) for attribute in attributes(recipe)}
    left = {attribute: part for attribute, part in parts.items() if not done(part)}
    if left:
        prepared = stage.prepare(recipe)
        weights = [weight for weight in prepared[0].model.parameters() if weight.requires_grad]
        start = [weight.detach().clone().cpu() for weight in weights]
        # All of them first: one that has nothing to train on is refused before another is trained.
        chosen = {attribute: stage.only(prepared, part) for attribute, part in left.items()}
        for attribute, part in left.items():
            for weight, before in zip(weights, start, strict=True):
                weight.data.copy_(before)
            with runs.start(part, "train", inputs=stage.inputs(part)) as opened:
                opened.finish(stage.fit(chosen[attribute], part, opened))
    counts = {attribute: runs.counts_of(part.output) for attribute, part in parts.items()}
    return {f"{attribute} {name}": count for attribute, found in counts.items() for name, count in found.items()}


def done(part: TrainRecipe) -> bool:
    """Whether an attribute's training is finished. Raises RunError where another recipe's is."""
    if not runs.finished(part.output):
        return False
    if changed := runs.changes(part.output, part, "train"):
        raise RunError(f"{part.output}: a finished run of another recipe ({changed}); delete it first")
    return True
