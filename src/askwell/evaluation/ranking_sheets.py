"""`askwell review sample`: sheets on which people rank questions, for win-rates that no model has judged.

As in ALFA, appendix F: contexts drawn at random, several systems' questions at each, without their names and in random
order, screening questions with known answers among them. Writes for each rater sheet_N.csv and sheet_N.html, which hold
the same, and key.jsonl (SheetItem), which says whose question is whose and is not for raters.

Raters are experts of their field, not of ours: what they get opens with a double click. The spreadsheet is the format
that is read back (a column `rank` to fill in); the page is the more comfortable way to the same file, works without a
network, keeps what was filled in, and saves it as that spreadsheet. JSONL would be neither.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from string import ascii_uppercase

from askwell import jsonl, runs
from askwell.errors import DataError
from askwell.evaluation.page import SPEAKERS
from askwell.evaluation.ranking_page import page
from askwell.grading.replies import parse
from askwell.recipes import ReviewSampleRecipe
from askwell.records import Message, ReplySet, Screening, SheetItem
from askwell.sheets import as_csv, inert

MADE_BY = "askwell evaluate questions"
COLUMNS = ("sheet", "item", "conversation", "letter", "question", "rank", "comment")
INSTRUCTIONS = (
    "Each item shows a conversation and several questions that could be asked next. Rank the questions by how good "
    "they are as the next question to this person: 1 for the best, 2 for the next, and so on; the same number for "
    "equally good ones. Rank every question of an item; leave an item empty if you cannot judge it. Please do not look "
    "anything up, and do not discuss items with others before all sheets are in."
)


def inputs(recipe: ReviewSampleRecipe) -> list[Path]:
    """The evaluation whose replies are ranked, and the screening."""
    runs.require(recipe.input, made_by=MADE_BY)
    return [recipe.input, *([recipe.screening] if recipe.screening else [])]


def plan(recipe: ReviewSampleRecipe) -> dict[str, object]:
    """What raters will get."""
    inputs(recipe)
    return counts_of(items(recipe), recipe)


def run(recipe: ReviewSampleRecipe, run: runs.Run) -> dict[str, object]:
    """Write the sheets and their key."""
    found = items(recipe)
    jsonl.write(run.path / "key.jsonl", found)
    for number in range(1, recipe.sheets + 1):
        rows = [item for item in found if item.sheet == number]
        runs.write_text(run.path / f"sheet_{number}.csv", table(rows))
        runs.write_text(run.path / f"sheet_{number}.html", page(rows, number, INSTRUCTIONS, COLUMNS))
    runs.write_text(run.path / "instructions.txt", INSTRUCTIONS + "\n")
    return counts_of(found, recipe)


def counts_of(found: Sequence[SheetItem], recipe: ReviewSampleRecipe) -> dict[str, object]:
    """What is on the sheets."""
    once = {item.reply_set_id: item for item in found if not item.best}
    shown = Counter(name for item in once.values() for names in item.systems.values() for name in names)
    return {
        "contexts": len(once),
        "sheets": recipe.sheets,
        "items a sheet at most": max(Counter(item.sheet for item in found).values()),
        "screening items a sheet": sum(bool(item.best) for item in found if item.sheet == 1),
        **{f"contexts with {name}": times for name, times in sorted(shown.items())},
    }


def items(recipe: ReviewSampleRecipe) -> list[SheetItem]:
    """All items of all sheets, in their order there."""
    draw = Random(recipe.seed)
    marker = json.loads((recipe.input / "recipe.json").read_text(encoding="utf-8"))["stop_marker"]
    sets = jsonl.read(recipe.input / "replies.jsonl", ReplySet)
    eligible = [(row, said) for row in sets if len(said := fit(row, marker)) > 1]
    if not eligible:
        raise DataError(f"{recipe.input}: no context at which two systems say different things; nothing to rank")
    chosen = draw.sample(eligible, min(recipe.contexts, len(eligible)))
    used: Counter[str] = Counter()
    sheets: list[list[SheetItem]] = [[] for _ in range(recipe.sheets)]
    for row, said in chosen:
        # Those shown least often so far come first, so that each system is shown about as often.
        texts = sorted(said, key=lambda text: (min(used[name] for name in said[text]), draw.random()))[: recipe.systems]
        used.update(name for text in texts for name in said[text])
        # The shortest sheets by lot, so that all are about as long and no two raters share all they rank.
        for sheet in sorted(sheets, key=lambda sheet: (len(sheet), draw.random()))[: recipe.each]:
            sheet.append(lettered(row.id, row.group, row.context, {text: said[text] for text in texts}, draw))
    for sheet in sheets:
        sheet += screened(recipe, draw)
        draw.shuffle(sheet)
    return [
        item.model_copy(update={"sheet": number, "item": place})
        for number, sheet in enumerate(sheets, start=1)
        for place, item in enumerate(sheet, start=1)
    ]


def fit(row: ReplySet, stop_marker: str) -> dict[str, tuple[str, ...]]:
    """The different questions at a context, each with the systems that ask it; what stops or is empty asks nothing."""
    said: dict[str, tuple[str, ...]] = {}
    for name, reply in row.replies.items():
        parsed = parse(reply, stop_marker)
        text = " ".join(parsed.text.split())
        if parsed.decision == "continue" and any(character.isalpha() for character in text):
            said[text] = (*said.get(text, ()), name)
    return said


def lettered(
    id: str, group: str, context: tuple[Message, ...], texts: dict[str, tuple[str, ...]], draw: Random
) -> SheetItem:
    """An item with its questions in random order."""
    order = draw.sample(list(texts), len(texts))
    letters = dict(zip(ascii_uppercase, order, strict=False))
    return SheetItem(
        sheet=0,
        item=0,
        reply_set_id=id,
        group=group,
        context=context,
        questions=letters,
        systems={letter: texts[text] for letter, text in letters.items() if texts[text]},
    )


def screened(recipe: ReviewSampleRecipe, draw: Random) -> list[SheetItem]:
    """The screening items of a sheet."""
    found = []
    for row in jsonl.read(recipe.screening, Screening) if recipe.screening else ():
        item = lettered(row.id, "", row.context, dict.fromkeys(row.questions, ()), draw)
        best = next(letter for letter, text in item.questions.items() if text == row.questions[row.best])
        found.append(item.model_copy(update={"best": best, "points": row.points}))
    return found


def table(rows: Sequence[SheetItem]) -> str:
    """A sheet as CSV: a row a question, the conversation beside the first of each item."""
    return as_csv(COLUMNS, lines(rows))


def lines(rows: Sequence[SheetItem]) -> Iterator[tuple[object, ...]]:
    """The rows of the table."""
    for item in rows:
        conversation = "\n\n".join(f"{SPEAKERS[message.role]}: {message.content}" for message in item.context)
        for letter, question in item.questions.items():
            yield item.sheet, item.item, inert(conversation), letter, inert(question), "", ""
            conversation = ""
