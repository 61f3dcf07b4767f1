"""What an evaluation of questions leaves: report.json with every figure, report.md for a person to read.

Text from logs and systems is data: in the markdown it can neither end a line nor open a cell, a link or a tag.
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from askwell import runs
from askwell.evaluation.report import FICTION, cell, plain
from askwell.evaluation.strengths import strengths
from askwell.evaluation.winrates import MEANING, Figures, figures, judges, unscored
from askwell.recipes import CLINIC, EvaluateQuestionsRecipe
from askwell.records import Comparison, ReplySet
from askwell.statistics import mean_interval

LAST_MESSAGES = 4


def build(
    recipe: EvaluateQuestionsRecipe,
    sets: Sequence[ReplySet],
    comparisons: Sequence[Comparison],
    second: Sequence[Comparison] | None,
) -> dict[str, Any]:
    """The content of report.json."""
    counts = Counter("unscored" if row.score is None else "scored" for row in comparisons)
    return {
        "systems": {name: said(name, sets) for name in recipe.names},
        "attributes": {
            name: of_attribute(
                recipe,
                [row for row in comparisons if row.attribute == name],
                None if second is None else [row for row in second if row.attribute == name],
            )
            for name in dict.fromkeys(row.attribute for row in comparisons)
        },
        "counts": {
            "contexts": len(sets),
            "groups": len({row.group for row in sets}),
            "comparisons": len(comparisons),
            "scored": counts["scored"],
            "unscored": counts["unscored"],
            "unscored by reason": unscored(comparisons),
        },
    }


def said(name: str, sets: Sequence[ReplySet]) -> dict[str, Any]:
    """How much a system says, and where it says nothing."""
    rows = [row for row in sets if name in row.replies]
    lengths = [float(len(row.replies[name].split())) for row in rows]
    return {
        "replies": len(rows),
        "words": mean_interval(lengths, [row.group for row in rows])._asdict(),
        "distinct": len({" ".join(row.replies[name].casefold().split()) for row in rows}),
        "missing": dict(Counter(row.missing[name] for row in sets if name in row.missing).most_common()),
    }


def of_attribute(
    recipe: EvaluateQuestionsRecipe, comparisons: Sequence[Comparison], second: Sequence[Comparison] | None
) -> dict[str, Any]:
    """Figures of every pair in one attribute, and the strengths of all systems where there are more than two."""
    found: dict[str, Any] = {"pairs": [], "strengths": None}
    for couple in dict.fromkeys((row.first, row.second) for row in comparisons):
        rows = [row for row in comparisons if (row.first, row.second) == couple]
        others = [row for row in second or () if (row.first, row.second) == couple]
        found["pairs"].append(of_pair(recipe, couple, rows, None if second is None else others))
    if len(recipe.names) > 2:
        points = strengths(comparisons, reference=recipe.reference or None, seed=recipe.seed)
        found["strengths"] = {name: estimate._asdict() for name, estimate in points.items()}
    return found


def of_pair(
    recipe: EvaluateQuestionsRecipe,
    couple: tuple[str, str],
    rows: Sequence[Comparison],
    others: Sequence[Comparison] | None,
) -> dict[str, Any]:
    """Figures of one pair."""
    missed = sum(row.score is None for row in rows)
    found: dict[str, Any] = {
        "first": couple[0],
        "second": couple[1],
        **as_json(figures(rows, dropped=recipe.compat == "dropped_losses", seed=recipe.seed)),
        "comparisons": len(rows),
        "unscored": missed,
        "unscored_share": missed / len(rows),
        "unscored_by_reason": unscored(rows),
        "equal_texts": sum(row.score is not None and not row.verdicts for row in rows),
        "second_judge": None,
    }
    if others is not None:
        agreed = judges(rows, others, seed=recipe.seed)
        found["second_judge"] = {
            "equal": agreed.equal._asdict(),
            "kappa": agreed.kappa._asdict(),
            "unscored": sum(row.score is None for row in others),
            **as_json(figures(others, seed=recipe.seed)),
        }
    return found


def as_json(found: Figures) -> dict[str, Any]:
    """{name: {value, low, high, scored, unscored}}."""
    return {name: None if value is None else value._asdict() for name, value in found._asdict().items()}


def load(directory: Path) -> dict[str, Any]:
    """report.json of a finished run."""
    runs.require(directory, made_by="askwell evaluate questions")
    return json.loads((directory / "report.json").read_text(encoding="utf-8"))


def fictional(recipe: EvaluateQuestionsRecipe) -> bool:
    """Whether the simulated clinic judges or asks."""
    roles = (recipe.judge, recipe.second_judge, *(system.endpoint for system in recipe.systems.values()))
    return any(role is not None and role.base_url == CLINIC for role in roles)


def terms(report: Mapping[str, Any], recipe: EvaluateQuestionsRecipe, *, quoted: Callable[[str], str]) -> str:
    """What was compared and by whom, in a few sentences; `quoted` makes names harmless where they are to stand."""
    counts = report["counts"]
    by = " and ".join(
        quoted(f"{judge.model} at {judge.base_url}") for judge in (recipe.judge, recipe.second_judge) if judge
    )
    return (
        f"{counts['contexts']} contexts of {counts['groups']} groups of {quoted(str(recipe.input))}, split "
        f"{recipe.split}; judged by {by}, each pair in both orders. {counts['scored']} comparisons are scored, "
        f"{counts['unscored']} unscored: left out of every figure, never a loss. Intervals are 95 %, by bootstrap over "
        f"groups, seed {recipe.seed}."
    )


def markdown(
    report: Mapping[str, Any],
    sets: Sequence[ReplySet],
    comparisons: Sequence[Comparison],
    recipe: EvaluateQuestionsRecipe,
) -> str:
    """report.md."""
    counts = report["counts"]
    parts = [
        "# Which system asks the better question\n",
        *([FICTION + "\n"] if fictional(recipe) else []),
        terms(report, recipe, quoted=plain) + "\n",
        *system_table(report),
    ]
    for name, found in report["attributes"].items():
        parts += [f"## {plain(name)}\n", pair_table(found["pairs"]), *second_table(found["pairs"])]
        if found["strengths"]:
            parts += [
                "Strengths by Bradley-Terry over all comparisons, in Elo points (400 points are odds of ten to one):\n",
                "\n".join(
                    ["| system | points |", "|---|---|"]
                    + [f"| {plain(system)} | {points(figure)} |" for system, figure in found["strengths"].items()]
                )
                + "\n",
            ]
    parts += ["## What the columns mean\n", *(f"- {name}: {text}" for name, text in MEANING.items()), ""]
    if counts["unscored"]:
        parts += ["## Unscored\n", *(f"- {plain(why)}: {n}" for why, n in counts["unscored by reason"].items()), ""]
    parts += ["## Comparisons\n", *shown(sets, comparisons, recipe)]
    return "\n".join(parts)


def system_table(report: Mapping[str, Any]) -> Iterator[str]:
    """What each system says."""
    yield "| system | replies | missing | different texts | words |"
    yield "|---|---|---|---|---|"
    for name, found in report["systems"].items():
        missing = sum(found["missing"].values())
        words = tenths(found["words"])
        yield f"| {plain(name)} | {found['replies']} | {missing} | {found['distinct']} | {words} |"
    yield ""


def pair_table(pairs: Sequence[Mapping[str, Any]]) -> str:
    """One row a pair."""
    names = [name for name in MEANING if pairs[0].get(name) is not None]
    lines = [f"| | {' | '.join(names)} | unscored |", f"|---|{'---|' * len(names)}---|"]
    for pair in pairs:
        cells = " | ".join(cell(pair[name]) for name in names)
        title = f"{plain(pair['first'])} against {plain(pair['second'])}"
        lines.append(f"| {title} | {cells} | {pair['unscored']} of {pair['comparisons']} |")
    return "\n".join(lines) + "\n"


def second_table(pairs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What the second judge says."""
    if pairs[0]["second_judge"] is None:
        return
    yield "The second judge:\n"
    yield "| | win_rate | length_controlled | equal outcomes | kappa | unscored |"
    yield "|---|---|---|---|---|---|"
    for pair in pairs:
        found = pair["second_judge"]
        cells = " | ".join(cell(found[name]) for name in ("win_rate", "length_controlled", "equal", "kappa"))
        yield f"| {plain(pair['first'])} against {plain(pair['second'])} | {cells} | {found['unscored']} |"
    yield ""


def points(figure: Mapping[str, Any]) -> str:
    """`1042 [1003, 1080]`."""
    if figure["value"] is None:
        return "–"
    return f"{figure['value']:.0f}" + ("" if figure["low"] is None else f" [{figure['low']:.0f}, {figure['high']:.0f}]")


def tenths(figure: Mapping[str, Any]) -> str:
    """`11.2 [10.8, 11.6]`."""
    if figure["value"] is None:
        return "–"
    return f"{figure['value']:.1f}" + ("" if figure["low"] is None else f" [{figure['low']:.1f}, {figure['high']:.1f}]")


def shown(
    sets: Sequence[ReplySet], comparisons: Sequence[Comparison], recipe: EvaluateQuestionsRecipe
) -> Iterator[str]:
    """A section a comparison, drawn by the seed among those that were judged."""
    by_id = {row.id: row for row in sets}
    judged = [row for row in comparisons if row.verdicts]
    for row in random.Random(recipe.seed).sample(judged, min(recipe.shown, len(judged))):
        context, replies = by_id[row.reply_set_id].context, by_id[row.reply_set_id].replies
        lines = [f"### {plain(row.reply_set_id)}, {plain(row.attribute)}\n"]
        lines += [f"- {message.role}: {plain(message.content)}" for message in context[-LAST_MESSAGES:]]
        lines += [f"- **{plain(name)}**: {plain(replies[name])}" for name in (row.first, row.second)]
        for place, (verdict, reason) in enumerate(zip(row.verdicts, row.reasons, strict=True)):
            order = row.first if place == 0 else row.second
            won = {"first": row.first, "second": row.second, "tie": "neither"}[verdict]
            lines.append(f"- {plain(order)} shown first: **{plain(won)}**; {plain(reason)}")
        yield "\n".join(lines) + "\n"
