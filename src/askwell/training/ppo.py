"""`askwell train --method ppo`: proximal policy optimization against reward models (Schulman et al., 2017).

Reads contexts in which somebody was asked something (QuestionSet records of `askwell synthesize` or `askwell contrast`,
Turn records of `askwell label`, Thread records of `askwell ingest --source askdocs`: ALFA takes the posts that its
reward models were trained on), a policy to start from, and one or several reward models of `askwell train --method
reward`, or their average by `askwell merge` (reward fusion). What a reply is worth is in `training.panel`, what is done
with it in `training.actor_critic`, the mathematics in `training.advantages`. Each token pays for its divergence from
the starting policy, at a fixed price or one that holds the divergence near a target (Ziegler et al., 2019).

Writes metrics.jsonl, checkpoint/, and report.json and report.md: the reward models' scales, and how far they agree.
"""

from collections import Counter
from pathlib import Path

from askwell.errors import DataError, RecipeError
from askwell.recipes import TrainRecipe
from askwell.runs import Run
from askwell.training import draws, reading


def inputs(recipe: TrainRecipe) -> list[Path]:
    """The contexts, the policy to start from, the reward models."""
    if recipe.model == "scratch":
        raise RecipeError(
            "method 'ppo' starts from a policy that can already ask; train one with `--method sft` and name it with "
            "--model"
        )
    settings = recipe.rollouts
    if settings.reward.models is None or settings.grader is not None or settings.judge is not None:
        raise RecipeError(
            "method 'ppo' is rewarded by reward models and by nothing else; name those of `askwell train --method "
            "reward` with --rollouts.reward.models.paths, or choose grpo, which takes a grader or a judge beside them"
        )
    for name, other in (("kl", "ppo.kl is its price of divergence"), ("scale", "ppo's advantages are whitened")):
        if value := getattr(settings, name):
            raise RecipeError(f"rollouts.{name} {value!r} is for grpo and its kin, not for ppo ({other}); drop it")
    draws.models_alone(recipe)
    draws.shared(recipe)
    draws.inputs(recipe)
    return [*reading.inputs(recipe), *draws.reward_models(recipe)]


def plan(recipe: TrainRecipe) -> dict[str, object]:
    """Contexts, steps and rollouts, without loading torch."""
    inputs(recipe)
    counts: Counter[str] = Counter()
    chosen = list(draws.asks(recipe, counts))
    steps = draws.steps_of(len(chosen), recipe)
    drawn = steps // draws.per_draw(recipe) * recipe.rollouts.turns * recipe.rollouts.group
    return {**counts, "contexts_trained_on": len(chosen), "steps": steps, "rollouts": drawn}


def run(recipe: TrainRecipe, run: Run) -> dict[str, object]:
    """Train, and leave the policy in checkpoint/."""
    # Late, so that `plan` answers without the seconds that torch takes to load.
    from askwell import weights
    from askwell.training import actor_critic, examples, loop, panel, scoring

    counts: Counter[str] = Counter()
    policy = weights.load(recipe.model, lora=recipe.lora, trainable=True, seed=recipe.seed)
    contexts = examples.to_ask(draws.asks(recipe, counts), policy.tokenizer, recipe=recipe, counts=counts)
    if not contexts:
        raise DataError(f"{recipe.input}: nothing to train on in split {recipe.split!r} ({dict(counts)})")
    chosen = [record for record, _ in contexts.values()]
    longest = max(len(ids) for _, ids in contexts.values()) + recipe.rollouts.max_new_tokens
    layout = scoring.layout_of(policy.model, recipe, longest=longest)
    reference = None
    if recipe.ppo.kl and recipe.lora is None:
        reference = weights.load(recipe.model).model
        scoring.layout_of(reference, recipe, longest=longest)
    steps = draws.steps_of(len(chosen), recipe)
    ids = draws.order(chosen, draws=steps // draws.per_draw(recipe), recipe=recipe)
    judge = panel.open_panel(chosen, recipe, run)
    rows = [(id, contexts[id][1]) for id in ids]
    trained = actor_critic.train(policy, reference, judge, rows, recipe=recipe, run=run, layout=layout, steps=steps)
    loop.leave(policy, run)
    return {**counts, "contexts_trained_on": len(chosen), **trained}
