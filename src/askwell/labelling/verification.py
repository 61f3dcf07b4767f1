"""Who is better? A judge ranks the wordings of a question in one attribute, and what that says of each preference.

ALFA, section 4.2: a pair is kept if the judge sees the difference that the rewriter was to make. The judge sees the
original and its enhanced and corrupted variants under letters, in an order drawn by the question's id, gives its reason
before the verdict, and may let several share a place. A tie and a verdict that did not come about are unscored.
"""

import re
from collections.abc import Mapping, Sequence
from random import Random
from typing import NamedTuple

from pydantic import BaseModel, field_validator

from askwell.llm import prompts
from askwell.records import Direction

LETTERS = "ABCDEFGH"
ORIGINS = ("enhanced", "original", "corrupted")
DIRECTIONS: dict[Direction, tuple[str, str]] = {
    "E-C": ("enhanced", "corrupted"),
    "E-O": ("enhanced", "original"),
    "O-C": ("original", "corrupted"),
}


class Ranking(BaseModel):
    """What the judge answers, the reason before the verdict: `B > A = C`."""

    # Schemas are sent with their names in the order of the alphabet, in which servers have them filled in.
    reason: str
    verdict: str

    @field_validator("verdict")
    @classmethod
    def _letters_in_places(cls, text: str) -> str:
        found = re.findall(r"[A-Z]", text)
        if len(set(found)) < len(found) or not re.fullmatch(r"\s*[A-Z](\s*[>=]\s*[A-Z])*\s*", text):
            raise ValueError(f"{text!r:.60} must name each letter once, with '>' or '=' between them: B > A = C")
        return text


class Verdict(BaseModel):
    """How the judge ranked the wordings of a question: the origin of each in the order shown, and its place from 0."""

    order: tuple[str, ...]
    places: tuple[int, ...] = ()
    reason: str = ""
    failure: str | None = None
    """Why there is none; `reason` then has what was answered."""


class Shown(NamedTuple):
    """What a judge is shown: the origins in their order, and the questions under their letters."""

    order: tuple[str, ...]
    text: str


def shown(wordings: Mapping[str, str], *, seed: str) -> Shown:
    """The wordings, by origin, in an order that depends on the seed alone."""
    order = [origin for origin in ORIGINS if origin in wordings]
    Random(seed).shuffle(order)
    parts = (f"{letter}:\n{prompts.fenced(wordings[name])}" for letter, name in zip(LETTERS, order, strict=False))
    return Shown(tuple(order), "\n\n".join(parts))


def verdict_of(ranking: Ranking, order: Sequence[str]) -> Verdict:
    """The judge's ranking by origin; a failure where it names other questions than it was shown."""
    letters = LETTERS[: len(order)]
    places = {
        letter: place for place, tier in enumerate(ranking.verdict.split(">")) for letter in re.findall("[A-Z]", tier)
    }
    if set(places) != set(letters):
        return Verdict(order=tuple(order), reason=ranking.reason, failure="off_menu")
    return Verdict(order=tuple(order), places=tuple(places[letter] for letter in letters), reason=ranking.reason)


def verified(verdict: Verdict, direction: Direction) -> tuple[bool | None, str | None]:
    """Whether a verdict confirms a direction; without one, why: a tie, or what kept the judge from it."""
    better, worse = DIRECTIONS[direction]
    if verdict.failure is not None:
        return None, f"judge: {verdict.failure}"
    places = dict(zip(verdict.order, verdict.places, strict=True))
    if places[better] == places[worse]:
        return None, "tie"
    return places[better] < places[worse], None
