"""report.html of interviews: curves, calibration, and interviews to unfold."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

from askwell.evaluation.interview_figures import TITLES
from askwell.evaluation.interview_report import accuracy_rows, fictional, rows_of, stopping_terms, terms
from askwell.evaluation.page import SHOWN, Mark, begun, cell, escape, folded, strip, table
from askwell.evaluation.report import FICTION
from askwell.evaluation.stopping import TITLES as STOPS
from askwell.recipes import EvaluateInterviewsRecipe
from askwell.records import Case, Episode

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 300, 48, 16, 14, 40


class Series(NamedTuple):
    """A line of a plot: points (x, y) and, where there is one, the interval of y at each."""

    name: str
    color: str
    points: list[tuple[float, float]]
    intervals: list[tuple[float, float]] | None = None


def html(
    report: Mapping[str, Any],
    episodes: Sequence[Episode | None],
    cases: Sequence[Case],
    *,
    recipe: EvaluateInterviewsRecipe,
) -> str:
    """The page."""
    rows = rows_of(report, recipe)
    title = f"{next(iter(rows))}: {sum(e is not None for e in episodes)} interviews"
    parts = [
        *begun(title),
        *([f"<p class=note>{FICTION}</p>"] if fictional(recipe) else []),
        f"<p>{escape(terms(recipe).replace('`', ''))} At most {recipe.most} questions; {report['groups']} groups. "
        "Intervals are 95 %, by bootstrap over groups. What could not be read is left out, and counted.</p>",
        unscored(report),
        "<h2>Accuracy, and what it lies between</h2>",
        table([(name, cell(figure)) for name, figure in accuracy_rows(report, rows).items()], own=next(iter(rows))),
        "<h2>Accuracy over the number of questions</h2>",
        plot(
            [line_of(name, found, color) for (name, found), color in zip(rows.items(), "abcd", strict=False)],
            across="questions",
            most=recipe.most,
        ),
        "<p class=soft>Who has stopped keeps the decision.</p>",
        "<h2>How many questions</h2>",
        bars(report["distribution"]),
        *confidence(report),
        "<h2>Figures</h2>",
        table([(title, cell(report["figures"][name])) for name, title in TITLES.items()]),
        *stops(report, recipe),
        *calls(report),
        "<h2>Interviews</h2>",
        *transcripts(episodes, cases, seed=recipe.seed),
    ]
    return "\n".join(parts) + "\n"


def line_of(name: str, found: Mapping[str, Any], color: str) -> Series:
    """A curve of accuracy with its intervals."""
    known = [(count, point) for count, point in enumerate(found["curve"]) if point["value"] is not None]
    points: list[tuple[float, float]] = [(count, point["value"]) for count, point in known]
    spans = [
        (point["value"], point["value"]) if point["low"] is None else (point["low"], point["high"])
        for _, point in known
    ]
    return Series(name, f"var(--{color})", points, spans)


def unscored(report: Mapping[str, Any]) -> str:
    """What could not be read, and the interviews that could not be held; empty where there is none."""
    parts = [f"{count} {name} that nobody could read" for name, count in report["unread"].items()]
    parts += [f"{count} interviews not held ({reason})" for reason, count in report["unscored"].items()]
    return f"<p class=note>Unscored: {escape('; '.join(parts))}.</p>" if parts else ""


def confidence(report: Mapping[str, Any]) -> list[str]:
    """Calibration and risk-coverage, where the decision maker said how sure it was."""
    found = report["calibration"]
    if found["error"]["value"] is None:
        return []
    bins = [(bin["confidence"], bin["accuracy"]) for bin in found["bins"] if bin["decisions"]]
    risk = [(point["coverage"], point["accuracy"]) for point in report["risk coverage"]["curve"]]
    even = Series("as sure as right", "var(--d)", [(0, 0), (1, 1)])
    return [
        "<h2>Is it right where it is sure?</h2>",
        plot([even, Series("decisions", "var(--a)", bins)], across="confidence", most=1, marks=True),
        f"<p>Expected calibration error {cell(found['error'])}, which small samples raise and its interval takes off; "
        f"Brier score {cell(found['brier'])}.</p>",
        "<h2>If only the surest decisions were taken</h2>",
        plot([Series("accuracy", "var(--a)", risk)], across="share of decisions taken", most=1, marks=True),
    ]


def stops(report: Mapping[str, Any], recipe: EvaluateInterviewsRecipe) -> list[str]:
    """Stops against the reference asker's, where somebody knows when to stop."""
    if report["stops"] is None:
        return []
    parts = ["<h2>Too soon, or too late?</h2>", f"<p>{stopping_terms(recipe)}</p>"]
    for name, title in STOPS.items():
        figure = report["stops"][name]
        parts.append(f"<p class=row>{title}: {cell(figure)}</p>")
        if name != "beyond":  # not a share
            parts.append(strip([Mark(figure, "a")]))
    return parts


def plot(series: Sequence[Series], *, across: str, most: float, marks: bool = False) -> str:
    """Lines over [0, most] and shares in [0, 1], names below."""

    def at(x: float, y: float) -> str:
        across_ = LEFT + x / most * (WIDTH - LEFT - RIGHT)
        return f"{across_:.1f},{TOP + (1 - y) * (HEIGHT - TOP - BOTTOM):.1f}"

    shapes = [f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role=img aria-label='{escape(across)}'>"]
    for fifth in range(6):
        x, y = at(0, fifth / 5).split(",")
        shapes.append(f"<line x1={x} x2={WIDTH - RIGHT} y1={y} y2={y} stroke='var(--line)'/>")
        shapes.append(f"<text x={LEFT - 8} y={float(y) + 4:.0f} text-anchor=end>{fifth / 5:.1f}</text>")
    step = max(1, round(most / 10)) if most > 1 else most / 5
    for tick in range(int(most / step + 1e-9) + 1):
        x, _ = at(tick * step, 0).split(",")
        minor = " class=minor" if tick % 2 else ""
        shapes.append(f"<text{minor} x={x} y={HEIGHT - BOTTOM + 18} text-anchor=middle>{tick * step:g}</text>")
    for name, color, points, intervals in series:
        if intervals:
            upper = [at(x, high) for (x, _), (_, high) in zip(points, intervals, strict=True)]
            lower = [at(x, low) for (x, _), (low, _) in zip(points, intervals, strict=True)]
            shapes.append(f"<polygon points='{' '.join(upper + lower[::-1])}' fill='{color}' opacity=.15 />")
        line = " ".join(at(x, y) for x, y in points)
        shapes.append(
            f"<polyline points='{line}' fill=none stroke='{color}' stroke-width=2.5><title>{escape(name)}</title>"
        )
        shapes.append("</polyline>")
        for x, y in points if marks and len(points) > 2 else []:
            cx, cy = at(x, y).split(",")
            shapes.append(f"<circle cx={cx} cy={cy} r=4 fill='{color}'/>")
    shapes.append(f"<text x={WIDTH / 2:.0f} y={HEIGHT - 4} text-anchor=middle>{escape(across)}</text></svg>")
    names = [f"<span style='color:{entry.color}'>&#9644;</span> {escape(entry.name)}" for entry in series]
    return "\n".join(shapes) + f"<p class=soft>{' &nbsp; '.join(names)}</p>"


def bars(distribution: Mapping[str, int]) -> str:
    """Interviews by their number of questions."""
    most = max(distribution.values(), default=0) or 1
    width = (WIDTH - LEFT - RIGHT) / max(1, len(distribution))
    shapes = [f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role=img aria-label='interviews by number of questions'>"]
    for place, (count, times) in enumerate(distribution.items()):
        tall = times / most * (HEIGHT - TOP - BOTTOM - 16)
        x, y = LEFT + place * width, HEIGHT - BOTTOM - tall
        middle = x + width / 2
        shapes.append(
            f"<rect x={x + width * 0.1:.1f} y={y:.1f} width={width * 0.8:.1f} height={tall:.1f} fill='var(--a)' rx=2 />"
            f"<text x={middle:.1f} y={y - 4:.1f} text-anchor=middle>{times or ''}</text>"
            f"<text x={middle:.1f} y={HEIGHT - BOTTOM + 18} text-anchor=middle>{count}</text>"
        )
    shapes.append(f"<text x={WIDTH / 2:.0f} y={HEIGHT - 4} text-anchor=middle>questions</text></svg>")
    return "\n".join(shapes)


def calls(report: Mapping[str, Any]) -> list[str]:
    """Calls, tokens and cost by role."""
    if not report["usage"]:
        return []
    rows = [
        (role, *(str(used[name]) for name in ("calls", "prompt_tokens", "completion_tokens")), f"{used['cost']:.4f}")
        for role, used in report["usage"].items()
    ]
    return ["<h2>Calls</h2>", table(rows, head=("", "calls", "prompt tokens", "completion tokens", "cost"))]


def transcripts(episodes: Sequence[Episode | None], cases: Sequence[Case], *, seed: int) -> list[str]:
    """A sample of interviews to unfold: what was asked, answered and believed at each turn."""
    held = [(episode, case) for episode, case in zip(episodes, cases, strict=True) if episode is not None]
    drawn = sorted(Random(seed).sample(range(len(held)), min(SHOWN, len(held))))
    return [transcript(*held[place]) for place in drawn]


def transcript(episode: Episode, case: Case) -> str:
    """One interview."""

    def belief(choice: str | None, confidence: float | None, sure: float | None) -> str:
        if choice is None:
            return "<small>believes: unscored</small>"
        mark = "right" if choice == case.answer else "wrong"
        how = "" if confidence is None else f", {confidence:.2f}"
        rule = "" if sure is None else f"; the rule: {sure:g}"
        return f"<small>believes: <span class={mark}>{escape(case.options[choice])}</span>{how}{rule}</small>"

    mark = "unscored" if episode.decision is None else "right" if episode.decision == case.answer else "wrong"
    title = f"{escape(case.id)} <span class={mark}>{mark}</span> <small>after {len(episode.exchanges)} questions, "
    parts = [
        f"<p class=say>“{escape(case.initial_information)}”</p>",
        f"<p><b>{escape(case.inquiry)}</b> <small>{escape(case.options[case.answer])}</small></p>",
        belief(episode.first_choice, episode.first_confidence, episode.first_sure),
    ]
    for exchange in episode.exchanges:
        parts.append(f"<p class=ask>{escape(exchange.question)}</p><p class=say>{escape(exchange.answer)}</p>")
        parts.append(belief(exchange.choice, exchange.confidence, exchange.sure))
    return folded(f"{title}{episode.end}</small>", parts)
