"""`askwell train --method grpo|gspo|cispo|rloo`: Learn-to-Ask's reinforcement learning, on TRL's GRPOTrainer.

Reads the Turn records of `askwell label`, a policy to start from and a grader of `askwell grader`, or asks a judge
behind an endpoint. At each step the policy draws a group of rollouts at some turns; each is graded against what
hindsight says of its turn (`grading.rewards`), and those above their group's mean become likelier. A rollout that
cannot be scored is left out of its group's mean and has no advantage. Writes metrics.jsonl and checkpoint/.

Departures from the trainer as it comes: rollouts share their context's computation (`decoding`), log-probabilities come
from question trees (`scoring`), groups are not torn apart by a shuffle, and a killed run goes on to the same curve: all
that is drawn at a step depends on the seed and the step alone.

rloo (Ahmadian et al., 2024) is the trainer's sequence-level loss with the sum of a rollout's log-probabilities and the
mean reward of the others as baseline.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from askwell import endpoints, runs
from askwell.errors import DataError, RecipeError
from askwell.grading.grades import graded
from askwell.grading.judge import Judge
from askwell.grading.rewards import reward_of
from askwell.llm.client import permit
from askwell.llm.store import store_of
from askwell.recipes import Reward, TrainRecipe
from askwell.records import Grade, Reply, Turn
from askwell.runs import Run
from askwell.training import reading

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
    if (settings.grader is None) == (settings.judge is None):
        raise RecipeError(
            f"method {recipe.method!r} needs one grader to reward rollouts; name the output of `askwell grader` with "
            "--rollouts.grader, or an endpoint with --rollouts.judge.model and --rollouts.judge.base_url"
        )
    if settings.grader is not None:
        runs.require(settings.grader, made_by=GRADER)
    if recipe.rollouts.turns % recipe.rollouts.updates:
        raise RecipeError(
            f"rollouts.turns {recipe.rollouts.turns} cannot be shared by {recipe.rollouts.updates} updates; make it a "
            "multiple"
        )
    read = reading.inputs(recipe)
    if settings.judge is not None:
        permit(settings.judge, redacted=runs.redacted(recipe.input), what=recipe.input)
        return [*read, *endpoints.inputs(settings.judge)]
    assert settings.grader is not None
    return [*read, settings.grader]


def plan(recipe: TrainRecipe) -> dict[str, object]:
    """Turns, steps and rollouts, without loading torch."""
    inputs(recipe)
    counts: Counter[str] = Counter()
    chosen = turns(recipe, counts)
    steps = steps_of(len(chosen), recipe)
    drawn = -(-steps // per_draw(recipe)) * recipe.rollouts.turns * recipe.rollouts.group
    return {**counts, "turns_trained_on": len(chosen), "steps": steps, "rollouts": drawn}


def turns(recipe: TrainRecipe, counts: Counter[str]) -> list[Turn]:
    """The turns to draw rollouts at. Without the decision's reward, those where the expert asks."""
    found = list(reading.turns(recipe, counts))
    if recipe.rollouts.reward.mode == "without_decision":
        return [turn for turn in found if turn.target and turn.target.decision == "continue"]
    return found


def per_draw(recipe: TrainRecipe) -> int:
    """Optimizer steps on the rollouts drawn at once."""
    return recipe.rollouts.updates * recipe.rollouts.iterations


def steps_of(count: int, recipe: TrainRecipe) -> int:
    """Optimizer steps of the whole training: an epoch draws once at each of `count` turns."""
    draws = max(1, round(recipe.epochs * count / recipe.rollouts.turns))
    return draws * per_draw(recipe)


def order(chosen: Sequence[Turn], *, draws: int, recipe: TrainRecipe) -> list[str]:
    """Turn ids for all draws, epoch after epoch: dialogues shuffled, the turns of each together, in their order."""
    dialogues: dict[str, list[str]] = {}
    for turn in chosen:
        dialogues.setdefault(turn.conversation_id, []).append(turn.id)
    wanted = draws * recipe.rollouts.turns
    ids: list[str] = []
    epoch = 0
    while len(ids) < wanted:
        shuffled = sorted(dialogues)
        random.Random(f"{recipe.seed}/{epoch}").shuffle(shuffled)
        ids += [id for name in shuffled for id in dialogues[name]]
        epoch += 1
    return ids[:wanted]


class Rewarder:
    """Grades rollouts at turns, and says what each is worth."""

    def __init__(
        self, chosen: Sequence[Turn], graded: Callable[[Sequence[Turn], Sequence[Reply]], list[Grade]], rule: Reward
    ) -> None:
        self.turns = {turn.id: turn for turn in chosen}
        self.graded = graded
        self.rule = rule

    def grades(self, ids: Sequence[str], replies: Sequence[str]) -> list[Grade]:
        """A grade a reply."""
        said = [Reply(turn_id=id, sample=0, text=text) for id, text in zip(ids, replies, strict=True)]
        return self.graded([self.turns[id] for id in ids], said)

    def rewards(self, grades: Sequence[Grade]) -> list[float | None]:
        """What each is worth, None where it is unscored."""
        return [reward_of(grade, self.turns[grade.turn_id], self.rule) for grade in grades]


@contextmanager
def rewarder(chosen: Sequence[Turn], recipe: TrainRecipe) -> Iterator[Rewarder]:
    """The recipe's grader, or its judge for as long as the training lasts."""
    settings = recipe.rollouts
    if settings.judge is not None:
        store = store_of(settings.judge, recipe.output)
        most = min(MOST_UNSCORED, settings.judge.max_unscored)
        judge = Judge(
            settings.judge, store, run=str(recipe.output.resolve()), stop_marker=recipe.stop_marker, most=most
        )
        try:
            yield Rewarder(chosen, judge.graded, settings.reward)
        finally:
            judge.close()
        return
    from askwell.grading.slots import SlotGrader

    assert settings.grader is not None
    slots = SlotGrader.load(settings.grader / "checkpoint")
    yield Rewarder(chosen, partial(graded, grader=slots, stop_marker=recipe.stop_marker), settings.reward)


def run(recipe: TrainRecipe, run: Run) -> dict[str, object]:
    """Train, and leave the policy in checkpoint/."""
    # Late, so that `plan` answers without the seconds that torch takes to load.
    from askwell import rendering, weights
    from askwell.training import loop, rollouts, scoring

    counts: Counter[str] = Counter()
    policy = weights.load(recipe.model, lora=recipe.lora, trainable=True, seed=recipe.seed)
    prompt = rendering.system_prompt(recipe.prompt, stop_marker=recipe.stop_marker)
    contexts: dict[str, list[int]] = {}
    chosen = []
    for turn in turns(recipe, counts):
        room = recipe.max_tokens - recipe.rollouts.max_new_tokens
        fitted = rendering.fit(policy.tokenizer, turn.context, None, prompt=prompt, room=room)
        if fitted is None:
            counts["turns_too_long"] += 1
            continue
        contexts[turn.id], _, left_out = fitted
        counts["turns_cut"] += bool(left_out)
        counts["messages_left_out"] += left_out
        chosen.append(turn)
    if not chosen:
        raise DataError(f"{recipe.input}: nothing to train on in split {recipe.split!r} ({dict(counts)})")
    longest = max(map(len, contexts.values())) + recipe.rollouts.max_new_tokens
    layout = scoring.layout_of(policy.model, recipe, longest=longest)
    steps = steps_of(len(chosen), recipe)
    ids = order(chosen, draws=steps // per_draw(recipe), recipe=recipe)
    with rewarder(chosen, recipe) as judge:
        trained = rollouts.train(policy, contexts, ids, judge, recipe=recipe, run=run, layout=layout, steps=steps)
    loop.leave(policy, run)
    return {**counts, "turns_trained_on": len(chosen), **trained}
