"""The demo's page: one HTML file, no script, nothing fetched. Text from logs and policies is escaped."""

import base64
import html as markup
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from askwell import runs
from askwell.records import Case, Episode

NAMES = {"base": "base", "sft": "SFT", "cispo": "Learn-to-Ask"}
COLORS = {
    "base": "#8a8f98",
    "sft": "#c77d2e",
    "cispo": "#2a6fbb",
    "best": "#2f8f5b",
    "reference": "#9ac7ae",
    "random": "#bbb",
}
STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1c1e21}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.35rem .8rem;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child{text-align:left}small{color:#667}h2{margin-top:2.5rem}.side{display:flex;gap:1rem}
.side>div{flex:1;border:1px solid #ddd;border-radius:8px;padding:.8rem;font-size:.9rem}.ask{margin:.5rem 0 0}
.say{color:#456;margin:0 0 0 1rem}pre{background:#f4f5f7;padding:1rem;border-radius:8px;overflow:auto}
td small{white-space:nowrap}
.note{background:#fff7e6;border:1px solid #f0d9a8;border-radius:8px;padding:.7rem 1rem}.best{font-weight:600}
"""
HEAD = """<!doctype html>
<html lang=en><meta charset=utf-8><title>askwell: asking well, and knowing when to stop</title>
<meta http-equiv=Content-Security-Policy
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">"""


def html(
    found: Mapping[str, Any],
    cost: Mapping[str, float],
    why: Mapping[str, str],
    *,
    elapsed: int,
    curve: Path,
    talks: Mapping[str, Path],
    cases: Sequence[Case],
) -> str:
    """The page. `cost` and `why` say seconds and purpose of each stage; `talks` where each row's interviews with the
    people of `cases` stand."""
    parts = [
        HEAD,
        f"<style>{STYLE}</style><h1>Asking well, and knowing when to stop</h1>",
        "<p class=note>Everything on this page happened in a small invented clinic with known truth. It shows that the "
        "machinery works and which way the methods move, never how a large model would score. Not medical advice.</p>",
        table(found),
        "<h2>Accuracy over the number of questions</h2>",
        "<p>After every answer, what was said so far is weighed by exact reasoning: accuracy says how well was asked. "
        f"Were everything known, it would be {cell(found['everything known'])}.</p>",
        chart({**found["interviews"], **found["bounds"], "best": {"curve": found["best possible"]}}),
        "<p><small>The best possible asker knows how many questions it has, and is asked anew for each number; the "
        "reference asker does not, and stops where a question is not worth its cost.</small></p>",
        "<h2>Reward while training</h2>",
        image(curve, "mean reward of rollouts by draw"),
        "<h2>Three interviews, side by side</h2>",
        interviews(talks, cases),
        "<h2>What was done, and what it cost</h2>",
        "<table><tr><th>stage<th>seconds<th style='text-align:left'>why</tr>",
        *(
            f"<tr><td>{escape(stage)}<td>{seconds:.0f}<td style='text-align:left'>{escape(why[stage])}</tr>"
            for stage, seconds in cost.items()
        ),
        f"</table><p><small>{elapsed} seconds by the clock; stages run side by side.</small></p>",
        "<h2>The same with your own logs, endpoint and model</h2>",
        "<pre>askwell ingest --source chat --input logs.jsonl --redact true --output outputs/conversations\n"
        "askwell label recipes/label_llm.yaml --endpoint.base_url URL --endpoint.model MODEL\n"
        "askwell train recipes/grpo_judge.yaml --rollouts.judge.base_url URL --rollouts.judge.model MODEL</pre>",
    ]
    return "\n".join(parts) + "\n"


def table(found: Mapping[str, Any]) -> str:
    """The figures, a row a policy, the best possible asker and the reference asker last."""
    rows = [
        "<table><tr><th><th>TR<th>WA<th>WS<th>diagnostic accuracy<th>questions</tr>",
    ]
    for policy, name in NAMES.items():
        turns, talks = found["turns"][policy], found["interviews"][policy]
        cells = [turns["TR"], turns["WA"], turns["WS"], talks["accuracy"], talks["questions"]]
        mark = " class=best" if policy == "cispo" else ""
        rows.append(f"<tr{mark}><td>{name}{''.join(f'<td>{cell(figure)}' for figure in cells)}</tr>")
    best, trained = found["best possible"], found["interviews"]["cispo"]
    asked = min(round(trained["questions"]["value"] or 0), len(best) - 1)
    rows.append(f"<tr><td>best possible asker<td>–<td>–<td>–<td>{cell(best[asked])}<td>{asked}</tr>")
    stops = found["bounds"]["reference"]
    cells = f"<td>{cell(stops['accuracy'])}<td>{cell(stops['questions'])}"
    rows.append(f"<tr><td>one that stops by itself<td>–<td>–<td>–{cells}</tr>")
    level = best[asked]["value"]
    gap = f"{trained['accuracy']['value'] / level:.0%}" if level else "–"
    rows.append(
        "</table><p><small>TR: mean reward at held-out turns, 0 to 4. WA: what to ask. WS: when to stop. Sampled at "
        "temperature 1. Intervals: 95 %, bootstrap over conversations or patients. Learn-to-Ask reaches "
        f"{gap} of the best possible asker's accuracy after as many questions ({asked}).</small></p>"
    )
    return "\n".join(rows)


def cell(figure: Mapping[str, Any]) -> str:
    """`0.61 [0.58, 0.64]`."""
    if figure["value"] is None:
        return "–"
    if figure["low"] is None:
        return f"{figure['value']:.2f}"
    return f"{figure['value']:.2f} <small>[{figure['low']:.2f}, {figure['high']:.2f}]</small>"


def chart(curves: Mapping[str, Any]) -> str:
    """Accuracy over the number of questions, as drawn by hand: one line an asker, its interval behind it."""
    width, height, left, bottom = 760, 320, 50, 40
    most = max(len(found["curve"]) for found in curves.values()) - 1
    values = [point["low"] or point["value"] for found in curves.values() for point in found["curve"]]
    floor = max(0.0, min(values) - 0.05)

    def at(count: int, value: float) -> str:
        x = left + count / most * (width - left - 130)
        y = 10 + (1 - value) / (1 - floor) * (height - bottom - 10)
        return f"{x:.1f},{y:.1f}"

    shapes = [f"<svg viewBox='0 0 {width} {height}' role=img aria-label='accuracy over the number of questions'>"]
    for tick in range(0, most + 1, 2):
        x, y = at(tick, floor).split(",")
        shapes.append(f"<text x={x} y={float(y) + 18:.0f} font-size=12 text-anchor=middle>{tick}</text>")
    for tenth in range(int(floor * 10) + 1, 11):
        x, y = at(0, tenth / 10).split(",")
        shapes.append(f"<line x1={left} x2={width - 130} y1={y} y2={y} stroke='#eee'/>")
        shapes.append(f"<text x={left - 8} y={float(y) + 4:.0f} font-size=12 text-anchor=end>{tenth / 10:.1f}</text>")
    for name, found in curves.items():
        color, points = COLORS[name], found["curve"]
        upper = [at(i, point["high"] or point["value"]) for i, point in enumerate(points)]
        lower = [at(i, point["low"] or point["value"]) for i, point in enumerate(points)]
        shapes.append(f"<polygon points='{' '.join(upper + lower[::-1])}' fill='{color}' opacity=.12 />")
        line = " ".join(at(i, point["value"]) for i, point in enumerate(points))
        shapes.append(f"<polyline points='{line}' fill=none stroke='{color}' stroke-width=2.5 />")
    lowest = 0.0
    for name, found in sorted(curves.items(), key=lambda entry: -entry[1]["curve"][-1]["value"]):
        x, y = map(float, at(len(found["curve"]) - 1, found["curve"][-1]["value"]).split(","))
        lowest = max(y + 4, lowest + 14)  # no name upon another
        label = {"best": "best possible", "reference": "reference", "random": "random"}.get(name) or NAMES[name]
        shapes.append(f"<text x={x + 8:.0f} y={lowest:.0f} font-size=13 fill='{COLORS[name]}'>{label}</text>")
    shapes.append(f"<text x={width / 2 - 60:.0f} y={height - 4} font-size=12 text-anchor=middle>questions</text></svg>")
    return "\n".join(shapes)


def image(path: Path, alt: str) -> str:
    """A picture inside the page."""
    if not path.is_file():
        return "<p><small>no curve was drawn</small></p>"
    data = base64.b64encode(path.read_bytes()).decode()
    return f"<img alt='{escape(alt)}' style='max-width:100%' src='data:image/png;base64,{data}'>"


def interviews(talks: Mapping[str, Path], cases: Sequence[Case], count: int = 3) -> str:
    """The same patients as each policy asked them; those that the last policy asked something."""
    made = {policy: episodes(talks[policy]) for policy in NAMES}
    shared = min(map(len, made.values()))
    places = [i for i, episode in enumerate(made["cispo"][:shared]) if episode.exchanges][:count]
    parts = []
    for place in places:
        case = cases[place]
        parts.append(f"<p>“{escape(case.initial_information)}” <small>{escape(case.options[case.answer])}</small></p>")
        parts.append("<div class=side>")
        for policy, name in NAMES.items():
            episode = made[policy][place]
            parts.append(f"<div><b>{name}</b>")
            for exchange in episode.exchanges[:8]:
                parts.append(f"<p class=ask>{escape(exchange.question)}</p><p class=say>{escape(exchange.answer)}</p>")
            end = "stops" if episode.end == "stopped" else "asked enough"
            parts.append(
                f"<p><small>{end}: {escape(case.options.get(episode.decision or '', 'undecided'))}</small></p></div>"
            )
        parts.append("</div><br>")
    return "\n".join(parts)


def episodes(path: Path) -> Sequence[Episode]:
    """The interviews of a run."""
    return list(runs.records_of(path, Episode, made_by="askwell evaluate interviews"))


def escape(text: str) -> str:
    """Text as HTML shows it."""
    return markup.escape(text, quote=True)
