"""RealMedConv: JSONL of online pharmacy consultations, as Learn-to-Ask publishes them.

    {"session_id": 35310, "diagn": "...", "messages": [{"role": "user", "content": "..."}, ...]}

The diagnosis becomes the outcome. People write in bursts: consecutive messages of one role stay separate messages.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from askwell.sources.chat import count, lines, messages_of, notes_of, parse, text_of
from askwell.sources.drafts import Draft, Fault, Rejected, shown

__all__ = ["NAMES", "count", "read"]

NAMES = ("*.jsonl",)
FIELDS = frozenset(("session_id", "diagn", "messages"))


def read(path: Path, *, name: str) -> Iterator[Draft | Rejected]:
    """The sessions of one file, and what is none."""
    for number, line in lines(path):
        try:
            found = draft_of(parse(line), file=name, place=str(number))
        except Fault as fault:
            found = fault.rejects(name, str(number))
        yield found


def draft_of(value: Any, *, file: str, place: str) -> Draft:
    if not isinstance(value, dict):
        raise Fault("not an object", f"the line is {type(value).__name__}", shown(value))
    for key, reason in (("session_id", "no session_id"), ("messages", "no messages")):
        if value.get(key) is None:
            hint = "; --source chat reads lines without it" if key == "session_id" else ""
            raise Fault(reason, f"the keys are {', '.join(map(repr, list(value)[:8])) or 'none'}{hint}", shown(value))
    identity = text_of(value, "session_id") or ""
    messages = messages_of(value["messages"])
    return Draft(
        file, place, identity, identity, messages, outcome=text_of(value, "diagn"), notes=notes_of(value, FIELDS)
    )
