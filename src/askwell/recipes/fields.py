"""What recipes are made of."""

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict


class Section(BaseModel):
    """A group of fields inside a recipe."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False, defer_build=True
    )
    free: ClassVar[frozenset[str]] = frozenset()
    """Fields that a cut run may be resumed with other values of: they say how it is done, or when it is given up, and
    leave what comes out as it is."""


class Recipe(Section):
    """What every command takes."""

    positional: ClassVar[tuple[str, ...]] = ()
    """Fields that may be given without a flag, in this order."""

    output: Path
    """Run directory to create; an unfinished run of the same recipe in it is resumed."""
    seed: int = 0
    """Seed of everything that is drawn at random."""


def one_line(marker: str) -> str:
    """A stop marker that a reply's last line can be."""
    if not marker.strip() or marker != marker.strip() or len(marker.splitlines()) != 1:
        raise ValueError(f"{marker!r} must be one line without white space around it")
    return marker


StopMarker = Annotated[str, AfterValidator(one_line)]


def bounds(fold: str) -> tuple[int, int, int]:
    """First and last part, and how many there are, of a fold such as `0-2/4`."""
    match = re.fullmatch(r"(\d+)(?:-(\d+))?/(\d+)", fold)
    first, last, parts = (int(match[1]), int(match[2] or match[1]), int(match[3])) if match else (0, 0, 0)
    if not match or not first <= last < parts:
        raise ValueError(f"{fold!r} must be all, or a part such as 3/4 or 0-2/4, counted from 0")
    return first, last, parts


def whole_or_part(fold: str) -> str:
    """A fold that can be read."""
    if fold != "all":
        bounds(fold)
    return fold


Fold = Annotated[str, AfterValidator(whole_or_part)]


def essential(section: Section) -> dict[str, Any]:
    """The fields that decide what comes out, as JSON holds them."""
    dumped = section.model_dump(mode="json")
    found = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            found[name] = essential(value)
        elif isinstance(value, dict):
            held = value.items()
            found[name] = {key: essential(v) if isinstance(v, Section) else dumped[name][key] for key, v in held}
        elif name not in section.free:
            found[name] = dumped[name]
    return {name: value for name, value in found.items() if name not in section.free}
