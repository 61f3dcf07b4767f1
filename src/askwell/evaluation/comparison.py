"""`askwell evaluate compare FIRST SECOND`: two runs of interviews, case by case.

Only cases that both runs interviewed and decided can say which is better; the others are counted. Differences have
intervals by a bootstrap that draws the same groups for both. McNemar's test looks at the cases that one run decides
rightly and the other wrongly; it takes cases as independent, so where groups hold several of them the interval is the
one to trust. Writes records.jsonl (Pair), report.json and report.md.
"""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from askwell import jsonl, runs
from askwell.errors import DataError
from askwell.evaluation import equal_questions
from askwell.evaluation.interview_figures import course
from askwell.evaluation.report import cell, plain
from askwell.recipes import CompareRecipe
from askwell.records import Case, Episode, Record
from askwell.statistics import Estimate, difference_interval

MADE_BY = "askwell evaluate interviews"
TITLES = {
    "accuracy": "share decided rightly",
    "at equal questions": "share decided rightly after as many questions",
    "questions": "questions an interview",
    "collected": "share of the facts said by the end",
    "no question": "share decided rightly before any question",
}


class Side(Record):
    """A case in one run: whether it was decided rightly, and would have been before the first question and after each
    (None: unscored)."""

    right: bool | None
    course: tuple[float | None, ...]
    collected: float | None

    @property
    def questions(self) -> int:
        return len(self.course) - 1

    @property
    def right_at_first(self) -> float | None:
        return self.course[0]


class Pair(Record):
    """A case in both runs."""

    case_id: str
    group: str
    first: Side
    second: Side


def inputs(recipe: CompareRecipe) -> list[Path]:
    """Both runs."""
    for path in (recipe.first, recipe.second):
        runs.require(path, made_by=MADE_BY)
        if not (path / "cases.jsonl").is_file():
            raise DataError(f"{path}: no cases.jsonl in it, which tells the truth; hold these interviews again")
    return [recipe.first, recipe.second]


def plan(recipe: CompareRecipe) -> dict[str, object]:
    """How many cases both have."""
    inputs(recipe)
    first, second = sides(recipe.first), sides(recipe.second)
    return {"cases in both": len(first.keys() & second.keys())}


def run(recipe: CompareRecipe, run: runs.Run) -> dict[str, object]:
    """Pair and compare."""
    first, second = sides(recipe.first), sides(recipe.second)
    pairs = [
        Pair(case_id=name, group=group, first=side, second=second[name][1])
        for name, (group, side) in first.items()
        if name in second
    ]
    if not pairs:
        raise DataError(f"{recipe.first} and {recipe.second} have no case in common; compare runs over the same cases")
    jsonl.write(run.records, pairs)
    alone = {"first": len(first.keys() - second.keys()), "second": len(second.keys() - first.keys())}
    report = {**compared(pairs, seed=recipe.seed), "in one run alone": alone}
    runs.write_json(run.report, report)
    runs.write_text(run.path / "report.md", markdown(report, recipe))
    return {
        "cases in both": len(pairs),
        "groups": report["groups"],
        "difference in accuracy": report["differences"]["accuracy"]["value"],
        "McNemar p": report["mcnemar"]["p"],
    }


def sides(path: Path) -> dict[str, tuple[str, Side]]:
    """Group and outcome of every interview of a run, by case."""
    cases = {case.id: case for case in jsonl.read(path / "cases.jsonl", Case)}
    episodes = runs.records_of(path, Episode, made_by=MADE_BY)
    return {e.case_id: (cases[e.case_id].group, side(e, cases[e.case_id])) for e in episodes}


def side(episode: Episode, case: Case) -> Side:
    """What came of an interview."""
    facts = {fact for exchange in episode.exchanges for fact in exchange.revealed}.intersection(case.facts)
    return Side(
        right=None if episode.decision is None else episode.decision == case.answer,
        course=course(episode, case),
        collected=len(facts) / len(set(case.facts)) if case.facts else None,
    )


def compared(pairs: Sequence[Pair], *, seed: int = 0) -> dict[str, Any]:
    """First less second, with intervals over groups, and McNemar's test."""
    groups = [pair.group for pair in pairs]

    def difference(values: Sequence[tuple[float | None, float | None]]) -> Estimate:
        # A case that one run left undecided says nothing of the difference.
        both = [(None, None) if None in value else value for value in values]
        found = difference_interval([one for one, _ in both], groups, [other for _, other in both], groups, seed=seed)
        return found._replace(scored=found.scored // 2, unscored=found.unscored // 2)

    fields = {"accuracy": "right", "questions": "questions", "collected": "collected", "no question": "right_at_first"}
    values = {
        name: [(getattr(pair.first, field), getattr(pair.second, field)) for pair in pairs]
        for name, field in fields.items()
    }
    courses = [pair.first.course for pair in pairs], [pair.second.course for pair in pairs]
    questions = min(map(equal_questions.mean_questions, courses))
    values["at equal questions"] = list(zip(*(equal_questions.cut(side, questions) for side in courses), strict=True))
    table = Counter((pair.first.right, pair.second.right) for pair in pairs)
    only_first, only_second = table[True, False], table[False, True]
    return {
        "cases": len(pairs),
        "groups": len(set(groups)),
        "equal questions": questions,
        "differences": {name: difference(values[name])._asdict() for name in TITLES},
        "both right": table[True, True],
        "both wrong": table[False, False],
        "mcnemar": {"first alone": only_first, "second alone": only_second, "p": mcnemar(only_first, only_second)},
    }


def mcnemar(one: int, other: int) -> float:
    """Exact two-sided p: how likely so uneven a split of `one + other` fair coins is, or a more uneven one."""
    count, fewer = one + other, min(one, other)
    return min(1.0, 2 * sum(math.comb(count, k) for k in range(fewer + 1)) / 2**count)


def markdown(report: dict[str, Any], recipe: CompareRecipe) -> str:
    """report.md."""
    test = report["mcnemar"]
    alone = report["in one run alone"]
    lines = [
        f"# {plain(str(recipe.first))} less {plain(str(recipe.second))}\n",
        f"{report['cases']} cases from {report['groups']} groups that both interviewed; {alone['first']} and "
        f"{alone['second']} are in one run alone. Intervals: 95 %, bootstrap over groups, the same for both. A case "
        "that either left undecided is left out. As many questions: the interviews of the one that asks more are cut "
        f"so that both have {report['equal questions']:.2f} in the mean.\n",
        "| first less second | difference | cases | left out |",
        "|---|---|---|---|",
        *(
            f"| {title} | {cell(report['differences'][name])} | {report['differences'][name]['scored']} | "
            f"{report['differences'][name]['unscored']} |"
            for name, title in TITLES.items()
        ),
        "",
        f"Both right {report['both right']}, both wrong {report['both wrong']}, the first alone {test['first alone']}, "
        f"the second alone {test['second alone']}: McNemar's exact test, p = {test['p']:.4g} (two-sided; it takes "
        "cases as independent).",
    ]
    return "\n".join(lines) + "\n"
