"""Which files a source reads, and which function reads them. A new format is a module and a line in FORMATS."""

from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from askwell.errors import DataError
from askwell.recipes import IngestRecipe
from askwell.sources import askdocs, chat, mts_dialog, realmedconv, sgd
from askwell.sources.drafts import Draft, Rejected


class Format(NamedTuple):
    """How the files of a source are called, read, and counted without reading them closely, and what they hold."""

    names: tuple[str, ...]
    read: Callable[..., Iterator[Draft | Rejected]]
    held: Callable[[Path], int]
    holds: str = "conversations"


FORMATS = {
    "chat": Format(chat.NAMES, chat.read, chat.count),
    "sgd": Format(sgd.NAMES, sgd.read, sgd.count),
    "realmedconv": Format(realmedconv.NAMES, realmedconv.read, realmedconv.count),
    "mts_dialog": Format(mts_dialog.NAMES, mts_dialog.read, mts_dialog.count),
    "askdocs": Format(askdocs.NAMES, askdocs.read, askdocs.count, holds="questions"),
}


def files_of(recipe: IngestRecipe) -> list[tuple[Path, str]]:
    """The files to read, each with its name: its path inside the input folder, which ids and messages quote."""
    root = recipe.input
    if root.is_file():
        return [(root, root.name)]
    if not root.is_dir():
        raise DataError(f"{root}: no such file or folder; --input names what to read")
    if recipe.output.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{root}: --output {recipe.output} lies inside --input and would be read; put it elsewhere")
    found = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    names = sorted(name for name in found if not any(part.startswith(".") for part in name.split("/")))
    wanted = FORMATS[recipe.source].names
    if chosen := [(found[name], name) for name in names if fits(name, wanted)]:
        return chosen
    others = [
        f"--source {source}" for source, other in FORMATS.items() if any(fits(name, other.names) for name in names)
    ]
    hint = f"; {' or '.join(others)} would read what is there" if others else ""
    raise DataError(f"{root}: no file called {' or '.join(wanted)} in it, which --source {recipe.source} reads{hint}")


def fits(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name.rpartition("/")[2].lower(), pattern) for pattern in patterns)
