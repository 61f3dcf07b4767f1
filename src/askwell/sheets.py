"""Spreadsheets that people fill in: written so that a double click opens them, and read back from wherever they were.

A file may come from a spreadsheet in any country: separators, byte-order marks, blank lines, further columns, columns
and rows in any order do not matter.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from askwell.errors import DataError


def as_csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A sheet as CSV. It begins with the mark by which spreadsheets know UTF-8."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(columns)
    writer.writerows(rows)
    return "\ufeff" + file.getvalue()


def inert(text: str) -> str:
    """Text that a spreadsheet does not take for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def rows_of(path: Path, wanted: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a sheet with their numbers, each by the names of the wanted columns. Raises DataError where the sheet
    lacks one of these."""
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("cp1252", "replace")  # what spreadsheets write that know no better
    head = text.split("\n", 1)[0]
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count))
    columns = [name.strip().casefold() for name in next(rows, [])]
    if missing := [name for name in wanted if name.casefold() not in columns]:
        raise DataError(f"{path}: no column {', '.join(missing)}; a sheet's first line is {', '.join(wanted)}, ...")
    places = {name: columns.index(name.casefold()) for name in wanted}
    for number, row in enumerate(rows, start=2):
        yield number, {name: row[place].strip() if place < len(row) else "" for name, place in places.items()}
