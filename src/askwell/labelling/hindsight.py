"""Hindsight: conversations to turns with targets, read from each turn's observed future.

Learn-to-Ask, section 4.2.3: at every decision point the log's own future says what the expert still went on to
find out (I*) and whether it stopped asking (s*). Reads the conversations of `askwell ingest`, writes Turn records.

A decision point stands after each block of user messages; the messages of one role in a row are one block. The
context is the whole history up to it. Truth comes from

* `acts`: annotated dialogue acts, exact. A phase of information gathering runs from a user's intent to the next.
  A turn in it continues while a REQUEST is still to come in the phase; its facts are the slots that the expert goes
  on to REQUEST and the user then INFORMs before the phase ends. The first turn with nothing left to request is the
  phase's one stop turn; what follows until the next intent (offers, confirmations) is no decision to ask.
* `ending`: for logs without annotations, the decision alone: the last decision point is the stop. Facts are
  unknown, so questions cannot be scored against such targets; the stop decision can, and SFT needs no more.

A continue turn whose facts come out empty has nothing to be scored against: dropped and counted, as in the paper.

`compat: as_released` gives the published splitter's turns, for comparison alone: contexts hold the current round
only, and a log that ends on the expert's words yields a second stop turn whose whole context is those words.
"""

import itertools
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from askwell import jsonl, runs
from askwell.errors import DataError
from askwell.recipes import LabelRecipe
from askwell.records import Act, Conversation, Message, Target, Turn

log = logging.getLogger(__name__)
MADE_BY = "askwell ingest"
INTENTS = {"INFORM_INTENT", "AFFIRM_INTENT"}
TELLS = {"INFORM", "OFFER", "CONFIRM"}


class Point(NamedTuple):
    """A decision point: `round` is where the current round begins, `at` where the expert's block begins, `end` where
    that block ends; indices into the messages."""

    round: int
    at: int
    end: int


class Phase(NamedTuple):
    """A phase of information gathering over messages[start:end], in one service."""

    start: int
    end: int
    service: str


def inputs(recipe: LabelRecipe) -> list[Path]:
    """The run that is read; refused here, before anything is created, where it is not one."""
    runs.require(recipe.input, made_by=MADE_BY)
    return [recipe.input]


def plan(recipe: LabelRecipe) -> dict[str, object]:
    """How many conversations will be labelled."""
    inputs(recipe)
    return {"conversations": runs.counts_of(recipe.input)["conversations"], "truth": recipe.truth}


def run(recipe: LabelRecipe, run: runs.Run) -> dict[str, object]:
    """Label every conversation; returns counts of turns kept, dropped and passed over, by reason."""
    counts: Counter[str] = Counter()
    conversations = itertools.islice(runs.records_of(recipe.input, Conversation, made_by=MADE_BY), recipe.limit)
    written = jsonl.write(run.records, _labelled(conversations, recipe, counts))
    if not written:
        raise DataError(f"{recipe.input}: no turn could be labelled with truth {recipe.truth!r}: {dict(counts)}")
    return {"turns": written, **dict(sorted(counts.items()))}


def _labelled(conversations: Iterator[Conversation], recipe: LabelRecipe, counts: Counter[str]) -> Iterator[Turn]:
    for conversation in conversations:
        counts["conversations"] += 1
        found = turns(conversation, truth=recipe.truth, compat=recipe.compat)
        if found is None:
            raise DataError(
                f"{recipe.input}: conversation {conversation.id!r} carries no acts, which `truth: acts` reads; "
                "use `--truth ending` for the stop decision alone"
            )
        for turn in found:
            assert turn.target is not None
            if turn.target.decision == "continue" and turn.target.facts == ():
                counts["dropped: continue turn without facts"] += 1
                continue
            counts[f"turns: {turn.target.decision}"] += 1
            counts[f"split: {turn.split}"] += 1
            yield turn


def turns(conversation: Conversation, *, truth: str = "acts", compat: str | None = None) -> list[Turn] | None:
    """All turns of a conversation with their targets; None where `truth` is acts and no message carries any."""
    messages = conversation.messages
    points = decision_points(messages)
    plain = tuple(Message(role=message.role, content=message.content) for message in messages)
    if truth == "acts":
        if not any(message.acts for message in messages):
            return None
        founds = _by_acts(messages, points)
    else:
        founds = _by_ending(messages, points, textual=compat is not None)
    made = [_turn(conversation, plain, found) for found in founds]
    if compat:
        rounds = {point.at: point.round for point in points}
        made = [turn.model_copy(update={"context": turn.context[rounds[len(turn.context)] :]}) for turn in made]
        if messages[-1].role == "assistant" and points:
            made.append(_bogus_stop(conversation, plain, points))
    return made


def decision_points(messages: Sequence[Message]) -> list[Point]:
    """Where the expert decides: after each block of user messages, to the end of the expert's block that follows.

    A log's opening words by the expert belong to the first context. Where the user has the last word, the last
    point's block is empty.
    """
    points = []
    start = 0
    for i, message in enumerate(messages):
        follows = messages[i + 1].role if i + 1 < len(messages) else None
        if message.role == "user" and follows != "user":
            end = i + 1
            while end < len(messages) and messages[end].role != "user":
                end += 1
            points.append(Point(start, i + 1, end))
            start = i + 1
    return points


def phases(messages: Sequence[Message]) -> list[Phase]:
    """Phases of information gathering: from each user message that states or accepts an intent to the next.

    Where no intent is annotated the whole conversation is one phase, in the service of its first act.
    """
    starts = [
        (i, next(act.service for act in message.acts if act.act in INTENTS))
        for i, message in enumerate(messages)
        if message.role == "user" and any(act.act in INTENTS for act in message.acts)
    ]
    if not starts:
        starts = [(0, next((act.service for message in messages for act in message.acts), ""))]
    ends = [*(start for start, _ in starts[1:]), len(messages)]
    return [Phase(start, end, service) for (start, service), end in zip(starts, ends, strict=True)]


class Found(NamedTuple):
    """What truth says of a decision point."""

    number: int
    point: Point
    target: Target
    service: str | None = None
    known: tuple[str, ...] = ()


def _by_acts(messages: Sequence[Message], points: Sequence[Point]) -> Iterator[Found]:
    for phase in phases(messages):
        for index, point in enumerate(points):
            if not phase.start < point.at <= phase.end:
                continue
            ahead = range(point.at, phase.end)
            decision = "continue" if any(_requests(messages[i], phase.service) for i in ahead) else "stop"
            target = Target(decision=decision, facts=tuple(sorted(_facts(messages, ahead, phase.service))))
            known = tuple(sorted(_told(messages[: point.at], phase.service)))
            yield Found(index, point, target, phase.service, known)
            if decision == "stop":
                break


def _by_ending(messages: Sequence[Message], points: Sequence[Point], *, textual: bool) -> Iterator[Found]:
    """`textual` looks for "user: " in the joined remainder, as released: a message that contains it flips the truth."""
    for index, point in enumerate(points):
        remaining = messages[point.at :]
        if textual:
            goes_on = "user: " in "\n".join(f"{message.role}: {message.content}" for message in remaining)
        else:
            goes_on = any(message.role == "user" for message in remaining)
        yield Found(index, point, Target(decision="continue" if goes_on else "stop"))


def _turn(conversation: Conversation, plain: tuple[Message, ...], found: Found) -> Turn:
    """The turn at a decision point; `plain` are the messages without their acts, which are truth and not input."""
    point = found.point
    return Turn(
        id=f"{conversation.id}#{found.number}",
        conversation_id=conversation.id,
        group=conversation.group,
        split=conversation.split,
        index=found.number,
        context=plain[: point.at],
        expert_reply="\n".join(
            message.content for message in plain[point.at : point.end] if message.role == "assistant"
        ),
        future=plain[point.end :],
        target=found.target,
        service=found.service,
        known=found.known,
        redacted=conversation.redacted,
    )


def _bogus_stop(conversation: Conversation, plain: tuple[Message, ...], points: Sequence[Point]) -> Turn:
    """The published splitter's second stop: the trailing expert block is a round of its own."""
    last = points[-1]
    point = Point(last.at, last.end, last.end)
    turn = _turn(conversation, plain, Found(len(points), point, Target(decision="stop", facts=())))
    return turn.model_copy(update={"context": turn.context[last.at :]})


def _requests(message: Message, service: str) -> set[str]:
    """Slots of the service that an expert's message asks for."""
    return _slots(message.acts, {"REQUEST"}, service) if message.role == "assistant" else set()


def _facts(messages: Sequence[Message], ahead: range, service: str) -> set[str]:
    """I*: slots requested in messages[ahead] and told by the user at a later place in it."""
    asked: set[str] = set()
    facts: set[str] = set()
    for i in ahead:
        if messages[i].role == "user":
            facts |= asked & _slots(messages[i].acts, {"INFORM"}, service)
        else:
            asked |= _requests(messages[i], service)
    return facts


def _told(messages: Sequence[Message], service: str) -> set[str]:
    """Slots whose values the messages already hold, whoever said them."""
    return {slot for message in messages for slot in _slots(message.acts, TELLS, service)}


def _slots(acts: Sequence[Act], kinds: set[str], service: str) -> set[str]:
    return {act.slot for act in acts if act.act in kinds and act.service == service and act.slot}
