"""report.html of an evaluation of questions: win-rates, what stands behind them, and contexts to unfold."""

from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any

from askwell.evaluation.page import (
    SHOWN,
    Mark,
    begun,
    cell,
    conversation,
    ends,
    escape,
    folded,
    legend,
    strip,
    table,
)
from askwell.evaluation.question_report import fictional, terms
from askwell.evaluation.report import FICTION
from askwell.evaluation.winrates import MEANING, key
from askwell.recipes import EvaluateQuestionsRecipe
from askwell.records import Comparison, ReplySet

TITLES = {
    "win_rate": "win-rate",
    "length_controlled": "at equal length",
    "consistency": "same verdict in both orders",
    "shown_first": "shown first wins",
    "ties": "ties",
    "longer": "first is longer",
    "losses_dropped": "losses dropped",
}
"""The figures of winrates.MEANING in a few words."""


def html(
    report: Mapping[str, Any],
    sets: Sequence[ReplySet],
    comparisons: Sequence[Comparison],
    second: Sequence[Comparison] | None,
    *,
    recipe: EvaluateQuestionsRecipe,
) -> str:
    """The page."""
    parts = begun("Which system asks the better question")
    if fictional(recipe):
        parts.append(f"<p class=note>{FICTION}</p>")
    parts.append(f"<p>{terms(report, recipe, quoted=escape)}</p>")
    if reasons := report["counts"]["unscored by reason"]:
        said = "; ".join(f"{why} ({count})" for why, count in reasons.items())
        parts.append(f"<p class=note>Unscored: {escape(said)}.</p>")
    parts += ["<h2>Win-rates</h2>", legend({"a": TITLES["win_rate"], "b": TITLES["length_controlled"]})]
    for name, found in report["attributes"].items():
        parts.append(f"<h3>{escape(name)}</h3>")
        parts += [block for pair in found["pairs"] for block in win_rate(pair)]
        parts.append(folded("All figures", [figures(found["pairs"])]))
    parts += [*strengths(report), *second_judge(report), "<h2>What each system says</h2>", systems(report)]
    meanings = [(title, MEANING[name]) for name, title in TITLES.items() if recipe.compat or name != "losses_dropped"]
    parts += ["<h2>What the figures mean</h2>", "<ul>"]
    parts += [f"<li><b>{title}</b>: {meaning}</li>" for title, meaning in meanings]
    parts += ["</ul>", "<h2>Contexts</h2>", *contexts(sets, comparisons, second, seed=recipe.seed)]
    return "\n".join(parts) + "\n"


def against(pair: Mapping[str, Any]) -> str:
    """A pair's name."""
    return f"{pair['first']} against {pair['second']}"


def win_rate(pair: Mapping[str, Any]) -> list[str]:
    """A pair's win-rate, as it is and at equal length, with what one must know to trust it."""
    plain, level = pair["win_rate"], pair["length_controlled"]
    names = ["win_rate", "length_controlled", "consistency", "losses_dropped"]
    lines = [f"{TITLES[name]} {bare(pair[name])}" for name in names if pair[name] is not None]
    return [
        f"<p class=row><b>{escape(against(pair))}</b> <small>{plain['scored']} comparisons, {pair['unscored']} "
        f"unscored ({pair['unscored_share']:.0%})</small></p>",
        strip([Mark(plain, "a"), Mark(level, "b")], middle=0.5),
        ends(f"{pair['second']} better", f"{pair['first']} better"),
        f"<p class=say>{'; '.join(lines)}</p>",
    ]


def bare(figure: Mapping[str, Any]) -> str:
    """A figure without what is left out, which stands beside it already."""
    return cell({**figure, "unscored": 0})


def figures(pairs: Sequence[Mapping[str, Any]]) -> str:
    """Every figure of every pair of one attribute."""
    names = [name for name in TITLES if pairs[0][name] is not None]
    rows = [(against(pair), *(bare(pair[name]) for name in names), str(pair["unscored"])) for pair in pairs]
    return table(rows, head=("", *(TITLES[name] for name in names), "unscored"))


def strengths(report: Mapping[str, Any]) -> Iterator[str]:
    """Bradley-Terry's strengths by attribute, where more than two systems were compared."""
    found = {name: entry["strengths"] for name, entry in report["attributes"].items() if entry["strengths"]}
    if not found:
        return
    yield "<h2>Strengths</h2>"
    yield (
        "<p>By Bradley-Terry over all comparisons, in Elo points: 400 points are odds of ten to one. Intervals are "
        "those of the distance to the reference, or to the mean of all.</p>"
    )
    figures = [figure for of in found.values() for figure in of.values()]
    seen = [figure[end] for figure in figures for end in ("low", "value", "high") if figure[end] is not None]
    least, most = min(seen, default=0.0), max(seen, default=0.0)
    for attribute, of in found.items():
        yield f"<h3>{escape(attribute)}</h3>"
        for name, figure in of.items():
            yield f"<p class=row><b>{escape(name)}</b> {cell(figure, 0)}</p>"
            yield strip([Mark(figure, "a")], least=least, most=most)
        yield ends(f"{least:.0f}", f"{most:.0f}")


def second_judge(report: Mapping[str, Any]) -> Iterator[str]:
    """How far the second judge agrees, and what it says."""
    pairs = [
        (f"{against(pair)}, {name}", pair["win_rate"], pair["second_judge"])
        for name, found in report["attributes"].items()
        for pair in found["pairs"]
        if pair["second_judge"] is not None
    ]
    if not pairs:
        return
    yield "<h2>The second judge</h2>"
    yield legend({"a": "win-rate by the judge", "b": "by the second judge"})
    for name, first, other in pairs:
        yield f"<p class=row><b>{escape(name)}</b> <small>both score {other['equal']['scored']}</small></p>"
        yield strip([Mark(first, "a"), Mark(other["win_rate"], "b")], middle=0.5)
        yield (
            f"<p class=say>equal outcomes {bare(other['equal'])}; kappa {bare(other['kappa'])}; its win-rate "
            f"{cell(other['win_rate'])}</p>"
        )


def systems(report: Mapping[str, Any]) -> str:
    """How much each system says, and where it says nothing."""
    rows = [
        (
            name,
            str(found["replies"]),
            str(sum(found["missing"].values())),
            str(found["distinct"]),
            cell(found["words"], 1),
        )
        for name, found in report["systems"].items()
    ]
    return table(rows, head=("", "replies", "missing", "different texts", "words"))


def contexts(
    sets: Sequence[ReplySet], comparisons: Sequence[Comparison], second: Sequence[Comparison] | None, *, seed: int
) -> Iterator[str]:
    """A sample of the contexts at which something was judged, to unfold: what each system asks there, and what the
    judges say of every pair."""
    rows: dict[str, list[Comparison]] = {}
    for row in comparisons:
        rows.setdefault(row.reply_set_id, []).append(row)
    others = {key(row): row for row in second or ()}
    judged = [row for row in sets if any(found.verdicts for found in rows.get(row.id, ()))]
    for place in sorted(Random(seed).sample(range(len(judged)), min(SHOWN, len(judged)))):
        row = judged[place]
        parts = conversation(row.context)
        for name, text in (row.replies | row.missing).items():
            said = escape(text) if name in row.replies else f"<i>{escape(text)}</i>"
            parts.append(f"<p class=ask>{escape(name)}</p><p class=say>{said}</p>")
        parts += [part for found in rows[row.id] for part in comparison(found, others.get(key(found)))]
        last = shortened(row.context[-1].content) if row.context else "nobody has spoken"
        yield folded(f"{escape(row.id)} <small>{escape(last)}</small>", parts)


def comparison(row: Comparison, other: Comparison | None) -> list[str]:
    """The verdicts of both orders with their reasons; then what the second judge makes of it."""
    parts = [f"<p class=ask>{escape(row.attribute)}: {escape(row.first)} and {escape(row.second)}, {outcome(row)}</p>"]
    for place, (verdict, reason) in enumerate(zip(row.verdicts, row.reasons, strict=False)):
        winner = {"first": row.first, "second": row.second, "tie": "neither"}[verdict]
        shown = (row.first, row.second)[place]
        parts.append(
            f"<p class=say><small>{escape(shown)} shown first:</small> <b>{escape(winner)}</b>; {escape(reason)}</p>"
        )
    if other is not None and (row.score, other.score) != (None, None):
        parts.append(f"<p class=say><small>The second judge: {outcome(other)}.</small></p>")
    return parts


def outcome(row: Comparison) -> str:
    """What the first gets, in words, as markup."""
    if row.score is None:
        return f"unscored ({escape(row.unscored or '')})"
    if not row.verdicts:
        return "equal texts"
    if row.score == 0.5:
        return "tie"
    how = "" if row.score in (0, 1) else " narrowly"
    return f"{escape(row.first if row.score > 0.5 else row.second)} wins{how}"


def shortened(text: str, most: int = 80) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[:most].rsplit(" ", 1)[0] + " …"
