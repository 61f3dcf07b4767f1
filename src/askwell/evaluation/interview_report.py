"""report.json and report.md of interviews: the figures, what they lie between, and some interviews to read."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from askwell.evaluation.interview_figures import (
    TITLES,
    as_json,
    blind,
    distribution,
    figures,
    sweep,
    trust,
    usage,
)
from askwell.evaluation.report import FICTION, cell, plain
from askwell.evaluation.stopping import TITLES as STOPS
from askwell.evaluation.stopping import Stops
from askwell.recipes import CLINIC, EvaluateInterviewsRecipe
from askwell.records import Case, Episode
from askwell.statistics import Estimate, mean_interval


def build(
    recipe: EvaluateInterviewsRecipe,
    cases: Sequence[Case],
    episodes: Sequence[Episode | None],
    *,
    bounds: Mapping[str, Sequence[Episode | None]],
    full: Sequence[bool | None] | None,
    unheld: Counter[str],
    best: Sequence[Estimate] = (),
    stops: Stops | None = None,
) -> dict[str, Any]:
    """The content of report.json; a pure function of what was said, so that a run that was cut ends with the same."""
    seed, groups = recipe.seed, [case.group for case in cases]
    held = [episode for episode in episodes if episode is not None]
    unread: Counter[str] = Counter()
    for episode in held:
        unread.update(episode.unread)
    worth = trust(episodes, cases, seed=seed)
    cuts = {"confidence": sweep(episodes, cases, by="confidence", highest=None)}
    if any(episode.first_sure is not None for episode in held):
        cuts["abstention"] = sweep(episodes, cases, by="sure", highest=recipe.abstention.at)
    everything = None
    if full is not None:
        everything = mean_interval([None if hit is None else float(hit) for hit in full], groups, seed=seed)
    main, *others = (
        as_json(figures(them, cases, most=recipe.most, seed=seed, full=full)) for them in (episodes, *bounds.values())
    )
    return {
        "figures": main,
        "bounds": dict(zip(bounds, others, strict=True)),
        "best possible": [estimate._asdict() for estimate in best],
        "stops": None if stops is None else {name: found._asdict() for name, found in stops._asdict().items()},
        "everything known": None if everything is None else everything._asdict(),
        "content blind": {name: estimate._asdict() for name, estimate in blind(cases, seed=seed).items()},
        "groups": len(set(groups)),
        "distribution": distribution(episodes),
        "ends": dict(sorted(Counter(episode.end for episode in held).items())),
        "calibration": {
            "error": worth.error._asdict(),
            "brier": worth.brier._asdict(),
            "bins": [bin._asdict() for bin in worth.bins],
        },
        "risk coverage": {"curve": [point._asdict() for point in worth.curve], "area": worth.area},
        "thresholds": {name: [cut._asdict() for cut in found] for name, found in cuts.items()},
        "usage": usage(episodes),
        "unread": dict(sorted(unread.items())),
        "unscored": dict(unheld.most_common()),
    }


def who(recipe: EvaluateInterviewsRecipe) -> str:
    """The asker's name."""
    if recipe.policy:
        return recipe.policy
    asker = recipe.asker or recipe.abstention.endpoint or recipe.decision
    return "asker" if asker is None else asker.model


def fictional(recipe: EvaluateInterviewsRecipe) -> bool:
    """Whether the simulated clinic has any part in it."""
    roles = (recipe.asker, recipe.abstention.endpoint, recipe.decision, recipe.who_is_asked.endpoint)
    return recipe.cases == "clinic" or any(role is not None and role.base_url == CLINIC for role in roles)


def markdown(
    report: Mapping[str, Any],
    episodes: Sequence[Episode | None],
    cases: Sequence[Case],
    *,
    recipe: EvaluateInterviewsRecipe,
) -> str:
    """report.md."""
    rows, best = rows_of(report, recipe), report["best possible"]
    names = [*map(plain, rows), *(["best possible"] if best else [])]
    place = "in the simulated clinic" if recipe.cases == "clinic" else f"with the cases of {plain(recipe.cases)}"
    held = sum(episode is not None for episode in episodes)
    parts = [
        f"# Interviews {place}\n",
        *([FICTION + "\n"] if fictional(recipe) else []),
        f"{held} of {len(cases)} cases interviewed, from {report['groups']} groups; at most {recipe.most} questions. "
        f"{terms(recipe)} Intervals: 95 %, bootstrap over groups. What could not be read is unscored: left out of a "
        "figure, and counted beside it, as is what a figure does not speak of.\n",
        "## Accuracy, and what it lies between\n",
        *accuracies(report, rows),
        "## Figures\n",
        f"| | {' | '.join(map(plain, rows))} | left out |",
        f"|---|{'---|' * (len(rows) + 1)}",
        *(
            f"| {title} | {' | '.join(cell(found[name]) for found in rows.values())} | "
            f"{report['figures'][name]['unscored']} |"
            for name, title in TITLES.items()
        ),
        "",
        *stops_table(report, recipe),
        "## Accuracy over the number of questions\n",
        "Who has stopped keeps the decision.\n",
        f"| questions | {' | '.join(names)} | interviews that ended here |",
        f"|---|{'---|' * (len(rows) + bool(best) + 1)}",
    ]
    for count in range(recipe.most + 1):
        found = [cell(row["curve"][count]) for row in rows.values()]
        found += [cell(best[count]) if count < len(best) else "–"] * bool(best)
        cells = " | ".join(found)
        parts.append(f"| {count} | {cells} | {report['distribution'].get(str(count), 0)} |")
    parts += ["", *confidence(report), *thresholds(report), *costs(report), *left_out(report)]
    parts.append("## Interviews\n")
    pairs = [(episode, case) for episode, case in zip(episodes, cases, strict=True) if episode is not None]
    for episode, case in pairs[: recipe.shown]:
        parts += interview(episode, case)
    return "\n".join(parts)


def rows_of(report: Mapping[str, Any], recipe: EvaluateInterviewsRecipe) -> dict[str, Mapping[str, Any]]:
    """The asker's figures first, then those of its bounds, by name."""
    bounds = {f"clinic:{name}" if recipe.lockstep else name: found for name, found in report["bounds"].items()}
    return {who(recipe): report["figures"], **bounds}


def terms(recipe: EvaluateInterviewsRecipe) -> str:
    """Who stopped and who decided, in a sentence."""
    if recipe.policy == "random":
        return "The expert asks, stops and decides at random."
    rule = recipe.abstention
    at = "" if rule.at is None else f" at {rule.at:g}"
    stops = (
        "its own marker ends an interview" if rule.rule == "own" else f"the rule `{rule.rule}`{at} ends an interview"
    )
    decides = "exact reasoning weighs what was brought to light" if recipe.decision is None else "a model decides"
    return f"Patient: `{recipe.who_is_asked.kind}`; {stops}; {decides}."


def accuracy_rows(report: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Every accuracy on these cases, from what needs no reading to what all that is known allows."""
    entries = dict(report["content blind"])
    first, *others = rows.items()
    entries["no question"] = first[1]["curve"][0]
    entries |= {name: found["accuracy"] for name, found in others}
    entries[first[0]] = first[1]["accuracy"]
    if report["everything known"] is not None:
        entries["everything known"] = report["everything known"]
    return entries


def accuracies(report: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The same as a table."""
    entries = accuracy_rows(report, rows)
    lines = [f"| {plain(name)} | {cell(figure)} | {figure['unscored']} |" for name, figure in entries.items()]
    return ["| | accuracy | left out |", "|---|---|---|", *lines, ""]


def stopping_terms(recipe: EvaluateInterviewsRecipe) -> str:
    """Against whom stops are held, in a sentence."""
    return (
        f"The reference asker stops where no further question is worth {recipe.cost:g} of a right diagnosis; it is "
        "asked what it would do at every point, with what was brought to light by then."
    )


def stops_table(report: Mapping[str, Any], recipe: EvaluateInterviewsRecipe) -> list[str]:
    """Stops against the reference asker's; nothing where nobody knows when to stop."""
    if report["stops"] is None:
        return []
    lines = [f"| {title} | {cell(report['stops'][name])} |" for name, title in STOPS.items()]
    heading = ["## Stops, against the reference asker's\n", stopping_terms(recipe) + "\n", "| | |", "|---|---|"]
    return [*heading, *lines, ""]


def confidence(report: Mapping[str, Any]) -> list[str]:
    """What the decision maker's confidence is worth."""
    found, risk = report["calibration"], report["risk coverage"]
    if found["error"]["value"] is None:
        return []
    lines = [
        "## Confidence\n",
        f"Expected calibration error {cell(found['error'])} (ten bins; small samples raise it, which its interval "
        f"takes off), Brier score {cell(found['brier'])}, area under the risk-coverage curve {risk['area']:.3f}.\n",
        "| surest share | accuracy |",
        "|---|---|",
        *(f"| {point['coverage']:.2f} | {point['accuracy']:.3f} |" for point in risk["curve"]),
        "",
        "| confidence | decisions | mean confidence | accuracy |",
        "|---|---|---|---|",
    ]
    for bin in found["bins"]:
        if bin["decisions"]:
            shares = f"{bin['confidence']:.3f} | {bin['accuracy']:.3f}"
            lines.append(f"| {bin['low']:.1f} to {bin['high']:.1f} | {bin['decisions']} | {shares} |")
    return [*lines, ""]


def thresholds(report: Mapping[str, Any]) -> list[str]:
    """What other thresholds would have given."""
    lines = []
    for name, cuts in report["thresholds"].items():
        if len(cuts) < 2:
            continue
        what = "the decision maker is" if name == "confidence" else "the abstention rule is"
        lines += [
            f"## If interviews ended once {what} this sure\n",
            "Read off the same interviews; nothing was asked again.\n",
            "| threshold | accuracy | questions |",
            "|---|---|---|",
            *(
                f"| {cut['threshold']:.3f} | {'–' if cut['accuracy'] is None else format(cut['accuracy'], '.3f')} | "
                f"{cut['questions']:.2f} |"
                for cut in cuts
            ),
            "",
        ]
    return lines


def costs(report: Mapping[str, Any]) -> list[str]:
    """Calls, tokens and cost."""
    if not report["usage"]:
        return []
    return [
        "## Calls\n",
        "What these interviews take, without their bounds, by the endpoints' own counts; answers that were stored "
        "already cost nothing again.\n",
        "| role | calls | prompt tokens | completion tokens | cost |",
        "|---|---|---|---|---|",
        *(
            f"| {plain(role)} | {used['calls']} | {used['prompt_tokens']} | {used['completion_tokens']} | "
            f"{used['cost']:.4f} |"
            for role, used in report["usage"].items()
        ),
        "",
    ]


def left_out(report: Mapping[str, Any]) -> list[str]:
    """What could not be read, and the interviews that could not be held."""
    lines = [f"- {name} that could not be read: {count}" for name, count in report["unread"].items()]
    lines += [f"- interviews not held, {plain(reason)}: {count}" for reason, count in report["unscored"].items()]
    return ["## Unscored\n", *lines, ""] if lines else []


def interview(episode: Episode, case: Case) -> list[str]:
    """An interview, with what was believed at each turn."""

    def named(choice: str | None) -> str:
        return "unscored" if choice is None else plain(case.options[choice])

    def sure(value: float | None) -> str:
        return "" if value is None else f", {value:.2f}"

    lines = [f"**{plain(case.id)}: {plain(case.inquiry)}** {named(case.answer)}\n"]
    lines += [
        f"> {plain(case.initial_information)}\n",
        f"({named(episode.first_choice)}{sure(episode.first_confidence)})\n",
    ]
    for exchange in episode.exchanges:
        lines.append(
            f"* {plain(exchange.question)}\n  {plain(exchange.answer)} ({named(exchange.choice)}"
            f"{sure(exchange.confidence)})"
        )
    return [*lines, f"\nDecision: {named(episode.decision)}; {episode.end}.\n"]
