"""What makes a question good: one attribute a file, `texts/attributes/*.toml` or a file of one's own.

The six of ALFA, section 3 (clarity, focus, answerability; accuracy, relevance, avoid_bias), `overall` for its coarse
baseline, and `personal_interest` (is the question about what this person cares for, given a profile). A file holds

    name        short and lower case: what recipes, records and reports call it, where `all` is all of them
    title       what a reader calls it
    group       attributes that belong together: general, clinical, coarse, personal, or one's own
    definition  what it means, in a few sentences
    scale       five sentences, from the worst (1) to the best (5)
    tips        what to look at, a sentence each
    more, less  how a rewriter is to make a question better, and worse, in this attribute alone

Adding an attribute is adding a file; an incomplete one is refused with what it lacks and what to add.
"""

import sys
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from askwell.errors import DataError
from askwell.texts import TEXTS

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

FOLDER = TEXTS / "attributes"
ALFA = ("clarity", "focus", "answerability", "accuracy", "relevance", "avoid_bias")
"""The six of the paper, the general ones first."""


def _not_all(name: str) -> str:
    if name == "all":
        raise ValueError("reports call all attributes together so")
    return name


Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$"), AfterValidator(_not_all)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
WANTED = {
    "name": 'a word in lower case other than "all", e.g. name = "clarity"',
    "title": 'what a reader calls it, e.g. title = "Clarity"',
    "group": 'which attributes it belongs to, e.g. group = "general"',
    "definition": "what it means for a question, in a few sentences",
    "scale": "a list of five sentences, from the worst question (1) to the best (5)",
    "tips": "a list of one or more sentences: what to look at",
    "more": "how a rewriter makes a question better in this attribute and in no other",
    "less": "how a rewriter makes a question worse in this attribute and in no other",
}


class Attribute(BaseModel):
    """One thing that makes a question good."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    name: Name
    title: Text
    group: Text
    definition: Text
    scale: tuple[Text, Text, Text, Text, Text]
    tips: tuple[Text, ...] = Field(min_length=1)
    more: Text
    less: Text


def names(group: str | None = None) -> tuple[str, ...]:
    """The attributes that come with askwell, of a group or all, in the order of their files."""
    found = sorted(path.stem for path in FOLDER.glob("*.toml"))
    return tuple(name for name in found if group is None or load(name).group == group)


def file_of(name_or_path: str | Path) -> Path:
    """The file of an attribute by its name, or by a path. Raises DataError where there is none."""
    path = Path(name_or_path)
    file = path if path.suffix == ".toml" or len(path.parts) > 1 else FOLDER / f"{name_or_path}.toml"
    if not file.is_file():
        known = ", ".join(names())
        raise DataError(f"attribute {str(name_or_path)!r}: no file {file}; known attributes: {known}; or give a path")
    return file


def load(name_or_path: str | Path) -> Attribute:
    """An attribute. Raises DataError with everything that its file lacks, and what to put there."""
    file = file_of(name_or_path)
    try:
        attribute = Attribute.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not TOML: {error}") from None
    except ValidationError as error:
        raise DataError(f"{file}: {'; '.join(faults(error))}") from None
    if file.parent == FOLDER and attribute.name != file.stem:
        raise DataError(f"{file}: its name is {attribute.name!r}; name it as its file: {file.stem!r}")
    return attribute


def load_all(chosen: tuple[str, ...]) -> tuple[Attribute, ...]:
    """Several attributes, in order. Raises DataError also where two have the same name."""
    found = tuple(map(load, chosen))
    held = [attribute.name for attribute in found]
    if twice := sorted({name for name in held if held.count(name) > 1}):
        raise DataError(f"attributes {', '.join(chosen)}: {twice[0]!r} stands twice; name each one once")
    return found


def faults(error: ValidationError) -> list[str]:
    """What a file lacks, a fault a field, each with what belongs there."""
    told: dict[str, str] = {}
    for fault in error.errors(include_url=False):
        field = str(fault["loc"][0])
        if field not in WANTED:
            told[field] = f"unknown field {field!r}; known fields: {', '.join(WANTED)}"
        elif fault["type"] == "missing" and len(fault["loc"]) == 1:
            told[field] = f"{field!r} is missing; add {WANTED[field]}"
        else:
            given = str(fault["input"])
            told.setdefault(field, f"{field!r} is {given!r:.60}; it must be {WANTED[field]}")
    return list(told.values())


def written(attribute: Attribute) -> str:
    """An attribute as the text of a file, for a person to edit."""
    lines = [f"{field} = {quoted(getattr(attribute, field))}" for field in ("name", "title", "group", "definition")]
    for field in ("scale", "tips"):
        lines += [f"{field} = [", *(f"  {quoted(text)}," for text in getattr(attribute, field)), "]"]
    return "\n".join([*lines, *(f"{field} = {quoted(getattr(attribute, field))}" for field in ("more", "less"))]) + "\n"


def quoted(text: str) -> str:
    """A string as TOML has it, on one line; half of a surrogate pair, which no file can hold, becomes a mark."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    shown = (escapes.get(c) or (c if c.isprintable() or c == " " else f"\\U{ord(c):08X}") for c in text)
    return f'"{"".join(shown)}"'
