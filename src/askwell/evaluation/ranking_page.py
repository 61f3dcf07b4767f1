"""A rater's sheet as one self-contained page: it keeps what is filled in and saves it as the sheet's CSV.

No network, no library. All text of logs and systems is escaped; the page runs its own script alone and may send nothing
anywhere (its policy says so to the browser).
"""

import hashlib
import json
from collections.abc import Sequence
from html import escape

from askwell.evaluation.page import SPEAKERS
from askwell.records import SheetItem

STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 46rem; margin: 0 auto; padding: 1rem; }
article { border-top: 1px solid #8888; padding: 1rem 0; }
blockquote { margin: 0 0 1rem; padding: .6rem 1rem; background: #8881; border-radius: .4rem; white-space: pre-wrap;
  overflow-wrap: anywhere; }
label { display: flex; gap: .8rem; align-items: center; padding: .3rem 0; }
label span { flex: 1; overflow-wrap: anywhere; }
select, button, input { font: inherit; padding: .3rem .5rem; }
input { width: 100%; box-sizing: border-box; }
footer { position: sticky; bottom: 0; padding: .8rem 0; background: Canvas; border-top: 1px solid #8888; }
"""
SCRIPT = """
const sheet = document.body.dataset.sheet, fields = [...document.querySelectorAll("select, input")];
const kept = "askwell ranking " + sheet + " " + document.body.dataset.key;
const items = [...document.querySelectorAll("article")];
function count() {
  const done = items.filter(item => [...item.querySelectorAll("select")].every(field => field.value)).length;
  document.getElementById("done").textContent = done + " of " + items.length + " items are ranked.";
}
let before = {};
try { before = JSON.parse(localStorage.getItem(kept) || "{}"); } catch (error) { before = {}; }
for (const field of fields) {
  field.value = before[field.name] || "";
  field.addEventListener("change", () => {
    before[field.name] = field.value;
    try { localStorage.setItem(kept, JSON.stringify(before)); } catch (error) { /* private windows keep nothing */ }
    count();
  });
}
count();
const cell = text => '"' + String(text).replaceAll('"', '""') + '"';
document.getElementById("save").addEventListener("click", () => {
  const rows = [JSON.parse(document.body.dataset.columns)];
  for (const item of items) for (const field of item.querySelectorAll("select")) {
    const comment = field.dataset.first ? item.querySelector("input").value.replace(/^[=+@\\t\\r-]/, "'$&") : "";
    rows.push([sheet, item.dataset.item, "", field.dataset.letter, "", field.value, comment]);
  }
  const text = "\\ufeff" + rows.map(row => row.map(cell).join(",")).join("\\r\\n") + "\\r\\n";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = "sheet_" + sheet + "_filled.csv";
  link.click();
});
"""


def page(items: Sequence[SheetItem], number: int, instructions: str, columns: Sequence[str]) -> str:
    """The page of a sheet. What it saves has the columns of the sheet's CSV."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    # What was filled in on a sheet of another sample must not show here.
    key = hashlib.sha256("\n".join(item.model_dump_json() for item in items).encode()).hexdigest()[:12]
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>Ranking questions, sheet {number}</title><style>{STYLE}</style></head>",
            f'<body data-sheet="{number}" data-key="{key}" data-columns="{escape(json.dumps(list(columns)))}">',
            f"<h1>Ranking questions, sheet {number}</h1><p>{escape(instructions)}</p>",
            *map(article, items),
            '<footer><button id="save">Save the sheet</button> <span id="done"></span></footer>',
            f"<script>{SCRIPT}</script></body></html>\n",
        ]
    )


def article(item: SheetItem) -> str:
    """One item."""
    said = "\n\n".join(f"{SPEAKERS[message.role]}: {message.content}" for message in item.context)
    ranks = "".join(f"<option>{rank}</option>" for rank in range(1, len(item.questions) + 1))
    lines = [f'<article data-item="{item.item}"><h2>Item {item.item}</h2><blockquote>{escape(said)}</blockquote>']
    for place, (letter, question) in enumerate(item.questions.items()):
        first = ' data-first="1"' if place == 0 else ""
        lines.append(
            f'<label><select name="{item.item}{letter}" data-letter="{letter}"{first}><option value=""></option>{ranks}'
            f"</select> <b>{letter}</b> <span>{escape(question)}</span></label>"
        )
    lines.append(f'<input name="{item.item} comment" placeholder="A comment, if you like"></article>')
    return "\n".join(lines)
