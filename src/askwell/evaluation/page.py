"""What the pages of all evaluations share: one file, no script, nothing fetched, readable on a phone, by day and night.

What people and models said is data: it is escaped, and a page's own policy forbids whatever would run.
"""

import html as markup
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from askwell.records import Message

SHOWN = 30
"""Interviews, contexts or turns that a page has to unfold at most, drawn by seed."""
SPEAKERS = {"user": "Person", "assistant": "Expert", "system": "Notice"}
STYLE = """
:root{color-scheme:light dark;--line:#d5d8dd;--soft:#667085;--a:#2a6fbb;--b:#c77d2e;--c:#2f8f5b;--d:#8a8f98}
:root{--box:#f4f5f7}
@media(prefers-color-scheme:dark){:root{--line:#3a3f47;--soft:#9aa3af;--a:#6aa9ee;--b:#e0a35c;--c:#63c28d;--box:#1d2127}
body{background:#121518;color:#e6e8eb}}
body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:1.5rem auto;padding:0 1rem;overflow-wrap:anywhere}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem}h3{font-size:1rem}small,.soft{color:var(--soft)}
table{border-collapse:collapse;width:100%;font-size:.9rem}td,th{padding:.3rem .5rem;border-bottom:1px solid var(--line)}
td,th{text-align:right;overflow-wrap:normal}td:first-child,th:first-child{text-align:left}.wide{overflow-x:auto}
svg{width:100%;height:auto;display:block}svg text{fill:currentColor;font-size:13px}
.note{background:var(--box);border-radius:8px;padding:.6rem .9rem}.own{font-weight:600}
details{border:1px solid var(--line);border-radius:8px;padding:.5rem .8rem;margin:.5rem 0}summary{cursor:pointer}
td small{white-space:nowrap}@media(max-width:30rem){svg text{font-size:21px}svg .minor{display:none}}
.ask{margin:.6rem 0 0;font-weight:600}.say{margin:0}.right{color:var(--c)}.wrong{color:var(--b)}
.strip{height:24px;margin:.1rem 0}.ends{display:flex;justify-content:space-between;margin:0 0 .2rem}
.row{margin:1rem 0 0}
"""
HEAD = """<!doctype html>
<html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width,initial-scale=1">
<meta http-equiv=Content-Security-Policy content="default-src 'none'; style-src 'unsafe-inline'">"""


class Mark(NamedTuple):
    """A figure on a strip, as report.json holds it, and the letter of its color."""

    figure: Mapping[str, Any]
    color: str


def begun(title: str) -> list[str]:
    """The head of a page and its first line."""
    return [HEAD, f"<title>askwell: {escape(title)}</title><style>{STYLE}</style>", f"<h1>{escape(title)}</h1>"]


def strip(marks: Sequence[Mark], *, least: float = 0.0, most: float = 1.0, middle: float | None = None) -> str:
    """Figures and their intervals, one above the other, on a line from `least` to `most` with `middle` dashed.

    Places are in per cent, so that it is as wide as the screen allows and its strokes are as thick on any.
    """

    def at(value: float) -> str:
        return f"{1 + 98 * (value - least) / ((most - least) or 1):.2f}%"

    shapes = ["<svg class=strip aria-hidden=true>"]
    shapes.append(f"<line x1={at(least)} x2={at(most)} y1=12 y2=12 stroke='var(--line)'/>")
    if middle is not None:
        x = at(middle)
        shapes.append(f"<line x1={x} x2={x} y1=1 y2=23 stroke='var(--soft)' stroke-dasharray='3 3'/>")
    for place, (figure, color) in enumerate(marks):
        if figure["value"] is None:
            continue
        y = 24 * (place + 1) // (len(marks) + 1)
        if figure["low"] is not None:
            ends = f"x1={at(figure['low'])} x2={at(figure['high'])} y1={y} y2={y}"
            shapes.append(f"<line {ends} stroke='var(--{color})' stroke-width=3 opacity=.45 />")
        shapes.append(f"<circle cx={at(figure['value'])} cy={y} r=5 fill='var(--{color})'/>")
    return "".join([*shapes, "</svg>"])


def ends(*names: str) -> str:
    """What stands below a strip, from its left end to its right."""
    return f"<p class='soft ends'>{''.join(f'<small>{escape(name)}</small>' for name in names)}</p>"


def legend(names: Mapping[str, str]) -> str:
    """What colors mean: {letter: name}."""
    shown = (f"<span style='color:var(--{color})'>&#9644;</span> {escape(name)}" for color, name in names.items())
    return f"<p class=soft>{' &nbsp; '.join(shown)}</p>"


def table(rows: Iterable[Sequence[str]], *, head: Sequence[str] = (), own: str = "") -> str:
    """Rows of markup, the first cell a name; the row of that name `own` stands out."""
    lines = [f"<tr>{''.join(f'<th>{escape(name)}' for name in head)}</tr>"] if head else []
    for name, *cells in rows:
        mark = " class=own" if own and name == own else ""
        lines.append(f"<tr{mark}><td>{escape(name)}{''.join(f'<td>{text}' for text in cells)}</tr>")
    return f"<div class=wide><table>{''.join(lines)}</table></div>"


def cell(figure: Mapping[str, Any], digits: int = 3) -> str:
    """`0.612 [0.583, 0.641]`, and how many are left out."""
    out = f" <small>{figure['unscored']} left out</small>" if figure["unscored"] else ""
    if figure["value"] is None:
        return f"–{out}"
    value = f"{figure['value']:.{digits}f}"
    if figure["low"] is None:
        return f"{value}{out}"
    return f"{value} <small>[{figure['low']:.{digits}f}, {figure['high']:.{digits}f}]</small>{out}"


def conversation(messages: Sequence[Message]) -> list[str]:
    """What was said, a paragraph a message."""
    return [f"<p class=say><b>{SPEAKERS[m.role]}:</b> {escape(m.content)}</p>" for m in messages]


def folded(title: str, parts: Iterable[str]) -> str:
    """Something to unfold; `title` and `parts` are markup."""
    return "\n".join([f"<details><summary>{title}</summary>", *parts, "</details>"])


def escape(text: str) -> str:
    """Text as HTML shows it."""
    return markup.escape(text, quote=True)
