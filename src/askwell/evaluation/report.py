"""What an evaluation leaves: report.json with every figure, report.md for a person to read.

`table` prints one row a report, for studies that compare several. Text from logs
and policies is data: in the markdown it can neither end a line nor open a cell, a code span, a link or a tag.
"""

import json
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from askwell import runs
from askwell.evaluation.agreement import Agreement
from askwell.evaluation.metrics import MEANING, PAPER, join, truth
from askwell.recipes import EvaluateTurnsRecipe
from askwell.records import Grade, Turn
from askwell.statistics import Estimate

Figures = Mapping[str, Mapping[str, Any]]
"""Figures as report.json holds them: {name: {value, low, high, scored, unscored}}."""

FICTION = (
    "A small invented world with known truth: it shows which way methods move, never how a large model would score."
)
"""What stands in every report in which the simulated clinic has a part."""
LAST_MESSAGES = 4
LONGEST_TEXT = 400
AGREEMENT = {
    "equal_sets": "share of questions in which both graders read the same slots, where both score",
    "abstains": "share of questions at which at least one grader abstains",
    "equal_content": "share of equal content scores where the expert asks too and both graders score",
    "difference": "reward under the first grader less reward under the second, over the same questions; well above 0, "
    "the policy pleases the first alone",
}


def build(
    figures: Mapping[str, Estimate],
    *,
    expert: Mapping[str, Estimate],
    agreement: Agreement | None,
    reader: Mapping[str, Estimate] | None,
    counts: Mapping[str, object],
) -> dict[str, Any]:
    """The content of report.json."""
    return {
        "figures": as_json(figures),
        "expert": as_json(expert),
        "agreement": None if agreement is None else agreement_as_json(agreement),
        "reader": None if reader is None else as_json(reader),
        "counts": dict(counts),
    }


def as_json(figures: Mapping[str, Estimate]) -> dict[str, dict[str, Any]]:
    """{name: {value, low, high, scored, unscored}}."""
    return {name: estimate._asdict() for name, estimate in figures.items()}


def agreement_as_json(agreement: Agreement) -> dict[str, Any]:
    """The comparison, and all figures under the second grader."""
    return {
        **as_json({name: getattr(agreement, name) for name in AGREEMENT}),
        "figures": as_json(agreement.second),
        "expert": as_json(agreement.second_expert),
    }


def load(directory: Path) -> dict[str, Any]:
    """report.json of a finished evaluation."""
    runs.require(directory, made_by="askwell evaluate turns")
    return json.loads((directory / "report.json").read_text(encoding="utf-8"))


def table(rows: Mapping[str, Figures], names: Sequence[str] = PAPER) -> str:
    """One markdown row a report, one column a figure, each with its interval; last the share of unscored questions."""
    lines = [f"| | {' | '.join(names)} | unscored |", f"|---|{'---|' * len(names)}---|"]
    for title, figures in rows.items():
        cells = [cell(figures[name]) for name in (*names, "unscored")]
        lines.append(f"| {plain(title)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def cell(figure: Mapping[str, Any]) -> str:
    """`0.61 [0.58, 0.64]`; no interval where there is but one conversation, a dash where nothing is scored."""
    if figure["value"] is None:
        return "–"
    value = f"{figure['value']:.3f}"
    return value if figure["low"] is None else f"{value} [{figure['low']:.3f}, {figure['high']:.3f}]"


def markdown(
    report: Mapping[str, Any], turns: Sequence[Turn], grades: Sequence[Grade], *, recipe: EvaluateTurnsRecipe
) -> str:
    """report.md: figures beside the expert's, what they mean, second opinions, counts, sampled turns."""
    parts = [
        f"# {plain(recipe.policy)} at logged turns\n",
        terms(recipe, quoted=plain) + "\n",
        figure_table(report["figures"], report["expert"]),
    ]
    if (agreement := report["agreement"]) is not None:
        parts += [
            f"## The second grader\n\n{plain(str(recipe.second_grader))} on the same replies.\n",
            meaning_table({name: agreement[name] for name in AGREEMENT}, AGREEMENT),
            table(
                {
                    "policy": report["figures"],
                    "policy, second grader": agreement["figures"],
                    "expert": report["expert"],
                    "expert, second grader": agreement["expert"],
                }
            ),
        ]
    if (reader := report["reader"]) is not None:
        meaning = {
            "policy": "perplexity of the policy's questions where both ask",
            "expert": "perplexity of the experts' own questions at the same turns",
        }
        parts += [f"## The reader\n\nUnder {plain(str(recipe.reader))}.\n", meaning_table(reader, meaning)]
    parts += ["## Counts\n", "".join(f"- {plain(name)}: {count}\n" for name, count in report["counts"].items())]
    parts += ["## Sampled turns\n", *shown(turns, grades, recipe=recipe)]
    return "\n".join(parts)


def terms(recipe: EvaluateTurnsRecipe, *, quoted: Callable[[str], str]) -> str:
    """What was evaluated and by whom, in a few sentences; `quoted` makes names harmless where they are to stand."""
    judge = recipe.judge
    by = str(recipe.grader) if judge is None else f"{judge.model} at {judge.base_url}"
    return (
        f"Turns of {quoted(str(recipe.input))}, split {recipe.split}; graded by {quoted(by)}. Replies a turn: "
        f"{recipe.samples}, temperature {recipe.temperature}, top_p {recipe.top_p}, seed {recipe.seed}. Intervals are "
        "95 %, by bootstrap over conversations. “Expert” is the logged expert under the same grader: the ceiling that "
        "it allows. What is unscored is left out of a mean and counted. Only questions at turns where the expert asks "
        "too can be unscored: the more of them there are, the more FC and TR speak of stops and wrong decisions."
    )


def figure_table(figures: Figures, expert: Figures) -> str:
    """Every figure of the policy beside the expert's, with what it means."""
    lines = ["| | policy | expert | scored | unscored | |", "|---|---|---|---|---|---|"]
    for name, meaning in MEANING.items():
        figure = figures[name]
        lines.append(
            f"| {name} | {cell(figure)} | {cell(expert[name])} "
            f"| {figure['scored']} | {figure['unscored']} | {meaning} |"
        )
    return "\n".join(lines) + "\n"


def meaning_table(figures: Figures, meaning: Mapping[str, str]) -> str:
    """A figure a row, with what it means."""
    lines = ["| | value | scored | unscored | |", "|---|---|---|---|---|"]
    for name, text in meaning.items():
        figure = figures[name]
        lines.append(f"| {name} | {cell(figure)} | {figure['scored']} | {figure['unscored']} | {text} |")
    return "\n".join(lines) + "\n"


def shown(turns: Sequence[Turn], grades: Iterable[Grade], *, recipe: EvaluateTurnsRecipe) -> list[str]:
    """One section a sampled turn: the end of its context, what expert and policy said, truth and grade."""
    chosen = pick(turns, recipe.shown, seed=recipe.seed)
    first = {item.turn.id: item.grade for item in join(turns, grades) if item.grade.sample == 0}
    sections = []
    for turn in chosen:
        grade = first[turn.id]
        facts = turn.target.facts if turn.target else None
        lines = [f"### {plain(turn.id)}\n"]
        lines += [f"- {message.role}: {plain(message.content)}" for message in turn.context[-LAST_MESSAGES:]]
        asks = truth(turn) == "continue"
        lines += [
            f"- **expert** ({'asks' if asks else 'stops'}): {plain(turn.expert_reply)}",
            f"- **policy**: {plain(grade.reply)}",
            f"- still to find out: {plain(', '.join(facts)) if facts else 'nothing' if facts == () else 'not known'}; "
            f"known: {plain(', '.join(turn.known)) or 'nothing'}",
            f"- decision {score(grade.decision_score)}, content {score(grade.content_score)}, format "
            f"{score(grade.format_score)}, reward {score(grade.reward)}: {plain(grade.reason)}",
        ]
        sections.append("\n".join(lines) + "\n")
    return sections


def pick(turns: Sequence[Turn], count: int, *, seed: int) -> list[Turn]:
    """`count` turns in their order, stops and continues in equal parts as far as there are enough of both."""
    draw = random.Random(seed)
    of = {decision: [i for i, turn in enumerate(turns) if truth(turn) == decision] for decision in ("continue", "stop")}
    stops = min(len(of["stop"]), max(count // 2, count - len(of["continue"])))
    chosen = draw.sample(of["stop"], stops)
    chosen += draw.sample(of["continue"], min(len(of["continue"]), count - stops))
    return [turns[i] for i in sorted(chosen)]


def score(value: float | None) -> str:
    """A score as a person writes it."""
    return "unscored" if value is None else f"{value:g}"


def plain(text: str) -> str:
    """Foreign text on one line, without a character that markdown or a terminal would act on."""
    line = " ".join(text.split())
    if len(line) > LONGEST_TEXT:
        line = line[:LONGEST_TEXT] + " …"
    line = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)
    return re.sub(r"([\\`|<\[\]*])", r"\\\1", line)
