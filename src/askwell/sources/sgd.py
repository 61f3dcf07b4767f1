"""Schema-Guided Dialogue: folders of `dialogues_*.json`, each a JSON list of annotated dialogues.

USER becomes user and SYSTEM assistant. Of the annotation the acts of all frames are kept, without their values;
`state`, spans and service calls are not read. The folder's name goes before the id, as every folder of the corpus
counts from 1_00000. The goal names the user's intents in the order in which they came up.
"""

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from askwell.errors import DataError
from askwell.records import Act, Role
from askwell.sources.drafts import Draft, Fault, Rejected, Said, shown

NAMES = ("dialogues_*.json",)
ROLES: dict[str, Role] = {"USER": "user", "SYSTEM": "assistant"}


class Action(TypedDict):
    act: str
    slot: str
    values: list[str]


class Frame(TypedDict):
    service: str
    actions: list[Action]


class Utterance(TypedDict):
    speaker: Literal["USER", "SYSTEM"]
    utterance: str
    frames: list[Frame]


class Dialogue(TypedDict):
    dialogue_id: str
    turns: list[Utterance]


DIALOGUE = TypeAdapter(Dialogue)


def read(path: Path, *, name: str) -> Iterator[Draft | Rejected]:
    """The dialogues of one file. Raises DataError where the file as a whole is no list of dialogues."""
    folder = path.parent.resolve().name
    for number, value in enumerate(load(path), start=1):
        place = f"dialogue {number}"
        try:
            found = draft_of(parse(value), file=name, place=place, folder=folder)
        except Fault as fault:
            found = fault.rejects(name, place)
        yield found


def count(path: Path) -> int:
    return len(load(path))


def load(path: Path) -> list[Any]:
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}); fetch the file again, or leave it out") from None
    if not isinstance(values, list):
        raise DataError(f"{path}: not a list of dialogues but {type(values).__name__}; the files are {NAMES[0]}")
    return values


def parse(value: object) -> Dialogue:
    try:
        return DIALOGUE.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the dialogue"
        raise Fault("not a dialogue", f"{field}: {first['msg']}", shown(value)) from None


def draft_of(dialogue: Dialogue, *, file: str, place: str, folder: str) -> Draft:
    identity = f"{folder}/{dialogue['dialogue_id']}"
    messages: list[Said] = [
        {"role": ROLES[turn["speaker"]], "content": turn["utterance"], "acts": acts_of(turn)}
        for turn in dialogue["turns"]
    ]
    return Draft(file, place, identity, identity, messages, goal=", ".join(intents(dialogue)) or None)


def acts_of(turn: Utterance) -> tuple[Act, ...]:
    return tuple(
        known_act(action["act"], action["slot"], frame["service"])
        for frame in turn["frames"]
        for action in frame["actions"]
    )


@lru_cache(maxsize=10_000)
def known_act(act: str, slot: str, service: str) -> Act:
    """One Act for all its occurrences: the corpus has 244,000 acts, and about a thousand different ones."""
    return Act(act=act, slot=slot, service=service)


def intents(dialogue: Dialogue) -> list[str]:
    """What the user wanted, each once. AFFIRM_INTENT carries no value: it takes up what SYSTEM offered last."""
    found: dict[str, None] = {}
    offered: list[str] = []
    for turn in dialogue["turns"]:
        for frame in turn["frames"]:
            for action in frame["actions"]:
                if action["act"] == "OFFER_INTENT":
                    offered = action["values"]
                elif action["act"] == "INFORM_INTENT":
                    found |= dict.fromkeys(action["values"])
                elif action["act"] == "AFFIRM_INTENT":
                    found |= dict.fromkeys(action["values"] or offered)
    return list(found)
