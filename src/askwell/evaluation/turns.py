"""`askwell evaluate turns`: a policy's replies at logged turns, graded against what hindsight says of each.

Reads the turns of `askwell label` and a grader of `askwell grader`; writes replies.jsonl (resumable), records.jsonl
(a Grade a reply, in the order of turns, then samples), report.json, report.md and report.html. Beside the policy stands
the expert, graded by the same grader: the ceiling that this grader allows.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from askwell import endpoints, jsonl, runs, weights
from askwell.errors import DataError, RecipeError
from askwell.evaluation import report, sampling, turn_page
from askwell.evaluation.agreement import Agreement, Opinion, agreement, perplexities
from askwell.evaluation.metrics import expert_replies, figures, truth
from askwell.evaluation.unscored import check_unscored, reply_counts
from askwell.generation import LocalPolicy
from askwell.grading.grades import Grader, graded
from askwell.grading.judge import Judge
from askwell.grading.slots import SlotGrader
from askwell.llm.client import permit
from askwell.llm.store import store_of
from askwell.recipes import EvaluateTurnsRecipe
from askwell.records import Grade, Reply, Turn
from askwell.statistics import Estimate

log = logging.getLogger(__name__)
LABEL, GRADER = "askwell label", "askwell grader"


class Selected(NamedTuple):
    """The turns to evaluate, and how many were passed over for want of a target."""

    turns: list[Turn]
    without_target: int


def inputs(recipe: EvaluateTurnsRecipe) -> list[Path]:
    """What provenance hashes; a policy or reader that is a name on the Hub has no files here.

    Asked for before the run directory is made: what `check` refuses leaves none behind.
    """
    check(recipe)
    paths = [recipe.input, recipe.grader, recipe.second_grader, Path(recipe.policy)]
    if recipe.reader is not None:
        paths.append(Path(recipe.reader))
    judge = [] if recipe.judge is None else endpoints.inputs(recipe.judge)
    return [*(path for path in paths if path is not None and path.exists()), *judge]


def plan(recipe: EvaluateTurnsRecipe) -> dict[str, object]:
    """How many replies will be drawn and graded."""
    inputs(recipe)
    selected = select(recipe)
    return {**counts_of(selected), "replies": len(selected.turns) * recipe.samples}


def run(recipe: EvaluateTurnsRecipe, run: runs.Run) -> dict[str, object]:
    """Draw, grade, report; returns counts."""
    selected = select(recipe)
    turns = selected.turns
    second = SlotGrader.load(recipe.second_grader / "checkpoint") if recipe.second_grader else None
    replies = sampling.draw(
        turns,
        lambda: LocalPolicy.load(recipe.policy, prompt=recipe.prompt, stop_marker=recipe.stop_marker),
        path=run.path / "replies.jsonl",
        how=sampling.Drawing(
            input=recipe.input,
            samples=recipe.samples,
            temperature=recipe.temperature,
            top_p=recipe.top_p,
            max_new_tokens=recipe.max_new_tokens,
            batch=recipe.batch,
            seed=recipe.seed,
        ),
    )
    place = {turn.id: i for i, turn in enumerate(turns)}
    replies = sorted(replies, key=lambda reply: (place[reply.turn_id], reply.sample))
    experts = expert_replies(turns, recipe.stop_marker)
    with grading(recipe) as grade:
        grades = grade(turns, replies)
        jsonl.write(run.records, grades)
        check_unscored(turns, grades, recipe)
        log.info("%d replies graded; intervals and report", len(grades))
        expert_grades = grade(turns, experts)
    counts = {**counts_of(selected), **reply_counts(grades)}
    value = report.build(
        figures(turns, grades, stop_marker=recipe.stop_marker, seed=recipe.seed),
        expert=figures(turns, expert_grades, stop_marker=recipe.stop_marker, seed=recipe.seed),
        agreement=None if second is None else compare(turns, grades, replies, second, recipe=recipe),
        reader=None if recipe.reader is None else read(turns, grades, recipe.reader, recipe=recipe),
        counts=counts,
    )
    runs.write_json(run.report, value)
    runs.write_text(run.path / "report.md", report.markdown(value, turns, grades, recipe=recipe))
    runs.write_text(run.path / "report.html", turn_page.html(value, turns, grades, recipe=recipe))
    return counts


@contextmanager
def grading(recipe: EvaluateTurnsRecipe) -> Iterator[Callable[[Sequence[Turn], Sequence[Reply]], list[Grade]]]:
    """The recipe's grader, or its judge for as long as it is needed."""
    if recipe.judge is not None:
        store, name = store_of(recipe.judge, recipe.output), str(recipe.output.resolve())
        judge = Judge(recipe.judge, store, run=name, stop_marker=recipe.stop_marker)
        try:
            yield judge.graded
        finally:
            log.info("the judge: %s", judge.client.account())
            judge.close()
        return
    assert recipe.grader is not None
    yield partial(graded, grader=SlotGrader.load(recipe.grader / "checkpoint"), stop_marker=recipe.stop_marker)


def check(recipe: EvaluateTurnsRecipe) -> None:
    """Refuse before anything is drawn what would fail after hours."""
    if (recipe.grader is None) == (recipe.judge is None):
        raise RecipeError(
            "one grader evaluates: name the output of `askwell grader` with --grader, or an endpoint with "
            "--judge.model and --judge.base_url"
        )
    runs.require(recipe.input, made_by=LABEL)
    if recipe.judge is not None:
        permit(recipe.judge, redacted=runs.redacted(recipe.input), what=recipe.input)
    if recipe.grader is not None:
        runs.require(recipe.grader, made_by=GRADER)
    if recipe.second_grader is not None:
        runs.require(recipe.second_grader, made_by=GRADER)
        if recipe.grader is not None and recipe.second_grader.resolve() == recipe.grader.resolve():
            raise RecipeError(
                f"second_grader {str(recipe.second_grader)!r} is the grader itself, which agrees with itself; "
                "name the output of another `askwell grader`, or leave it out"
            )
    if recipe.reader is not None and weights.locate(recipe.reader) == weights.locate(recipe.policy):
        raise RecipeError(
            f"reader {recipe.reader!r} is the policy itself, to which its own questions are likely; "
            "name a model that the policy never saw, or leave it out"
        )


def select(recipe: EvaluateTurnsRecipe) -> Selected:
    """The turns of the split that have a target, of `limit` conversations drawn by hash."""
    rows = list(runs.sample_of(recipe.input, Turn, made_by=LABEL, split=recipe.split, limit=recipe.limit))
    turns = [turn for turn in rows if turn.target is not None]
    without_target = len(rows) - len(turns)
    if not turns:
        raise DataError(
            f"{recipe.input}: no turn with a target in split {recipe.split!r} ({without_target} without one); "
            "choose another --split, or ingest with a larger share for it"
        )
    return Selected(turns, without_target)


def compare(
    turns: Sequence[Turn],
    grades: Sequence[Grade],
    replies: Sequence[Reply],
    grader: Grader,
    *,
    recipe: EvaluateTurnsRecipe,
) -> Agreement:
    """The second grader's opinion of the same replies."""
    marker = recipe.stop_marker
    opinion = Opinion(
        policy=graded(turns, replies, grader, stop_marker=marker),
        expert=graded(turns, expert_replies(turns, marker), grader, stop_marker=marker),
    )
    return agreement(turns, grades, opinion, stop_marker=marker, seed=recipe.seed)


def read(
    turns: Sequence[Turn], grades: Sequence[Grade], name: str, *, recipe: EvaluateTurnsRecipe
) -> dict[str, Estimate]:
    """Perplexities under the reader."""
    reader = LocalPolicy.load(name)
    return perplexities(turns, grades, reader, batch=recipe.batch, stop_marker=recipe.stop_marker, seed=recipe.seed)


def counts_of(selected: Selected) -> dict[str, object]:
    """What is evaluated."""
    decisions = Counter(truth(turn) for turn in selected.turns)
    return {
        "turns": len(selected.turns),
        "turns: continue": decisions["continue"],
        "turns: stop": decisions["stop"],
        "turns without target": selected.without_target,
        "conversations": len({turn.conversation_id for turn in selected.turns}),
    }
