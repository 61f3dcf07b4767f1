"""`askwell train --method grpo|gspo|cispo|rloo`: Learn-to-Ask's reinforcement learning, on TRL's GRPOTrainer.

Reads the Turn records of `askwell label`, a policy to start from and a grader of `askwell grader`. At each step the
policy draws a group of rollouts at some turns; each is graded against what hindsight says of its turn
(`grading.rewards`), and those above their group's mean become likelier. A rollout that cannot be scored is left out of
its group's mean and has no advantage. Writes metrics.jsonl and checkpoint/.

Departures from the trainer as it comes: rollouts share their context's computation (`decoding`), log-probabilities come
from question trees (`scoring`), groups are not torn apart by a shuffle, and a killed run goes on to the same curve: all
that is drawn at a step depends on the seed and the step alone.

rloo (Ahmadian et al., 2024) is the trainer's sequence-level loss with the sum of a rollout's log-probabilities and the
mean reward of the others as baseline.
"""

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from askwell import runs
from askwell.errors import DataError, RecipeError
from askwell.grading.replies import parse
from askwell.grading.rewards import grade, reward_of
from askwell.recipes import TrainRecipe
from askwell.records import Grade, Turn
from askwell.runs import Run
from askwell.training import reading

if TYPE_CHECKING:
    from askwell.grading.slots import SlotGrader

GRADER = "askwell grader"


def inputs(recipe: TrainRecipe) -> list[Path]:
    """The turns, the policy to start from, the grader."""
    if recipe.model == "scratch":
        raise RecipeError(
            f"method {recipe.method!r} starts from a policy that can already ask; train one with `--method sft` and "
            "name it with --model"
        )
    if recipe.rollouts.grader is None:
        raise RecipeError(
            f"method {recipe.method!r} needs a grader to reward rollouts; name the output of `askwell grader` with "
            "--rollouts.grader"
        )
    runs.require(recipe.rollouts.grader, made_by=GRADER)
    if recipe.rollouts.turns % recipe.rollouts.updates:
        raise RecipeError(
            f"rollouts.turns {recipe.rollouts.turns} cannot be shared by {recipe.rollouts.updates} updates; make it a "
            "multiple"
        )
    return [*reading.inputs(recipe), recipe.rollouts.grader]


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


class Judge:
    """Grades rollouts at turns, and says what each is worth."""

    def __init__(self, chosen: Sequence[Turn], grader: "SlotGrader", recipe: TrainRecipe) -> None:
        self.turns = {turn.id: turn for turn in chosen}
        self.grader = grader
        self.rule = recipe.rollouts.reward
        self.stop_marker = recipe.stop_marker

    def grades(self, ids: Sequence[str], replies: Sequence[str]) -> list[Grade]:
        """A grade a reply."""
        at = [self.turns[id] for id in ids]
        said = [parse(reply, self.stop_marker).text for reply in replies]
        pairs = [(turn.service or "", text) for turn, text in zip(at, said, strict=True)]
        asked = self.grader.asked(pairs)
        return [
            grade(
                turn,
                reply,
                0,
                asked=asks if turn.service else None,
                slots=self.grader.slots(service),
                stop_marker=self.stop_marker,
            )
            for turn, reply, asks, (service, _) in zip(at, replies, asked, pairs, strict=True)
        ]

    def rewards(self, grades: Sequence[Grade]) -> list[float | None]:
        """What each is worth, None where it is unscored."""
        return [reward_of(grade, self.turns[grade.turn_id], self.rule) for grade in grades]


def run(recipe: TrainRecipe, run: Run) -> dict[str, object]:
    """Train, and leave the policy in checkpoint/."""
    # Late, so that `plan` answers without the seconds that torch takes to load.
    from askwell import rendering, weights
    from askwell.grading.slots import SlotGrader
    from askwell.training import loop, rollouts, scoring

    counts: Counter[str] = Counter()
    policy = weights.load(recipe.model, lora=recipe.lora, trainable=True)
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
    assert recipe.rollouts.grader is not None
    judge = Judge(chosen, SlotGrader.load(recipe.rollouts.grader / "checkpoint"), recipe)
    steps = steps_of(len(chosen), recipe)
    ids = order(chosen, draws=steps // per_draw(recipe), recipe=recipe)
    trained = rollouts.train(policy, contexts, ids, judge, recipe=recipe, run=run, layout=layout, steps=steps)
    loop.leave(policy, run)
    return {**counts, "turns_trained_on": len(chosen), **trained}
