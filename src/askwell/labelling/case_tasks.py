"""What a writer and a judge are asked about a record that is to become a case, and what they answer.

Two prompt files, of the writer and of the judge; all calls of each begin alike for a record, the task comes last, so
that a server's prefix cache reads the record once.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from random import Random
from typing import Literal, NamedTuple

from pydantic import BaseModel, field_validator

from askwell.labelling.case_sources import opening_of
from askwell.llm import prompts
from askwell.llm.chat import Request
from askwell.records import Conversation, Message

WRITER, JUDGE = "build_case", "check_case"
SPEAKERS = {"user": "person", "assistant": "expert", "system": "notice"}
LETTERS = "ABCD"
WRONG = 3
"""Wrong options of a case."""
UNKNOWN = "Nothing is known of it."
Messages = tuple[Mapping[str, str], ...]


class Fact(BaseModel):
    """A fact, and the words that tell it in a message, counted from 1."""

    message: int
    quote: str
    fact: str


class Facts(BaseModel):
    """What the writer finds that the person tells."""

    facts: list[Fact]


class Inquiry(BaseModel):
    """What is to be found out, and the answer, the reason first."""

    # Schemas keep the order of their fields, in which servers have them filled in.
    reason: str
    inquiry: str
    answer: str


class Distractors(BaseModel):
    """The wrong options."""

    reason: str
    options: list[str]

    @field_validator("options")
    @classmethod
    def _as_many_as_asked(cls, options: list[str]) -> list[str]:
        if len(options) != WRONG:
            raise ValueError(f"{len(options)} options, where {WRONG} are asked for")
        return options


class Rewritten(BaseModel):
    """An option written anew, by its number from 1."""

    option: int
    text: str


class Revised(BaseModel):
    """The options that are written anew."""

    reason: str
    options: list[Rewritten]


class Told(BaseModel):
    """Whether the record supports a fact, by its number from 1."""

    fact: int
    reason: str
    supported: bool


class Support(BaseModel):
    """What the judge says of facts."""

    verdicts: list[Told]


class Judged(BaseModel):
    """What the judge says of an option, by its letter."""

    option: str
    reason: str
    verdict: Literal["right", "wrong", "unclear"]
    plausible: bool


class Judgement(BaseModel):
    """What the judge says of all of them."""

    verdicts: list[Judged]


class Chosen(BaseModel):
    """What the judge chooses who knows the facts alone."""

    reason: str
    choice: Literal["A", "B", "C", "D"]


class Draft(BaseModel, frozen=True):
    """A case in the making; the first option is meant to be right."""

    inquiry: str
    options: tuple[str, ...]

    @property
    def answer(self) -> str:
        return self.options[0]

    @property
    def wrong(self) -> tuple[str, ...]:
        return self.options[1:]


class Fault(BaseModel, frozen=True):
    """What is wrong with an option (its place in the draft), as a kind to count by and in words."""

    option: int
    kind: str
    words: str


def filled(file: str, task: str, conversation: Conversation, **values: str) -> Messages:
    """The messages of a call. What was said stands as JSON lines, so that a line break in it forges no speaker."""
    said = lined(
        {"number": number, "speaker": SPEAKERS[message.role], "says": message.content}
        for number, message in enumerate(conversation.messages, start=1)
    )
    outcome = prompts.fenced(conversation.outcome or UNKNOWN)
    return prompts.load(file, task).fill(conversation=said, outcome=outcome, **values)


def lined(objects: Iterable[Mapping[str, object]]) -> str:
    """Objects as fenced JSON lines."""
    return prompts.fenced("\n".join(json.dumps(entry, ensure_ascii=False) for entry in objects))


def finding_facts(conversation: Conversation) -> Messages:
    """Asks for the facts."""
    return filled(WRITER, "facts", conversation)


def posing(conversation: Conversation) -> Messages:
    """Asks for inquiry and answer."""
    return filled(WRITER, "inquiry", conversation)


def misleading(conversation: Conversation, draft: Draft) -> Messages:
    """Asks for wrong options."""
    values = {"inquiry": prompts.fenced(draft.inquiry), "answer": prompts.fenced(draft.answer)}
    return filled(WRITER, "distractors", conversation, **values)


def revising(conversation: Conversation, draft: Draft, faults: Sequence[Fault]) -> Messages:
    """Asks for other options in place of those at fault."""
    return filled(
        WRITER,
        "revise",
        conversation,
        inquiry=prompts.fenced(draft.inquiry),
        options=lined({"option": place + 1, "text": text} for place, text in enumerate(draft.options)),
        faults=lined({"option": fault.option + 1, "fault": fault.words} for fault in faults),
    )


def supporting(conversation: Conversation, facts: Sequence[Fact]) -> Messages:
    """Asks whether the record supports facts."""
    rows = ({"fact": number, "message": it.message, "says": it.fact} for number, it in enumerate(facts, start=1))
    return filled(JUDGE, "support", conversation, facts=lined(rows))


class Shown(NamedTuple):
    """What the judge is shown: the places of the options in the draft under A, B and so on, and the messages."""

    order: tuple[int, ...]
    messages: Messages


def judging(
    conversation: Conversation, draft: Draft, *, seed: str, task: Literal["options", "choose"] = "options"
) -> Shown:
    """Asks for a verdict on each option, or for a choice, in an order that depends on the seed alone."""
    order = Random(f"{task} {seed}").sample(range(len(draft.options)), len(draft.options))
    rows = ({"option": letter, "text": draft.options[at]} for letter, at in zip(LETTERS, order, strict=True))
    messages = filled(JUDGE, task, conversation, inquiry=prompts.fenced(draft.inquiry), options=lined(rows))
    return Shown(tuple(order), messages)


def facts_alone(conversation: Conversation, opening: str, facts: Sequence[str]) -> Conversation:
    """The record as an interview can bring it to light: the first words and the facts, not what the expert made of
    it, nor what came of it."""
    said = (
        Message(role="user", content=opening),
        Message(role="assistant", content="What else is there to know?"),
        Message(role="user", content=" ".join(facts)),
    )
    return conversation.model_copy(update={"messages": said, "outcome": None})


def requests_of(conversation: Conversation, *, revisions: int) -> Iterator[Request]:
    """The calls that a record may take, with something in the place of what is not known before it is asked."""
    draft = Draft(inquiry="What is behind it? " * 4, options=tuple(f"{word} option" * 3 for word in LETTERS))
    yield Request(finding_facts(conversation), Facts, role="facts")
    yield Request(posing(conversation), Inquiry, role="inquiry")
    yield Request(misleading(conversation, draft), Distractors, role="distractors")
    told = [(i, message.content) for i, message in enumerate(conversation.messages, 1) if message.role == "user"]
    facts = [Fact(message=number, quote=text, fact=text) for number, text in told]
    yield Request(supporting(conversation, facts), Support, role="support")
    for number in range(revisions + 1):
        shown = judging(conversation, draft, seed=f"{conversation.id} {number}")
        yield Request(shown.messages, Judgement, sample=number, role="options")
    known = facts_alone(conversation, opening_of(conversation, "turn"), [fact.fact for fact in facts])
    yield Request(judging(known, draft, seed="", task="choose").messages, Chosen, role="choose")
    for number in range(revisions):
        faults = [Fault(option=0, kind="", words="It may be wrong.")]
        yield Request(revising(conversation, draft, faults), Revised, sample=number, role="revise")
