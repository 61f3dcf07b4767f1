"""Prompts for models behind endpoints: files of `askwell/texts/prompts`, filled in one pass.

A file has a part that never changes, which comes first, and below a line `=== user ===` the part that varies, so that
a server's prefix cache serves the first once for all calls. `{name}` is a field; braces around anything else are text.
Several tasks on the same material share a file: what varies begins alike for all of them, and each goes on as it stands
below a line `=== its name ===`.
"""

import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from askwell.errors import RecipeError
from askwell.texts import prompt_file

FIELD = re.compile(r"\{([a-z_]+)\}")
BORDER = re.compile(r"\n=== (\w+) ===\n")


class Prompt(NamedTuple):
    """A prompt's two parts and the file that they stand in."""

    file: Path
    system: str
    user: str

    def fill(self, **values: str) -> tuple[Mapping[str, str], ...]:
        """The messages. Raises RecipeError at a field without a value, and at a value without a field."""
        wanted = set(FIELD.findall(self.system)) | set(FIELD.findall(self.user))
        if wanted != values.keys():
            missing, unknown = sorted(wanted - values.keys()), sorted(values.keys() - wanted)
            raise RecipeError(f"{self.file}: fields without a value: {missing}; values without a field: {unknown}")
        # One pass: what a value holds is never read as a field.
        parts = (FIELD.sub(lambda field: values[field[1]], part) for part in (self.system, self.user))
        return tuple({"role": role, "content": text} for role, text in zip(("system", "user"), parts, strict=True))


@lru_cache(maxsize=64)
def load(name: str, task: str | None = None) -> Prompt:
    """A prompt by the name of its file, and of a task where it has several. Raises RecipeError where there is none, or
    it has no two parts."""
    file = prompt_file(name)
    system, *parts = BORDER.split(file.read_text(encoding="utf-8"))
    texts = dict(zip(parts[::2], map(str.strip, parts[1::2]), strict=True))
    user = texts.pop("user", "")
    if not system.strip() or not user:
        raise RecipeError(f"{file}: a prompt for an endpoint has two parts, above and below a line '=== user ==='")
    if texts or task is not None:
        if task not in texts:
            raise RecipeError(f"{file}: no task {task!r}; tasks: {', '.join(texts) or 'none'}")
        user = f"{user}\n\n{texts[task]}"
    return Prompt(file, system.strip(), user)


def fenced(text: str) -> str:
    """Text from a log between marks that it cannot contain: a hash of the text itself, the same every time."""
    mark = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    while mark in text:
        mark = hashlib.sha256(mark.encode()).hexdigest()[:12]
    return f"<data {mark}>\n{text}\n</data {mark}>"
