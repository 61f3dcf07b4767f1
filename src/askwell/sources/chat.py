"""JSONL of OpenAI-style messages, the format of most logs: one conversation a line.

    {"messages": [{"role": "user", "content": "..."}], "id": "...", "group": "...", "goal": "...", "outcome": "..."}

All but `messages` may be left out, and a line may be the bare list of messages. Without an id a conversation is
called FILE:LINE, without a group it is its own. Content is a string, or OpenAI's list of text parts, which are
joined by line breaks; `developer` is read as system. A message may carry annotated dialogue acts, from which `askwell
label` reads exact truth: `"acts": [{"act": "REQUEST", "slot": "fever", "service": "clinic"}]`. Other fields are not
read, and counted. Lines are read as bytes, so that a bad one spoils no other; a blank line is no record.
"""

import codecs
import json
from collections import Counter
from collections.abc import Iterator, Set
from itertools import count as numbers
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from askwell.records import Act, Role
from askwell.sources.drafts import Draft, Fault, Rejected, Said, shown

NAMES = ("*.jsonl", "*.ndjson")
MAX_LINE = 32 << 20
"""Longest line, in bytes; a longer one is no conversation but a file without line breaks."""

FIELDS = frozenset(("messages", "id", "group", "goal", "outcome"))
MESSAGE_FIELDS = frozenset(("role", "content", "acts"))
ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
RENAMES: dict[str, Role] = {
    **dict.fromkeys(("human", "patient", "customer", "client", "caller", "person", "prompter"), "user"),
    **dict.fromkeys(("gpt", "bot", "ai", "model", "chatgpt", "doctor", "expert", "agent", "clinician"), "assistant"),
}


def read(path: Path, *, name: str) -> Iterator[Draft | Rejected]:
    """The conversations of one file, and what is none."""
    for number, line in lines(path):
        try:
            found = draft_of(parse(line), file=name, place=str(number))
        except Fault as fault:
            found = fault.rejects(name, str(number))
        yield found


def count(path: Path) -> int:
    return sum(1 for _ in lines(path))


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each line that is not blank, less a byte order mark at the start of the file.

    Of a line above MAX_LINE the first MAX_LINE + 1 bytes are given.
    """
    with path.open("rb") as file:
        for number in numbers(start=1):
            line = piece = file.readline(MAX_LINE + 1)
            while len(piece) > MAX_LINE and not piece.endswith(b"\n"):
                piece = file.readline(MAX_LINE + 1)
            if not line:
                return
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if line.strip():
                yield number, line


def parse(line: bytes) -> Any:
    """The JSON value on a line."""
    if len(line) > MAX_LINE:
        detail = f"above {MAX_LINE:,} bytes; write one conversation a line"
        raise Fault("line too long", detail, line[:1000].decode("utf-8", "backslashreplace"))
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise Fault("not UTF-8", "the file is UTF-16; save it as UTF-8", line.decode("utf-8", "backslashreplace"))
    try:
        text = line.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        before = len(line[: error.start].decode("utf-8"))
        detail = f"byte 0x{line[error.start]:02x} at column {before + 1}; save the file as UTF-8"
        raise Fault("not UTF-8", detail, line.decode("utf-8", "backslashreplace"), at=before) from None
    if "\0" in text:
        at = text.index("\0")
        raise Fault("NUL character", f"column {at + 1}; delete it, or save the file as UTF-8", text, at=at)
    if text.startswith("\ufeff"):
        raise Fault("malformed JSON", "a byte order mark inside the file, left by joining files; delete it", text)
    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise Fault("malformed JSON", described(error, text), text, at=error.pos) from None
    except RecursionError:
        raise Fault("malformed JSON", "nested too deeply to be read", text) from None
    except ValueError as error:
        raise Fault("malformed JSON", str(error), text) from None


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys stand once; of a key that stands twice JSON would drop the first in silence."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        raise Fault("malformed JSON", f"key {twice!r} stands twice in one object", shown(pairs))
    return found


def described(error: json.JSONDecodeError, text: str) -> str:
    """Where JSON breaks off, and what such a line usually means."""
    if text in ("{", "[", "[{"):
        return "the line opens what later lines go on with; write one conversation a line (`jq -c . FILE`)"
    where = f"column {error.colno}: {error.msg}"
    return f"{where}; the line is cut off" if error.pos >= len(text) else where


def draft_of(value: Any, *, file: str, place: str) -> Draft:
    """A line's conversation."""
    fields = {"messages": value} if isinstance(value, list) else value
    if not isinstance(fields, dict):
        kind = type(value).__name__
        raise Fault("not an object", f'the line is {kind}; write {{"messages": [...]}}', shown(value))
    if "messages" not in fields:
        raise Fault("no messages", missing_messages(fields), shown(value))
    messages = messages_of(fields["messages"])
    identity = text_of(fields, "id") or f"{file}:{place}"
    group = text_of(fields, "group") or identity
    goal, outcome = text_of(fields, "goal"), text_of(fields, "outcome")
    return Draft(file, place, identity, group, messages, goal, outcome, notes_of(fields, FIELDS))


def notes_of(fields: dict[str, Any], known: Set[str]) -> Counter[str]:
    """The fields of a conversation and of its messages that are not read."""
    notes = Counter(f"field {key[:40]!r} not read" for key in fields.keys() - known)
    for message in fields["messages"]:
        notes.update(f"message field {key[:40]!r} not read" for key in message.keys() - MESSAGE_FIELDS)
    return notes


def missing_messages(fields: dict[str, Any]) -> str:
    if "conversations" in fields:
        return "'conversations' looks like ShareGPT; rename it to 'messages', 'from' to 'role' and 'value' to 'content'"
    return (
        f"the keys are {', '.join(map(repr, list(fields)[:8])) or 'none'}; write the list of messages under 'messages'"
    )


def text_of(fields: dict[str, Any], key: str) -> str | None:
    """A field that may be left out, null or blank; a whole number is taken as its digits."""
    value = fields.get(key)
    if value is None or isinstance(value, str):
        return value if value and value.strip() else None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise Fault("field is not text", f"{key!r} is {type(value).__name__}; write a string", shown(value))


def messages_of(value: Any) -> list[Said]:
    """The messages of a conversation, one by one; consecutive ones of a role stay apart."""
    if not isinstance(value, list):
        raise Fault("no messages", f"'messages' is {type(value).__name__}; write a list", shown(value))
    return [message_of(message, f"message {number}") for number, message in enumerate(value, start=1)]


def message_of(message: Any, which: str) -> Said:
    if not isinstance(message, dict):
        raise Fault("message is not an object", f"{which} is {type(message).__name__}", shown(message))
    if "messages" in message:
        raise Fault("message is not an object", "the line lists conversations; write one a line", shown(message))
    for key in ("role", "content"):
        if key not in message:
            keys = ", ".join(map(repr, list(message)[:8])) or "none"
            raise Fault(f"message without {key}", f"{which}; its keys are {keys}", shown(message))
    role = message["role"]
    if not isinstance(role, str) or role not in ROLES:
        raise Fault("unknown role", f"{which}: {renamed(role)}", shown(message))
    said: Said = {"role": ROLES[role], "content": content_of(message, which)}
    if message.get("acts"):
        said["acts"] = acts_of(message["acts"], which)
    return said


def acts_of(value: Any, which: str) -> tuple[Act, ...]:
    """The annotated acts of a message."""
    try:
        return tuple(Act.model_validate(act) for act in value)
    except (ValidationError, TypeError):
        detail = f'{which}; write [{{"act": "REQUEST", "slot": "...", "service": "..."}}]'
        raise Fault("acts cannot be read", detail, shown(value)) from None


def renamed(role: Any) -> str:
    """What to do about a role that is not known."""
    plain = role.strip().lower() if isinstance(role, str) else ""
    if plain in ("tool", "function"):
        return f"{role!r}; leave out what tools said, or rewrite it as 'system'"
    known = ROLES.get(plain) or RENAMES.get(plain)
    return f"{role!r}; rename it to {known!r}" if known else f"{role!r}; rename it to 'user', 'assistant' or 'system'"


def content_of(message: dict[str, Any], which: str) -> str:
    """Content as text, that of parts joined by line breaks."""
    content = message["content"]
    if isinstance(content, str):
        return content
    if content is None:
        hint = "; leave out messages that only call tools" if message.get("tool_calls") else "; leave the message out"
        raise Fault("null content", which + hint, shown(message))
    if not isinstance(content, list):
        raise Fault("content is not text", f"{which} is {type(content).__name__}; write a string", shown(message))
    parts: list[str] = []
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise Fault("content is not text", f"{which} has a part of type {kind!r}", shown(message))
        parts.append(part["text"])
    return "\n".join(parts)
