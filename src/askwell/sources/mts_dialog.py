"""MTS-Dialog: CSV of doctor-patient talks, with the section of the note that was written from each.

Columns ID, section_header (the goal), section_text (the outcome) and dialogue, whose lines begin with a speaker. The
side that treats is the assistant: Doctor, a second Doctor_2, Guest_clinician (nurses, residents). The side that is
asked is the user: Patient, Guest_family. A family member keeps the label in the content, so that a reader can tell
who speaks; what an assistant says is what a policy learns to say, so a label there is dropped. The corpus misspells
labels ("Gest_family"), and each spelling stands in ROLES. A line without a speaker continues the message before.
All but the two main speakers are counted.

In 41 of the 1,301 dialogues nobody is asked (talks between clinicians, dictation): ingest rejects them, and at 3.2 %
of the whole needs --max_rejected 0.04.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from askwell.errors import DataError
from askwell.records import Role
from askwell.sources.drafts import Draft, Fault, Rejected, Said

NAMES = ("*.csv",)
COLUMNS = ("ID", "section_header", "section_text", "dialogue")
ROLES: dict[str, Role] = {
    "Doctor": "assistant",
    "Docotr": "assistant",
    "Guest_clinician": "assistant",
    "Guest_clinican": "assistant",
    "Patient": "user",
    "Guest_family": "user",
    "Gest_family": "user",
}
# One word, perhaps numbered, and a colon; once in the corpus a full stop stands for the colon.
SPEAKER = re.compile(r"(?P<name>[A-Za-z]+(?:_[A-Za-z]+)?)(?P<number>_?\d+)?\s*(?::|(?<=Guest_family)\.)\s*(?P<text>.*)")


def read(path: Path, *, name: str) -> Iterator[Draft | Rejected]:
    """The dialogues of one file. Raises DataError where the file is no CSV with these columns."""
    for line, row in rows(path):
        try:
            found = draft_of(row, file=name, place=str(line), stem=path.stem)
        except Fault as fault:
            found = fault.rejects(name, str(line))
        yield found


def count(path: Path) -> int:
    return sum(1 for _ in rows(path))


def rows(path: Path) -> Iterator[tuple[int, dict[str | None, Any]]]:
    """Each row with the line on which it starts; bytes that are not UTF-8 become lone surrogates, refused later."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        table: csv.DictReader[Any] = csv.DictReader(file, strict=True)
        end = 0
        try:
            if missing := [column for column in COLUMNS if column not in (table.fieldnames or ())]:
                raise DataError(f"{path}: no column {', '.join(missing)}; needed are {', '.join(COLUMNS)}")
            end = table.line_num
            for row in table:
                start, end = end + 1, table.line_num
                yield start, row
        except csv.Error as error:
            raise DataError(f"{path}:{end + 1}: not CSV: {error}; mend the quotes, or leave the file out") from None


def draft_of(row: dict[str | None, Any], *, file: str, place: str, stem: str) -> Draft:
    if None in row or None in row.values():
        raise Fault("wrong number of cells", "the row has more or fewer than the header; mend the quotes", str(row))
    for column in COLUMNS:
        if any("\udc80" <= character <= "\udcff" for character in row[column]):
            raise Fault("not UTF-8", f"column {column}; save the file as UTF-8", row[column])
    if not row["ID"].strip():
        raise Fault("no ID", "column ID is blank", row["dialogue"])
    identity = f"{stem}/{row['ID'].strip()}"
    messages, notes = messages_of(row["dialogue"])
    goal, outcome = row["section_header"].strip() or None, row["section_text"].strip() or None
    return Draft(file, place, identity, identity, messages, goal, outcome, notes)


def messages_of(dialogue: str) -> tuple[list[Said], Counter[str]]:
    """The messages, and notes on every speaker but the two main ones and on lines without a speaker."""
    messages: list[Said] = []
    notes: Counter[str] = Counter()
    for line in filter(None, map(str.strip, dialogue.splitlines())):
        match = SPEAKER.match(line)
        if match is None:
            if not messages:
                raise Fault("no speaker", "the dialogue's first line names none; write `Doctor:` or `Patient:`", line)
            messages[-1]["content"] += f"\n{line}"
            notes["line without a speaker joined to the message before"] += 1
            continue
        label, role = f"{match['name']}{match['number'] or ''}", ROLES.get(match["name"])
        if role is None:
            raise Fault("unknown speaker", f"{label!r}; known are {', '.join(sorted(ROLES))}", line)
        if label not in ("Doctor", "Patient"):
            notes[f"speaker {label} taken as {role}"] += 1
        named = role == "user" and label != "Patient"
        messages.append({"role": role, "content": f"{label}: {match['text']}" if named else match["text"]})
    return messages, notes
