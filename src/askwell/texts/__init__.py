"""Every sentence that a model reads, as files."""

import sys
from pathlib import Path

from askwell.errors import RecipeError

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

TEXTS = Path(__file__).parent


def prompt_file(name: str) -> Path:
    """The file of a prompt by name. Raises RecipeError with the names that exist."""
    return file_of(name, "prompt")


def domain_file(name: str) -> Path:
    """The file that says what counts as a fact in a domain. Raises RecipeError with the names that exist."""
    return file_of(name, "domain")


def file_of(name: str, kind: str) -> Path:
    """The file of a text by its name and kind."""
    folder = TEXTS / f"{kind}s"
    file = folder / f"{name}.md"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.md")))
        raise RecipeError(f"{kind}: no file {name!r} in {folder}; known {kind}s: {known}")
    return file


def sentences_of(file: Path) -> dict[str, list[str]]:
    """Lists of sentences by occasion, from a TOML file."""
    return tomllib.loads(file.read_text(encoding="utf-8"))
