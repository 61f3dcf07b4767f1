"""Read and write typed JSONL. An error names the file and the line; a file is either whole or absent."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from askwell.errors import DataError

R = TypeVar("R", bound=BaseModel)


def read(path: Path, kind: type[R]) -> Iterator[R]:
    """Yield the records of `path`. Raises DataError, with file and line, at the first that is not a `kind`."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield parse(line, kind, where=f"{path}:{number}")


def parse(line: bytes, kind: type[R], *, where: str) -> R:
    """One line as a `kind`; `where` is quoted in the error."""
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the line"
        raise DataError(f"{where}: not a {kind.__name__}: {field}: {first['msg']}") from None


def dump(record: BaseModel) -> bytes:
    """A record as one JSONL line; fields at their default are left out."""
    return record.model_dump_json(exclude_defaults=True).encode() + b"\n"


def write(path: Path, records: Iterable[BaseModel]) -> int:
    """Write all records or nothing: temporary file, fsync, rename. Returns how many were written."""
    count = 0
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            for record in records:
                file.write(dump(record))
                count += 1
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return count


class Appender(Generic[R]):
    """Append records to a file that a killed run may have left with a torn last line.

    On opening, a last line without its newline is cut off: that record is owed again. `done` holds the records
    found. `append` is durable when it returns.
    """

    def __init__(self, path: Path, kind: type[R]) -> None:
        whole = path.read_bytes() if path.exists() else b""
        whole = whole[: whole.rfind(b"\n") + 1]
        self.done: list[R] = [
            parse(line, kind, where=f"{path}:{number}") for number, line in enumerate(whole.splitlines(), start=1)
        ]
        self._file = path.open("ab")
        self._file.truncate(len(whole))

    def append(self, records: Iterable[R]) -> None:
        for record in records:
            self._file.write(dump(record))
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> "Appender[R]":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
