"""`askwell train --method grpo|gspo|cispo|rloo`: Learn-to-Ask's reinforcement learning, on TRL's GRPOTrainer.

Reads the Turn records of `askwell label`, a policy to start from and a grader of `askwell grader`, or asks a judge
behind an endpoint. At each step the policy draws a group of rollouts at some turns; each is graded against what
hindsight says of its turn (`grading.rewards`), and those above their group's mean become likelier. A rollout that
cannot be scored is left out of its group's mean and has no advantage. Writes metrics.jsonl and checkpoint/.

Reward models of attributes may add to that reward what they say of questions (`training.panel`): of those whose
decision is right, for asking well where one should stop is no merit, and a stop has no question. Without grader and
judge they are the whole reward, at the contexts of question sets or threads too: what ALFA does by PPO, without a
critic.

Departures from the trainer as it comes: rollouts share their context's computation (`decoding`), log-probabilities come
from question trees (`scoring`), groups are not torn apart by a shuffle, and a killed run goes on to the same curve: all
that is drawn at a step depends on the seed and the step alone.

rloo (Ahmadian et al., 2024) is the trainer's sequence-level loss with the sum of a rollout's log-probabilities and the
mean reward of the others as baseline.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from askwell import endpoints, runs
from askwell.errors import DataError, RecipeError
from askwell.grading.grades import graded
from askwell.grading.judge import Judge as LanguageModel
from askwell.grading.rewards import reward_of
from askwell.llm.client import permit
from askwell.llm.store import store_of
from askwell.recipes import Reward, TrainRecipe
from askwell.records import Grade, Reply, Turn
from askwell.runs import Run
from askwell.training import draws, reading
from askwell.training.draws import Ask, Judge, Worth

GRADER = "askwell grader"
MOST_UNSCORED = 0.02
"""Share of rollouts without a judge's verdict above which training stops: a reward with holes trains the holes."""


def inputs(recipe: TrainRecipe) -> list[Path]:
    """The turns, the policy to start from, the grader."""
    if recipe.model == "scratch":
        raise RecipeError(
            f"method {recipe.method!r} starts from a policy that can already ask; train one with `--method sft` and "
            "name it with --model"
        )
    settings = recipe.rollouts
    if (settings.grader is not None and settings.judge is not None) or not (alone(recipe) or graded_by(recipe)):
        raise RecipeError(
            f"method {recipe.method!r} needs one grader to reward rollouts; name the output of `askwell grader` with "
            "--rollouts.grader, or an endpoint with --rollouts.judge.model and --rollouts.judge.base_url, or reward "
            "models alone with --rollouts.reward.models.paths"
        )
    if settings.group < 2:
        raise RecipeError(
            f"rollouts.group {settings.group}: method {recipe.method!r} compares the rollouts of a group; let it have "
            "2 at least"
        )
    draws.shared(recipe)
    read = [*reading.inputs(recipe), *draws.reward_models(recipe)]
    if alone(recipe):
        draws.models_alone(recipe)
        draws.inputs(recipe)
        return read
    if settings.judge is not None:
        permit(settings.judge, redacted=runs.redacted(recipe.input), what=recipe.input)
        return [*read, *endpoints.inputs(settings.judge)]
    assert settings.grader is not None
    runs.require(settings.grader, made_by=GRADER)
    return [*read, settings.grader]


def graded_by(recipe: TrainRecipe) -> bool:
    """Whether a grader or a judge says what rollouts are worth against their turns' targets."""
    return recipe.rollouts.grader is not None or recipe.rollouts.judge is not None


def alone(recipe: TrainRecipe) -> bool:
    """Whether reward models are the whole reward."""
    return recipe.rollouts.reward.models is not None and not graded_by(recipe)


def plan(recipe: TrainRecipe) -> dict[str, object]:
    """Turns, steps and rollouts, without loading torch."""
    inputs(recipe)
    counts: Counter[str] = Counter()
    chosen = asks(recipe, counts)
    steps = draws.steps_of(len(chosen), recipe)
    drawn = -(-steps // draws.per_draw(recipe)) * recipe.rollouts.turns * recipe.rollouts.group
    return {**counts, "turns_trained_on": len(chosen), "steps": steps, "rollouts": drawn}


def asks(recipe: TrainRecipe, counts: Counter[str]) -> Sequence[Ask]:
    """What to draw rollouts at: for reward models alone any context, else turns with their targets."""
    return list(draws.asks(recipe, counts)) if alone(recipe) else turns(recipe, counts)


def turns(recipe: TrainRecipe, counts: Counter[str]) -> list[Turn]:
    """The turns to draw rollouts at. Without the decision's reward, those where the expert asks."""
    found = list(reading.turns(recipe, counts))
    if recipe.rollouts.reward.mode == "without_decision":
        return [turn for turn in found if turn.target and turn.target.decision == "continue"]
    return found


class Rewarder:
    """Grades rollouts at turns, and says what each is worth; `panel` adds what reward models say, `weight` times."""

    def __init__(
        self,
        chosen: Sequence[Turn],
        graded: Callable[[Sequence[Turn], Sequence[Reply]], list[Grade]],
        rule: Reward,
        panel: Judge | None = None,
    ) -> None:
        self.turns = {turn.id: turn for turn in chosen}
        self.graded = graded
        self.rule = rule
        self.panel = panel

    def grades(self, ids: Sequence[str], replies: Sequence[str]) -> list[Grade]:
        """A grade a reply."""
        said = [Reply(turn_id=id, sample=0, text=text) for id, text in zip(ids, replies, strict=True)]
        return self.graded([self.turns[id] for id in ids], said)

    def rewards(self, grades: Sequence[Grade]) -> list[float | None]:
        """What each is worth by its grade, None where it is unscored."""
        return [reward_of(grade, self.turns[grade.turn_id], self.rule) for grade in grades]

    def worth(self, ids: Sequence[str], replies: Sequence[str], ended: Sequence[bool]) -> Worth:
        """What each is worth in all."""
        grades = self.grades(ids, replies)
        rewards, figures = self.rewards(grades), columns(grades)
        if self.panel is None or self.rule.models is None:
            return Worth(rewards, figures)
        said = self.panel.worth(ids, replies, ended)
        for place, (grade, term) in enumerate(zip(grades, said.rewards, strict=True)):
            if grade.decision == "continue" and grade.decision_score:
                reward = rewards[place]
                rewards[place] = None if reward is None or term is None else reward + self.rule.models.weight * term
        return Worth(rewards, {**said.figures, **figures})


def columns(grades: Sequence[Grade]) -> dict[str, list[float | None]]:
    """What a step's line says of its rollouts, each where it is defined.

    `total` is R_s (1 + 2 R_a) + Omega, whatever was rewarded: the curves of all rewards can stand in one plot.
    """
    asked = [grade.decision == "continue" and bool(grade.decision_score) for grade in grades]
    return {
        "decisions": [grade.decision_score for grade in grades],
        "content": [grade.content_score if right else None for grade, right in zip(grades, asked, strict=True)],
        "total": [grade.reward for grade in grades],
        "stops": [float(grade.decision == "stop") for grade in grades],
    }


@contextmanager
def rewarder(chosen: Sequence[Ask], recipe: TrainRecipe, run: Run) -> Iterator[Judge]:
    """The recipe's reward models alone, or its grader, or its judge for as long as the training lasts."""
    settings = recipe.rollouts
    panel = None
    if settings.reward.models is not None:
        from askwell.training.panel import open_panel

        panel = open_panel(chosen, recipe, run)
    labelled = [record for record in chosen if isinstance(record, Turn)]
    if panel is not None and alone(recipe):
        yield panel
    elif settings.judge is not None:
        store = store_of(settings.judge, recipe.output)
        most = min(MOST_UNSCORED, settings.judge.max_unscored)
        judge = LanguageModel(
            settings.judge,
            store,
            run=str(recipe.output.resolve()),
            stop_marker=recipe.stop_marker,
            most=most,
            name="rollouts.judge",
        )
        try:
            yield Rewarder(labelled, judge.graded, settings.reward, panel)
        finally:
            judge.close()
    else:
        from askwell.grading.slots import SlotGrader

        assert settings.grader is not None
        slots = SlotGrader.load(settings.grader / "checkpoint")
        by_slots = partial(graded, grader=slots, stop_marker=recipe.stop_marker)
        yield Rewarder(labelled, by_slots, settings.reward, panel)


def run(recipe: TrainRecipe, run: Run) -> dict[str, object]:
    """Train, and leave the policy in checkpoint/."""
    # Late, so that `plan` answers without the seconds that torch takes to load.
    from askwell import weights
    from askwell.training import examples, loop, rollouts, scoring

    counts: Counter[str] = Counter()
    policy = weights.load(recipe.model, lora=recipe.lora, trainable=True, seed=recipe.seed)
    found = examples.to_ask(asks(recipe, counts), policy.tokenizer, recipe=recipe, counts=counts)
    if not found:
        raise DataError(f"{recipe.input}: nothing to train on in split {recipe.split!r} ({dict(counts)})")
    chosen = [record for record, _ in found.values()]
    contexts = {id: ids for id, (_, ids) in found.items()}
    longest = max(map(len, contexts.values())) + recipe.rollouts.max_new_tokens
    layout = scoring.layout_of(policy.model, recipe, longest=longest)
    steps = draws.steps_of(len(chosen), recipe)
    ids = draws.order(chosen, draws=steps // draws.per_draw(recipe), recipe=recipe)
    rows = [(id, contexts[id]) for id in ids]
    with rewarder(chosen, recipe, run) as judge:
        trained = rollouts.train(policy, rows, judge, recipe=recipe, run=run, layout=layout, steps=steps)
    loop.leave(policy, run)
    return {**counts, "turns_trained_on": len(chosen), **trained}
