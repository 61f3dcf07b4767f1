"""Structured answers: a pydantic model in, an instance of it out.

An endpoint is asked for JSON of the model's schema where it takes one. Whatever comes is read leniently (fences, prose
around it, trailing commas, a train of thought before it); what still cannot be read is sent back once to be repaired.
A value that is not on the menu is not repaired: the model has decided for something that nobody offered, unscored.
"""

import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from askwell.llm import prompts
from askwell.llm.chat import Answer, Request, schema_of
from askwell.llm.client import Failed
from askwell.recipes import Endpoint

T = TypeVar("T", bound=BaseModel)
THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
TRAILING_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])', re.DOTALL)
OFF_MENU = {"literal_error", "enum", "bool_parsing", "bool_type"}
LONGEST = 100_000
"""Characters of an answer that are looked through."""


class Completes(Protocol):
    """A client, or what stands in front of one."""

    @property
    def endpoint(self) -> Endpoint: ...

    @property
    def ledger(self) -> Counter[str]: ...

    async def complete(self, request: Request) -> Answer: ...


class Unreadable(Exception):
    """An answer that is no instance of the model: why, and whether it names something that nobody offered."""

    def __init__(self, why: str, *, off_menu: bool = False) -> None:
        super().__init__(why)
        self.off_menu = off_menu


async def ask(
    client: Completes, messages: tuple[Mapping[str, str], ...], kind: type[T], *, role: str, sample: int = 0
) -> T:
    """The endpoint's answer as a `kind`. Raises Failed, with the text where there was one."""
    request = Request(messages, kind, sample, role)
    answer = await client.complete(request)
    if answer.kind not in ("ok", "length"):
        raise Failed(answer.kind, text=answer.text)
    try:
        return parse(answer.text, kind)
    except Unreadable as fault:
        if fault.off_menu:
            raise Failed("off_menu", str(fault), text=answer.text) from None
        if answer.kind == "length":
            raise Failed("length", f"longer than max_tokens {client.endpoint.max_tokens}", text=answer.text) from None
        repair = prompts.load("repair").fill(fault=str(fault), schema=json.dumps(schema_of(kind)))
        again = (*messages, {"role": "assistant", "content": answer.text}, repair[1])
        repaired = await client.complete(request._replace(messages=again, role=f"{role}: repair"))
        client.ledger["repairs"] += 1
        try:
            return parse(repaired.text, kind)
        except Unreadable as still:
            kind_of_fault = "off_menu" if still.off_menu else "unreadable"
            raise Failed(kind_of_fault, str(still), text=repaired.text) from None


def parse(text: str, kind: type[T]) -> T:
    """The last object in a text that is a `kind`. Raises Unreadable."""
    with contextlib.suppress(ValidationError):
        return kind.model_validate_json(text)  # what nearly every answer is: the object and nothing else
    fault: Unreadable | None = None
    for found in reversed(list(objects(THOUGHT.sub("", text[:LONGEST])))):
        try:
            return kind.model_validate(found, strict=False)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "the answer"
            off_menu = all(entry["type"] in OFF_MENU for entry in error.errors())
            shown = f", not {first['input']!r:.100}" if off_menu else ""
            fault = fault or Unreadable(f"{place}: {first['msg']}{shown}", off_menu=off_menu)
    raise fault or Unreadable("no JSON object in the answer")


def objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in a text that do not stand in one another, trailing commas forgiven."""
    decoder = json.JSONDecoder()
    text = TRAILING_COMMA.sub(lambda match: match[1] or "", text) if not whole(text) else text
    place, tries = text.find("{"), 0
    while place >= 0 and tries < 100:
        try:
            found, end = decoder.raw_decode(text, place)
            yield found
        except (ValueError, RecursionError):
            end = place + 1
            tries += 1
        place = text.find("{", end)


def whole(text: str) -> bool:
    """Whether a text is JSON as it stands."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
