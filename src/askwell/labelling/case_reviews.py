"""What people say of built cases: a sheet to fill in, and their verdicts merged.

The sheet is a spreadsheet, a case a row: the record, the question and the options. It does not say which option is
meant to be right: the reader answers as anyone examined would, mends an option by writing over it, and accepts or
rejects. Read back, a person's word stands above the models'. A row counts only for the very case that it was written
for; where two readers come to different ends, the case is left out.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from askwell.errors import DataError
from askwell.records import Case, Conversation
from askwell.sheets import as_csv, inert, rows_of
from askwell.statistics import mean_interval

OPTIONS = ("A", "B", "C", "D")
COLUMNS = ("case", "mark", "record", "outcome", "question", *OPTIONS, "answer", "verdict", "comment")
WANTED = tuple(name for name in COLUMNS if name not in ("record", "outcome", "question", "comment"))
NONE = "none"
VERDICTS = ("", "accept", "reject")
SPEAKERS = {"user": "Person", "assistant": "Expert", "system": "Notice"}
INSTRUCTIONS = """\
Each row is one case. Read the record and what came of it, then the question and its options.

answer    the letter of the one option that is right. Where none is, mend an option and give its letter, or write none.
A, B ...  mend an option by writing over it: a wrong one that may be right as well, one that nobody would choose, one
          that the record does not bear out. Leave the others as they are.
verdict   accept, or reject for a case that cannot be mended. With an answer it may stay empty.
comment   whatever you like; it is not read by a program.

Leave the other columns as they are, and a row empty that you cannot judge. One file a reader; please do not discuss
cases before all files are in. Save the sheet as CSV. `askwell cases build` reads it with --review FILE, or --review
FOLDER where there are several readers.
"""


class Reading(NamedTuple):
    """A row that somebody filled in."""

    place: str
    case: str
    mark: str
    options: tuple[str, ...]
    answer: str
    verdict: str


class Merged(NamedTuple):
    """The cases as people leave them, by the reason those that they took out, and counts."""

    cases: dict[str, Case]
    removed: dict[str, str]
    counts: dict[str, Any]


def mark_of(case: Case) -> str:
    """A hash of what a reader judges: a row for another version of a case is not for this one."""
    return hashlib.sha256(repr((case.inquiry, case.options, case.answer)).encode()).hexdigest()[:8]


def sheet(built: Iterable[tuple[Conversation, Case]]) -> str:
    """The cases as a sheet to fill in."""
    rows = []
    for conversation, case in built:
        record = "\n\n".join(f"{SPEAKERS[message.role]}: {message.content}" for message in conversation.messages)
        texts = (record, conversation.outcome or "", case.inquiry, *case.options.values())
        rows.append((case.id, mark_of(case), *map(inert, texts), "", "", ""))
    return as_csv(COLUMNS, rows)


def files(path: Path) -> list[Path]:
    """The filled sheets: a file, or all of a folder by name."""
    found = [path] if path.is_file() else sorted(path.glob("*.csv")) if path.is_dir() else []
    if not found:
        raise DataError(
            f"review {path}: neither a CSV file nor a folder of such; fill in the review.csv of an earlier run"
        )
    return found


def readings(path: Path) -> list[Reading]:
    """All rows of all sheets. Raises DataError at what stands on no menu, and at a row that is filled in twice."""
    found: list[Reading] = []
    for file in files(path):
        seen: dict[str, str] = {}
        for number, row in rows_of(file, WANTED):
            if not row["case"]:
                continue
            place = f"{file}: row {number}"
            answer, verdict = row["answer"].strip(" .)").upper(), row["verdict"].casefold()
            if answer not in ("", *OPTIONS, NONE.upper()):
                raise DataError(f"{place}: answer {row['answer']!r} must be one of {', '.join(OPTIONS)}, or none")
            if verdict not in VERDICTS:
                raise DataError(f"{place}: verdict {row['verdict']!r} must be accept or reject, or empty")
            if row["case"] in seen:
                raise DataError(
                    f"{place}: case {row['case']!r} stands at {seen[row['case']]} already; a file is one reader"
                )
            seen[row["case"]] = place
            options = tuple(row[name] for name in OPTIONS)
            found.append(Reading(place, row["case"], row["mark"], options, answer, verdict))
    return found


def merged(cases: dict[str, Case], rows: Sequence[Reading], *, seed: int) -> Merged:
    """The built cases, by id, with people's verdicts merged in. Raises DataError where two mended options are one."""
    counts: Counter[str] = Counter({"rows": len(rows)})
    ends: dict[str, list[Case | None]] = {}
    agreed: list[tuple[float, str]] = []
    for row in rows:
        case = cases.get(row.case)
        if case is None:
            counts["unknown"] += 1
        elif row.mark != mark_of(case):
            counts["of another version"] += 1
        elif not row.answer and not row.verdict and mended(row, case) == case.options:
            counts["left blank"] += 1
        else:
            end = ends.setdefault(case.id, [])
            end.append(left_by(row, case))
            if row.answer and mended(row, case) == case.options:
                agreed.append((float(row.answer == case.answer), case.group))
    kept, removed = dict(cases), {}
    for name, found in ends.items():
        before, end = cases[name], found[0]
        if any(other != end for other in found):
            counts["readers disagree"] += 1
            removed[name] = "readers disagree"
        elif end is None:
            counts["rejected"] += 1
            removed[name] = "rejected by a reader"
        else:
            counts["used"] += len(found)
            counts["confirmed"] += end == before
            counts["options corrected"] += end.options != before.options
            counts["answers corrected"] += end.answer != before.answer
            kept[name] = end
        if end is None or end.answer != before.answer:
            counts["contradict the writer"] += 1
        if name in removed:
            counts["used"] += len(found)
            del kept[name]
    agreement = mean_interval([value for value, _ in agreed], [group for _, group in agreed], seed=seed)
    return Merged(kept, removed, {**{name: counts[name] for name in COUNTED}, "agreement": agreement._asdict()})


COUNTED = (
    *("rows", "used", "confirmed", "rejected", "answers corrected", "options corrected", "contradict the writer"),
    *("readers disagree", "unknown", "of another version", "left blank"),
)
"""What is told of a review, in this order. Used are rows; what follows up to the readers who disagree are cases."""


def left_by(row: Reading, case: Case) -> Case | None:
    """The case as a reader leaves it; None where they reject it, or hold no option for right."""
    if row.verdict == "reject" or row.answer == NONE.upper():
        return None
    options = mended(row, case)
    if "" in options.values() or len(set(map(str.casefold, options.values()))) < len(options):
        raise DataError(f"{row.place}: two options are the same, or one is empty; mend them so that all differ")
    return case.model_copy(update={"options": options, "answer": row.answer or case.answer})


def mended(row: Reading, case: Case) -> dict[str, str]:
    """The options as they stand in a row; white space, which spreadsheets change, aside."""
    found = {}
    for (name, text), written in zip(case.options.items(), row.options, strict=True):
        same = " ".join(written.split()) == " ".join(inert(text).split())
        found[name] = text if same else written
    return found
