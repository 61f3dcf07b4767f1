"""`askwell label --truth llm`: hindsight for logs without annotations, read by an endpoint's model.

Learn-to-Ask, section 4.2.3, with its extractor: what did the expert go on to ask, and the person to tell, after each
decision point? A turn continues while there is such a fact; the first one with nothing left to find out is the
conversation's one stop turn, and what follows it (advice, thanks) is no decision to ask, as with exact truth. The paper
takes a log's last word for the stop, which a person's "thank you" moves behind the advice. Two ways to the facts:

* `dialogue`: one call reads a whole conversation and says of every fact where it was asked and where it was told. I* of
  a turn are the facts asked from there on, so that sets can only shrink from turn to turn.
* `turn`: a call a turn reads what followed it, as in the paper.

A fact stands only if the message that it is said to be told in is a person's, follows the expert's question, and holds
the quoted words; what does not is left out and counted by reason. A conversation without a usable answer is unscored:
it yields no turn and stands in unscored.jsonl with its reason. Writes records.jsonl (Turn), in the order of the input.
"""

import asyncio
import itertools
import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from askwell import endpoints, jsonl, runs
from askwell.errors import DataError
from askwell.labelling.hindsight import MADE_BY, decision_points, turns
from askwell.llm import estimate, prompts, stage, structured
from askwell.llm.chat import Request
from askwell.llm.client import Client, permit
from askwell.llm.store import Store, store_of
from askwell.llm.transport import Transport
from askwell.recipes import Endpoint, LabelRecipe
from askwell.records import Conversation, Message, Record, Target, Turn
from askwell.texts import domain_file

log = logging.getLogger(__name__)
SPEAKERS = {"user": "person", "assistant": "expert", "system": "notice"}


class Fact(BaseModel):
    """One fact, and where it stands: numbers of messages, from 1."""

    quote: str
    fact: str
    asked: int
    told: int


class Extraction(BaseModel):
    """What the extractor answers."""

    facts: list[Fact]


class Unscored(Record):
    """One line of unscored.jsonl: a conversation that yielded no turn, and why."""

    conversation_id: str
    reason: str
    detail: str
    text: str


def inputs(recipe: LabelRecipe) -> list[Path]:
    """The run that is read. Refuses, before anything is sent, to send elsewhere what was not redacted."""
    runs.require(recipe.input, made_by=MADE_BY)
    permit(endpoint_of(recipe), redacted=runs.redacted(recipe.input), what=recipe.input)
    return [recipe.input, *texts(recipe), *endpoints.inputs(endpoint_of(recipe))]


def texts(recipe: LabelRecipe) -> list[Path]:
    """The files that make up the prompt."""
    return [prompts.load(f"extract_{recipe.extraction}").file, domain_file(recipe.domain)]


def plan(recipe: LabelRecipe) -> dict[str, object]:
    """Calls, tokens and money that the stage will take."""
    inputs(recipe)
    chosen = conversations(recipe)
    endpoint = endpoints.pinned(endpoint_of(recipe))
    found = estimate.estimate(
        endpoint,
        store_of(endpoint, recipe.output),
        (
            Request(messages, Extraction, role=role(recipe))
            for conversation in chosen
            for messages in questions(conversation, recipe).values()
        ),
    )
    return {"conversations": count_of(recipe), **found}


def run(recipe: LabelRecipe, run: runs.Run, transport: Transport | None = None) -> dict[str, object]:
    """Label every conversation; returns counts of conversations by state and of turns."""
    endpoint = endpoint_of(recipe)
    store = Store(store_of(endpoint, recipe.output))
    spool = stage.Spool(run.path / "spool.jsonl")
    try:
        states, account = asyncio.run(extracted(recipe, store, spool, transport))
        counts: Counter[str] = Counter()
        outcomes = spool.in_order()
        unscored: list[Unscored] = []
        written = jsonl.write(run.records, labelled(conversations(recipe), outcomes, recipe, counts, unscored))
        jsonl.write(run.path / "unscored.jsonl", unscored)
    finally:
        spool.close()
        store.close()
    if not written:
        raise DataError(f"{recipe.input}: the endpoint's model found no fact in any conversation: {dict(counts)}")
    spool.path.unlink()
    return {"turns": written, "conversations": dict(states), **dict(sorted(counts.items())), **account}


async def extracted(
    recipe: LabelRecipe, store: Store, spool: stage.Spool, transport: Transport | None
) -> tuple[dict[str, int], dict[str, Any]]:
    """Every conversation through the endpoint; returns their number by state, and the account."""
    endpoint = endpoints.pinned(endpoint_of(recipe))
    transport = transport or endpoints.transport_of(endpoint)
    client = Client(endpoint, store, run=str(recipe.output.resolve()), transport=transport)

    async def work(conversation: Conversation) -> list[list[dict[str, Any]]]:
        """The facts of each call, as JSON."""
        asked = questions(conversation, recipe).values()
        answers = await asyncio.gather(
            *(structured.ask(client, messages, Extraction, role=role(recipe)) for messages in asked)
        )
        return [[fact.model_dump() for fact in answer.facts] for answer in answers]

    states = await stage.each(conversations(recipe), work, client, spool, total=count_of(recipe), noun="conversations")
    return states, client.account()


def conversations(recipe: LabelRecipe) -> Iterator[Conversation]:
    """Those that are labelled, in the order of the input."""
    return itertools.islice(runs.records_of(recipe.input, Conversation, made_by=MADE_BY), recipe.limit)


def count_of(recipe: LabelRecipe) -> int:
    """How many there are."""
    held = int(runs.counts_of(recipe.input)["conversations"])
    return held if recipe.limit is None else min(held, recipe.limit)


def role(recipe: LabelRecipe) -> str:
    """What the calls are counted as."""
    return f"extract: {recipe.extraction}"


def endpoint_of(recipe: LabelRecipe) -> Endpoint:
    """The recipe's endpoint; recipes see to it that there is one."""
    assert recipe.endpoint is not None
    return recipe.endpoint


def questions(conversation: Conversation, recipe: LabelRecipe) -> dict[int, tuple[Any, ...]]:
    """The calls of a conversation: by the decision point from which each looks ahead (index of its first message)."""
    prompt = prompts.load(f"extract_{recipe.extraction}")
    domain = domain_file(recipe.domain).read_text(encoding="utf-8").strip()
    messages = conversation.messages
    if recipe.extraction == "dialogue":
        return {0: prompt.fill(domain=domain, conversation=numbered(messages, 0, len(messages)))}
    points = [point.at for point in decision_points(messages)[:-1]]
    return {
        at: prompt.fill(domain=domain, before=numbered(messages, 0, at), after=numbered(messages, at, len(messages)))
        for at in points
    }


def numbered(messages: Sequence[Message], start: int, end: int) -> str:
    """Messages [start, end) as fenced JSON lines: a line break in a message cannot forge a speaker."""
    lines = (
        json.dumps(
            {"number": i + 1, "speaker": SPEAKERS[messages[i].role], "says": messages[i].content}, ensure_ascii=False
        )
        for i in range(start, end)
    )
    return prompts.fenced("\n".join(lines))


def labelled(
    chosen: Iterable[Conversation],
    outcomes: Iterable[stage.Outcome],
    recipe: LabelRecipe,
    counts: Counter[str],
    unscored: list[Unscored],
) -> Iterator[Turn]:
    """The turns of every conversation that has an answer."""
    for conversation, outcome in zip(chosen, outcomes, strict=True):
        if outcome.state != "ok":
            reason = outcome.value
            unscored.append(
                Unscored(
                    conversation_id=conversation.id,
                    reason=outcome.state,
                    detail=reason["detail"],
                    text=reason["text"],
                )
            )
            continue
        answers = [[Fact.model_validate(fact) for fact in facts] for facts in outcome.value]
        for turn in with_facts(conversation, answers, recipe, counts):
            assert turn.target is not None
            if turn.target.decision == "continue" and not turn.target.facts:
                counts["dropped: continue turn without facts"] += 1
                continue
            counts[f"turns: {turn.target.decision}"] += 1
            counts[f"split: {turn.split}"] += 1
            yield turn


def with_facts(
    conversation: Conversation, answers: Sequence[Sequence[Fact]], recipe: LabelRecipe, counts: Counter[str]
) -> Iterator[Turn]:
    """The turns of a conversation with the facts that its answers hold, up to the stop."""
    found = [sound(facts, conversation.messages, counts) for facts in answers]
    made = turns(conversation, truth="ending") or []
    ahead = []
    for number, turn in enumerate(made):
        # The last point has no call of its own: nobody tells anything after it.
        facts = found[0] if recipe.extraction == "dialogue" else found[number] if number < len(found) else []
        ahead.append(tuple(dict.fromkeys(fact.fact for fact in facts if fact.asked > len(turn.context))))
    stop = max((number + 1 for number, facts in enumerate(ahead) if facts), default=0)
    for number, (turn, facts) in enumerate(zip(made[: stop + 1], ahead, strict=False)):
        target = Target(decision="stop" if number == stop else "continue", facts=facts)
        yield turn.model_copy(update={"target": target})


def sound(facts: Sequence[Fact], messages: Sequence[Message], counts: Counter[str]) -> list[Fact]:
    """The facts that stand where they are said to stand; the others are counted by what is wrong with them."""
    kept = []
    for fact in facts:
        if fault := fault_of(fact, messages):
            counts[f"facts left out: {fault}"] += 1
        else:
            counts["facts"] += 1
            kept.append(fact)
    return kept


def fault_of(fact: Fact, messages: Sequence[Message]) -> str | None:
    """What is wrong with a fact, None if nothing."""
    if not fact.fact.strip():
        return "no words"
    if not (1 <= fact.asked < fact.told <= len(messages)):
        return "not told after it was asked"
    if messages[fact.asked - 1].role != "assistant":
        return "not asked by the expert"
    if messages[fact.told - 1].role != "user":
        return "not told by the person"
    if not squeezed(fact.quote) or squeezed(fact.quote) not in squeezed(messages[fact.told - 1].content):
        return "quote is not in the message"
    return None


def squeezed(text: str) -> str:
    """Letters and digits alone: what is left to compare when case, spaces and punctuation do not matter."""
    return re.sub(r"[\W_]+", " ", text).casefold().strip()
