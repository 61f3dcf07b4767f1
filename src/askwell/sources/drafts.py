"""What a reader hands to ingest: a draft of each conversation, or the reason why there is none.

A reader knows one format and nothing else. It raises Fault at what it cannot read and yields it as Rejected, so
that accepted and rejected add up to what stands in the file. `check` holds what is asked of every format.
"""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from typing_extensions import NotRequired, TypedDict

from askwell.records import Act, QuestionTruth, Record, Role

QUOTE = 200
"""Longest quote, in characters."""


class Said(TypedDict):
    """One message; ingest makes it a Message, whose types are then validated once a conversation."""

    role: Role
    content: str
    acts: NotRequired[tuple[Act, ...]]


class Beside(TypedDict):
    """What a thread's question has beside the words before it: the fields of Thread."""

    conversation_id: str
    answer: str | None
    hypotheses: list[str]
    outcome: str | None
    conclusion: str | None
    flair: str | None
    expert: bool
    thanked: bool | None
    truth: QuestionTruth | None


class Draft(NamedTuple):
    """One conversation as its format has it. `file` and `place` say where it stands.

    With `beside` it is a thread up to a follow-up question, which is its last message. `notes` name what the reader
    left out or decided for itself; ingest counts them.
    """

    file: str
    place: str
    id: str
    group: str
    messages: list[Said]
    goal: str | None = None
    outcome: str | None = None
    notes: Counter[str] = Counter()  # noqa: RUF012  never changed: a reader with notes brings its own
    beside: Beside | None = None


class Rejected(Record):
    """One line of rejected.jsonl: what was found at a place, and why it is no conversation."""

    file: str
    place: str
    reason: str
    detail: str
    quote: str

    @property
    def where(self) -> str:
        return f"{self.file}:{self.place}"


class Fault(Exception):
    """Why something is no conversation: a reason to count by, the detail, and the text at fault."""

    def __init__(self, reason: str, detail: str, text: str, *, at: int = 0) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.quote = quoted(text, at=at)

    def rejects(self, file: str, place: str) -> Rejected:
        return Rejected(
            file=printable(file), place=place, reason=self.reason, detail=printable(self.detail), quote=self.quote
        )


def quoted(text: str, *, at: int = 0) -> str:
    """Up to QUOTE characters of `text`, around character `at`."""
    start = max(0, at - QUOTE // 2) if len(text) > QUOTE else 0
    return printable(text[start : start + QUOTE])[:QUOTE]


def shown(value: Any) -> str:
    """A JSON value as text, to quote from."""
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "(nested too deeply to be shown)"


def printable(text: str) -> str:
    """`text` with lone surrogates spelled out, which no file in UTF-8 can hold."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def check(draft: Draft) -> None:
    """Raise Fault where a draft is no dialogue, or holds text that cannot be written or should not be trained on."""
    if not draft.messages:
        raise Fault("empty dialogue", "it holds no message", draft.id)
    for what, text in texts(draft):
        if not text.strip():
            raise Fault("empty message" if what.startswith("message") else "empty field", f"{what} is blank", draft.id)
        if "\0" in text:
            at = text.index("\0")
            raise Fault("NUL character", f"{what}, character {at + 1}", text, at=at)
        if not text.isascii():
            check_unicode(what, text)
    roles = {message["role"] for message in draft.messages}
    if "user" not in roles:
        raise Fault("no message by a user", "nobody is asked", draft.messages[0]["content"])
    if "assistant" not in roles:
        raise Fault("no reply by an assistant", "nobody asks", draft.messages[0]["content"])


def texts(draft: Draft) -> Iterator[tuple[str, str]]:
    """Every text of a draft, with what to call it."""
    yield from (("id", draft.id), ("group", draft.group))
    yield from ((what, text) for what, text in (("goal", draft.goal), ("outcome", draft.outcome)) if text is not None)
    for number, message in enumerate(draft.messages, start=1):
        yield f"message {number} ({message['role']})", message["content"]
    if draft.beside is not None:
        for what, value in draft.beside.items():
            found = value if isinstance(value, list) else [value]
            yield from ((what, text) for text in found if isinstance(text, str))


def check_unicode(what: str, text: str) -> None:
    """Raise Fault at a lone surrogate, which is half a character and cannot be written as UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        escaped = f"\\u{ord(text[error.start]):04x}"
        raise Fault(
            "lone surrogate",
            f"{what}, character {error.start + 1}: {escaped} is half a character",
            text,
            at=error.start,
        ) from None
