"""Files and flags to a recipe, and what is wrong with them in one line."""

import difflib
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from askwell.errors import RecipeError
from askwell.recipes.fields import Recipe, Section

T = TypeVar("T", bound="Recipe")


def read_recipe(path: Path, command: str) -> dict[str, Any]:
    """The mapping in a YAML recipe, less its `command`, which must be the one that was called."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of fields, not {type(values).__name__}")
    if (declared := values.pop("command", None)) is None:
        raise RecipeError(f"{path}: says no command; write `command: {command}` as its first line")
    if declared != command:
        raise RecipeError(
            f"{path}: a recipe for command {declared!r}, called as {command!r}; call `askwell {declared}`"
        )
    return values


def override(values: dict[str, Any], flags: list[str]) -> dict[str, Any]:
    """Merge `--a.b value` (or `--a.b=value`) pairs over nested `values`; lists and mappings are read as YAML."""
    queue = list(flags)
    while queue:
        flag = queue.pop(0)
        if not flag.startswith("--") or flag == "--":
            raise RecipeError(f"unexpected argument {flag!r}; a recipe comes first, then `--field value` pairs")
        name, equals, text = flag[2:].partition("=")
        if not equals:
            if not queue:
                raise RecipeError(f"--{name} has no value; write `--{name} VALUE`")
            text = queue.pop(0)
        *parents, last = name.replace("-", "_").split(".")
        place = values
        for parent in parents:
            inner = place.get(parent)
            place[parent] = dict(inner) if isinstance(inner, dict) else {}
            place = place[parent]
        place[last] = scalar(text)
    return values


def scalar(text: str) -> object:
    """A flag's value: `null`, a YAML list or mapping, else the text itself, which pydantic turns into the type."""
    if text == "null":  # `none` is a value of some settings
        return None
    if text[:1] in ("[", "{"):
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
            return text
    return text


def resolve(kind: type[T], values: dict[str, Any]) -> T:
    """Validate `values` as a `kind`. Raises RecipeError: every fault on one line, each with value, rule and fix."""
    split_lists(kind, values)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        faults = [describe(kind, fault) for fault in error.errors(include_url=False)]
        raise RecipeError("; ".join(dict.fromkeys(faults))) from None


def split_lists(kind: type[BaseModel], values: dict[str, Any]) -> None:
    """`a,b` given for a list field becomes [a, b], in sections too."""
    for name, value in values.items():
        field = kind.model_fields.get(name)
        if field is None:
            continue
        if isinstance(value, str) and typing.get_origin(field.annotation) is tuple:
            values[name] = [part for part in value.split(",") if part]
        elif isinstance(value, dict) and (section := section_of(field.annotation)):
            split_lists(section, value)


def describe(kind: type[BaseModel], fault: Any) -> str:
    """One pydantic fault in one clause."""
    place = [str(part) for part in fault["loc"]]
    name = ".".join(place) or "recipe"
    if fault["type"] == "extra_forbidden":
        known, above = field_names(kind), name.removesuffix(place[-1])
        beside = [other for other in known if other.startswith(above) and "." not in other.removeprefix(above)]
        # Of a section's fields the last part alone is compared: the first ones are alike anyway.
        ends = {other.removeprefix(above): other for other in (beside if above else known)}
        close = [ends[end] for end in difflib.get_close_matches(place[-1], ends, n=1)]
        hint = f"did you mean {close[0]!r}?" if close else f"known fields: {', '.join(beside)}"
        return f"unknown field {name!r}; {hint}"
    if fault["type"] == "missing":
        return f"{name!r} is missing; give `--{name} VALUE` or `{name}:` in the recipe"
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "value_error":
        return message if name == "recipe" else f"{name}: {message}"
    return f"{name}: {fault['input']!r} is not valid: {message[:1].lower()}{message[1:]}"


def field_names(kind: type[BaseModel], prefix: str = "") -> list[str]:
    """All dotted field names of a recipe class."""
    names: list[str] = []
    for name, field in kind.model_fields.items():
        names.append(prefix + name)
        if section := section_of(field.annotation):
            names += field_names(section, f"{prefix}{name}.")
    return names


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The Section class inside an annotation such as `Lora | None`, if there is one."""
    options = typing.get_args(annotation) if typing.get_origin(annotation) in (typing.Union, types.UnionType) else ()
    for option in (annotation, *options):
        if isinstance(option, type) and issubclass(option, Section):
            return option
    return None
