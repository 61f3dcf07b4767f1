"""`askwell review read`: filled sheets to win-rates by people, and how far they agree with one another and the judge.

A ranking is a comparison of every two questions in it. Raters below `passing` in the screening are left out and
counted; so is what was not ranked, or not with a number. Writes records.jsonl (Comparison; who ranked stands in
`reasons`), report.json and report.md. A file may come from a spreadsheet in any country: separators, byte-order marks,
blank lines, other names of files and rows in any order do not matter.
"""

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from askwell import jsonl, runs
from askwell.errors import DataError
from askwell.evaluation.question_report import as_json, points
from askwell.evaluation.raters import Coefficient, Floats, agreement_of, cohen_interval, majority
from askwell.evaluation.report import cell, plain
from askwell.evaluation.strengths import strengths
from askwell.evaluation.winrates import category, figures, swapped
from askwell.recipes import ReviewReadRecipe
from askwell.records import Comparison, SheetItem
from askwell.sheets import rows_of
from askwell.statistics import Estimate, mean_interval, weighted_interval

MADE_BY, JUDGED_BY = "askwell review sample", "askwell evaluate questions"
WANTED = ("sheet", "item", "letter", "rank")
NUMBER = re.compile(r"([1-9]\d?)(?:[.,]0*)?")
MENU = ("first", "second", "tie")
Place = tuple[str, str, str]
"""A context by its id and two systems, in the order of a comparison."""


class Filled(NamedTuple):
    """A sheet as somebody filled it in: what stands in the rank of each (item, letter)."""

    rater: str
    sheet: int
    ranks: dict[tuple[int, str], str]


def inputs(recipe: ReviewReadRecipe) -> list[Path]:
    """The sheets' key, the filled sheets, and the judge's comparisons."""
    runs.require(recipe.input, made_by=MADE_BY)
    files(recipe.filled)
    runs.require(judged_in(recipe), made_by=JUDGED_BY)
    return [recipe.input, recipe.filled, judged_in(recipe)]


def judged_in(recipe: ReviewReadRecipe) -> Path:
    """The evaluation to compare with."""
    return recipe.judged or Path(json.loads((recipe.input / "recipe.json").read_text(encoding="utf-8"))["input"])


def files(folder: Path) -> list[Path]:
    """The filled sheets, by name."""
    found = sorted(folder.glob("*.csv")) if folder.is_dir() else []
    if not found:
        raise DataError(f"{folder}: no folder with CSV files; put the filled sheets there, one file a rater")
    return found


def plan(recipe: ReviewReadRecipe) -> dict[str, object]:
    """Who has handed in what."""
    inputs(recipe)
    sheets = [read(path) for path in files(recipe.filled)]
    return {"raters": len(sheets), "ranks": sum(bool(rank) for sheet in sheets for rank in sheet.ranks.values())}


def run(recipe: ReviewReadRecipe, run: runs.Run) -> dict[str, object]:
    """Read, compare, report."""
    key = list(jsonl.read(recipe.input / "key.jsonl", SheetItem))
    sheets = [read(path) for path in files(recipe.filled)]
    places = {(item.sheet, item.item, letter) for item in key for letter in item.questions}
    known = {item.sheet for item in key}
    for sheet in sheets:
        file = recipe.filled / f"{sheet.rater}.csv"
        if sheet.sheet not in known:
            raise DataError(f"{file}: sheet {sheet.sheet} is none of {recipe.input}")
        for item, letter in sheet.ranks:
            if (sheet.sheet, item, letter) not in places:
                raise DataError(
                    f"{file}: sheet {sheet.sheet} of {recipe.input} has no question {letter} at item {item}; is it a "
                    "sheet of another sample?"
                )
    raters = {sheet.rater: screening(sheet, key, recipe.passing) for sheet in sheets}
    rows = [row for sheet in sheets if raters[sheet.rater]["passed"] for row in comparisons(sheet, key)]
    jsonl.write(run.records, rows)
    judged = [
        row for row in jsonl.read(judged_in(recipe) / "records.jsonl", Comparison) if row.attribute == recipe.attribute
    ]
    report = build(rows, judged, raters, seed=recipe.seed)
    runs.write_json(run.report, report)
    runs.write_text(run.path / "report.md", markdown(report, recipe))
    return report["counts"]


def read(path: Path) -> Filled:
    """A filled sheet. Raises DataError where it is none: other columns, rows of several sheets, two ranks of one
    question."""
    ranks: dict[tuple[int, str], str] = {}
    numbers: set[int] = set()
    for number, row in rows_of(path, WANTED):
        sheet, item, letter, rank = (row[name] for name in WANTED)
        if not letter:
            continue
        if not (NUMBER.fullmatch(sheet) and re.fullmatch(r"\d+(?:[.,]0*)?", item)):
            raise DataError(f"{path}: row {number}: sheet {sheet!r}, item {item!r}; leave these columns as they were")
        numbers.add(int(re.split("[.,]", sheet)[0]))
        place = int(re.split("[.,]", item)[0]), letter.upper()
        if ranks.setdefault(place, rank) != rank:
            raise DataError(
                f"{path}: row {number}: item {item} has question {letter} twice, ranked otherwise; keep one"
            )
    if len(numbers) != 1:
        raise DataError(f"{path}: rows of {len(numbers)} sheets, where a file is one sheet of one rater")
    return Filled(path.stem, numbers.pop(), ranks)


def screening(sheet: Filled, key: Sequence[SheetItem], passing: float) -> dict[str, Any]:
    """How a rater did where the answer is known: the best question ranked first, and nothing else beside it."""
    own = [item for item in key if item.sheet == sheet.sheet]
    tests = [item for item in own if item.best]
    reached = sum(item.points for item in tests if only_best(item, sheet))
    points = sum(item.points for item in tests)
    ranked = sum(any(sheet.ranks.get((item.item, letter)) for letter in item.questions) for item in own)
    return {
        "sheet": sheet.sheet,
        "items": len(own),
        "ranked": ranked,
        "screening": reached,
        "screening_points": points,
        "passed": not points or reached >= passing * points,
    }


def only_best(item: SheetItem, sheet: Filled) -> bool:
    """Whether a rater ranks the known best question of an item above all others."""
    ranks = {letter: rank_of(sheet.ranks.get((item.item, letter), "")) for letter in item.questions}
    best = ranks.pop(item.best)
    return best is not None and all(rank is None or rank > best for rank in ranks.values())


def rank_of(text: str) -> int | None:
    """A rank as somebody wrote it; None where it is not a number from 1 on."""
    found = NUMBER.fullmatch(text)
    return int(found[1]) if found else None


def comparisons(sheet: Filled, key: Sequence[SheetItem]) -> Iterator[Comparison]:
    """Every two systems at every item of a rater; unscored where one of them has no rank."""
    for item in key:
        if item.sheet != sheet.sheet or item.best:
            continue
        letters = {name: letter for letter, names in item.systems.items() for name in names}
        written = {letter: sheet.ranks.get((item.item, letter), "") for letter in item.questions}
        for first, second in itertools.combinations(sorted(letters), 2):
            yield between(item, sheet.rater, (first, second), (letters[first], letters[second]), written)


def between(
    item: SheetItem, rater: str, couple: tuple[str, str], letters: tuple[str, str], written: Mapping[str, str]
) -> Comparison:
    """One comparison of an item."""
    texts = [item.questions[letter] for letter in letters]
    row = Comparison(
        reply_set_id=item.reply_set_id,
        group=item.group,
        attribute="overall",
        first=couple[0],
        second=couple[1],
        words=(len(texts[0].split()), len(texts[1].split())),
        reasons=(rater,),
    )
    ranks = [rank_of(written[letter]) for letter in letters]
    if None in ranks:
        bad = any(written[letter] for letter in letters if rank_of(written[letter]) is None)
        return row.model_copy(update={"unscored": "rank is no number" if bad else "not ranked"})
    one, other = (rank for rank in ranks if rank is not None)
    score = 0.5 if one == other else float(one < other)
    return row.model_copy(update={"score": score, "verdicts": (category(score),)})


def build(
    rows: Sequence[Comparison], judged: Sequence[Comparison], raters: Mapping[str, Any], *, seed: int
) -> dict[str, Any]:
    """The content of report.json."""
    couples = sorted({(row.first, row.second) for row in rows})
    pairs = []
    for couple in couples:
        own = [row for row in rows if (row.first, row.second) == couple]
        found = as_json(figures(own, seed=seed))
        pairs.append(
            {
                "first": couple[0],
                "second": couple[1],
                **{name: found[name] for name in ("win_rate", "length_controlled", "ties", "longer")},
                "unscored_by_reason": dict(Counter(row.unscored for row in own if row.score is None)),
            }
        )
    return {
        "raters": dict(raters),
        "pairs": pairs,
        "strengths": {name: value._asdict() for name, value in strengths(rows, seed=seed).items()},
        "raters_agree": {name: value._asdict() for name, value in raters_agree(rows).items()},
        "with_judge": {name: value._asdict() for name, value in with_judge(rows, judged, seed=seed).items()},
        "counts": {
            "raters": len(raters),
            "raters who failed the screening": sum(not rater["passed"] for rater in raters.values()),
            "comparisons": len(rows),
            "unscored": sum(row.score is None for row in rows),
        },
    }


def from_both_sides(rows: Sequence[Comparison]) -> dict[Place, list[Comparison]]:
    """The scored comparisons of each two systems at a context, once with either as the first.

    Which of two is called the first is an accident of their names. Over several pairs of systems, correlations and what
    chance agrees on would hang on it; from both sides they do not.
    """
    found: dict[Place, list[Comparison]] = {}
    for row in rows:
        for side in (row, swapped(row)) if row.score is not None else ():
            found.setdefault((side.reply_set_id, side.first, side.second), []).append(side)
    return dict(sorted(found.items()))


def raters_agree(rows: Sequence[Comparison]) -> dict[str, Coefficient]:
    """Agreement on who wins, with standard errors over groups of contexts: the comparisons of one are made of the same
    few rankings. Alpha's correction for small samples takes each rating for two."""
    rated = list(from_both_sides(rows).values())
    votes = [[row.verdicts[0] for row in of] for of in rated]
    found = agreement_of(votes, MENU, [of[0].group for of in rated])
    return {name: value._replace(items=value.items // 2) for name, value in found.items()}


def with_judge(rows: Sequence[Comparison], judged: Sequence[Comparison], *, seed: int) -> dict[str, Estimate]:
    """People against the judge, over the comparisons that both score, from both sides.

    `win_rates`: Pearson's correlation of the win-rates of all pairs of systems. `comparisons`: the same of the scores
    of single comparisons, people's averaged. `kappa` and `equal`: Cohen's kappa and the share of equal outcomes,
    people's by majority; where they have none it is left out.
    """
    by_judge = {place: of[0].score for place, of in from_both_sides(judged).items()}
    both = [
        (place, of, score) for place, of in from_both_sides(rows).items() if (score := by_judge.get(place)) is not None
    ]
    people = np.array([np.mean([row.score or 0.0 for row in of]) for _, of, _ in both], dtype=np.float64)
    judge = np.array([score for _, _, score in both], dtype=np.float64)
    groups = [of[0].group for _, of, _ in both]
    couples = sorted({place[1:] for place, _, _ in both})
    member = np.array([[float(place[1:] == couple) for couple in couples] for place, _, _ in both]).reshape(
        len(both), len(couples)
    )

    def of_win_rates(weights: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            total = weights @ member
            one, other = (weights * people) @ member / total, (weights * judge) @ member / total
        return pearson(one, other, (total > 0).astype(np.float64))

    def of_comparisons(weights: Floats) -> Floats:
        return pearson(np.broadcast_to(people, weights.shape), np.broadcast_to(judge, weights.shape), weights)

    decided = [
        (most, category(score), group)
        for (_, of, score), group in zip(both, groups, strict=True)
        if (most := majority([row.verdicts[0] for row in of]))
    ]
    first, second, clusters = ([entry[i] for entry in decided] for i in range(3))
    found = {
        "win_rates": weighted_interval(of_win_rates, groups, seed=seed)._replace(scored=len(couples)),
        "comparisons": weighted_interval(of_comparisons, groups, seed=seed),
        "equal": mean_interval([float(a == b) for a, b in zip(first, second, strict=True)], clusters, seed=seed),
        "kappa": cohen_interval(first, second, clusters, seed=seed),
    }
    return {name: value._replace(scored=value.scored // 2) for name, value in found.items()}


def pearson(one: Floats, other: Floats, weights: Floats) -> Floats:
    """Pearson's correlation in each row of (B, n); nan where one side does not vary."""
    with np.errstate(invalid="ignore", divide="ignore"):
        one, other = np.where(weights, one, 0), np.where(weights, other, 0)  # what has no weight may have no value
        total = weights.sum(axis=1, keepdims=True)
        a = one - (weights * one).sum(axis=1, keepdims=True) / total
        b = other - (weights * other).sum(axis=1, keepdims=True) / total
        spread = (weights * a * a).sum(axis=1) * (weights * b * b).sum(axis=1)
        return (weights * a * b).sum(axis=1) / np.sqrt(np.where(spread > 1e-18, spread, np.nan))


def markdown(report: Mapping[str, Any], recipe: ReviewReadRecipe) -> str:
    """report.md."""
    counts, judge = report["counts"], report["with_judge"]
    parts = [
        "# What people say of the questions\n",
        f"{counts['raters']} raters, {counts['raters who failed the screening']} of whom failed the screening and are "
        f"left out; {counts['comparisons']} comparisons, {counts['unscored']} unscored. Intervals are 95 %, by "
        f"bootstrap over groups of contexts, with these raters, seed {recipe.seed}.\n",
        "| rater | sheet | items ranked | screening | |",
        "|---|---|---|---|---|",
        *(
            f"| {plain(name)} | {row['sheet']} | {row['ranked']} of {row['items']} | {row['screening']} of "
            f"{row['screening_points']} | {'' if row['passed'] else 'left out'} |"
            for name, row in report["raters"].items()
        ),
        "\n## Win-rates\n",
        "| | win_rate | length_controlled | ties | comparisons | unscored |",
        "|---|---|---|---|---|---|",
        *(
            f"| {plain(pair['first'])} against {plain(pair['second'])} | {cell(pair['win_rate'])} | "
            f"{cell(pair['length_controlled'])} | {cell(pair['ties'])} | {pair['win_rate']['scored']} | "
            f"{pair['win_rate']['unscored']} |"
            for pair in report["pairs"]
        ),
        "\nStrengths by Bradley-Terry, in Elo points around their mean:\n",
        "| system | points |",
        "|---|---|",
        *(f"| {plain(name)} | {points(value)} |" for name, value in report["strengths"].items()),
        "\n## Agreement of the raters\n\nOn who wins, over the comparisons that two or more have made:\n",
        *(
            f"- {name}: {number(value['value'])}, standard error {number(value['standard_error'])}, "
            f"{value['items']} comparisons"
            for name, value in report["raters_agree"].items()
        ),
        f"\n## Agreement with the judge\n\nIn {plain(recipe.attribute)}, over the comparisons that both score:\n",
        f"- Pearson's correlation of the win-rates of {judge['win_rates']['scored']} pairs of systems: "
        f"{cell(judge['win_rates'])}",
        f"- Pearson's correlation of the scores of {judge['comparisons']['scored']} comparisons: "
        f"{cell(judge['comparisons'])}",
        f"- Cohen's kappa with the raters' majority, {judge['kappa']['scored']} comparisons: {cell(judge['kappa'])}; "
        f"equal outcomes {cell(judge['equal'])}",
        "",
    ]
    return "\n".join(parts)


def number(value: float | None) -> str:
    """Three digits, or a dash."""
    return "–" if value is None else f"{value:.3f}"


def load(directory: Path) -> dict[str, Any]:
    """report.json of a finished run."""
    runs.require(directory, made_by="askwell review read")
    return json.loads((directory / "report.json").read_text(encoding="utf-8"))
