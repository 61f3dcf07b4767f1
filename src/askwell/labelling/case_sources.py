"""What cases are made of: conversations, or threads with all that was said in them; and how each begins."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from askwell import runs
from askwell.errors import DataError
from askwell.recipes import CasesBuildRecipe
from askwell.records import Conversation, Message, Thread

MADE_BY = "askwell ingest"
GREETINGS = (
    "hi hello hey there all dear everybody everyone good morning afternoon evening day doctor doc dr sir madam thanks "
    "thank you for having seeing me yes ok okay fine great well and how are i am m not bad to meet nice please"
)
"""Words of which greetings are made."""
SENTENCE = re.compile(r"(?<=[.!?;])\s+|(?<=[。！？；])|\n+")
"""What stands between sentences."""


def conversations(recipe: CasesBuildRecipe) -> list[Conversation]:
    """What cases are made of, in the order of the input; with a limit so many, drawn by the hash of their id."""
    found = (
        threads(recipe.input)
        if is_forum(recipe.input)
        else runs.records_of(recipe.input, Conversation, made_by=MADE_BY)
    )
    kept = [each for each in found if recipe.split in ("all", each.split)]
    if not kept:
        raise DataError(f"{recipe.input}: nobody of split {recipe.split!r} in it; `--split all` takes everybody")
    if recipe.limit is None or recipe.limit >= len(kept):
        return kept
    names = sorted((each.id for each in kept), key=lambda name: hashlib.sha256(name.encode()).digest())
    drawn = set(names[: recipe.limit])
    return [each for each in kept if each.id in drawn]


def is_forum(path: Path) -> bool:
    """Whether a run of ingest holds threads."""
    return runs.counts_of(path).get("questions") is not None


def threads(path: Path) -> Iterator[Conversation]:
    """Whole threads: the post, and every question below it with its answer; with what is known of the end."""
    grouped: dict[str, list[Thread]] = {}
    for record in runs.records_of(path, Thread, made_by=MADE_BY):
        grouped.setdefault(record.conversation_id, []).append(record)
    for name, records in grouped.items():
        first = records[0]
        outcome = [
            next((value for r in records if (value := getattr(r, key))), None) for key in ("outcome", "conclusion")
        ]
        yield Conversation(
            id=name,
            group=first.group,
            split=first.split,
            source=first.source,
            messages=whole(records),
            outcome="\n".join(dict.fromkeys(filter(None, outcome))) or None,
            redacted=first.redacted,
        )


def whole(records: Sequence[Thread]) -> tuple[Message, ...]:
    """All that was said in a thread: the longest context, then what it does not hold."""
    longest = max(records, key=lambda record: len(record.context))
    messages = list(longest.context)
    asked = {message.content for message in messages if message.role == "assistant"}
    for record in records:
        if record.question not in asked:
            messages.append(Message(role="assistant", content=record.question))
            messages += [Message(role="user", content=record.answer)] if record.answer is not None else []
    return tuple(messages)


def opening_of(conversation: Conversation, how: Literal["turn", "sentence"]) -> str:
    """What the person says at first that is more than a greeting, word for word: all up to the question that follows,
    or as far as the end of that sentence. All there is where they only ever greet."""
    said: list[str] = []
    for message in conversation.messages:
        if message.role == "user":
            said.append(message.content)
        elif not greets("\n".join(said)):
            break
    text = "\n".join(said).strip()
    if how == "sentence":
        ends = (found.start() for found in SENTENCE.finditer(text))
        return next((text[:end] for end in ends if not greets(text[:end])), text)
    return text


def greets(text: str) -> bool:
    """Whether a text is a greeting, or nothing."""
    return not set(re.findall(r"\w+", text.lower())) - set(GREETINGS.split())
