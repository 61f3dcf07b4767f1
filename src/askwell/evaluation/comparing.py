"""A model behind an endpoint as judge of pairs: which of two questions is better by an attribute?

Each pair is judged in both orders, as models favour a place; the reason is asked for before the verdict, ties are
allowed, and nothing in the prompt names a system. What has no usable verdict in either order is unscored: a mean of
one order would bring back the favour. A reply that stops or says nothing is no question, hence unscored as well, and
equal texts are a tie that costs nothing. `best` lets the same judge choose among a system's own replies.
"""

import asyncio
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel

from askwell.attributes import Attribute
from askwell.evaluation.winrates import worth
from askwell.grading.judge import shown
from askwell.grading.replies import parse
from askwell.llm import prompts, structured
from askwell.llm.client import Client
from askwell.records import Comparison, Message, ReplySet, Winner

PROMPT = "compare"
Shown = Literal["first", "second", "tie"]


class Opinion(BaseModel):
    """What the judge answers, the reason before the verdict: which of the two is better, by their places."""

    reason: str
    verdict: Shown


class Pair(NamedTuple):
    """What is to be compared: the replies of two systems in a set, by an attribute."""

    replies: ReplySet
    attribute: Attribute
    first: str
    second: str

    @property
    def blank(self) -> Comparison:
        """The comparison without its outcome."""
        texts = [self.replies.replies.get(name, "") for name in (self.first, self.second)]
        return Comparison(
            reply_set_id=self.replies.id,
            group=self.replies.group,
            attribute=self.attribute.name,
            first=self.first,
            second=self.second,
            words=(len(texts[0].split()), len(texts[1].split())),
        )


def question(
    context: Sequence[Message], attribute: Attribute, first: str, second: str
) -> tuple[Mapping[str, str], ...]:
    """The messages. The conversation comes first, which all pairs and attributes of a context share."""
    return template().fill(
        conversation=prompts.fenced("\n".join(map(shown, context))),
        criterion=prompts.fenced(criterion(attribute)),
        first=prompts.fenced(first),
        second=prompts.fenced(second),
    )


@lru_cache(maxsize=1)
def template() -> prompts.Prompt:
    """The prompt, read once."""
    return prompts.load(PROMPT)


def criterion(attribute: Attribute) -> str:
    """An attribute as the judge reads it."""
    scale = (f"{place}. {text}" for place, text in enumerate(attribute.scale, start=1))
    tips = (f"- {tip}" for tip in attribute.tips)
    return "\n".join([attribute.title, "", attribute.definition, "", "From the worst to the best:", *scale, "", *tips])


def unfit(pair: Pair, stop_marker: str) -> str | None:
    """Why a pair cannot be judged, None where it can."""
    for name in (pair.first, pair.second):
        if name not in pair.replies.replies:
            return f"{name}: {pair.replies.missing.get(name, 'no reply')}"
        parsed = parse(pair.replies.replies[name], stop_marker)
        if parsed.decision == "stop":
            return f"{name}: stops"
        if not any(character.isalpha() for character in parsed.text):
            return f"{name}: says nothing"
    return None


def settled(pair: Pair, stop_marker: str) -> Comparison | None:
    """The comparison where no judge is needed: unscored, or a tie of equal texts."""
    if reason := unfit(pair, stop_marker):
        return pair.blank.model_copy(update={"unscored": reason})
    first, second = (" ".join(pair.replies.replies[name].split()) for name in (pair.first, pair.second))
    return pair.blank.model_copy(update={"score": 0.5, "reasons": ("equal texts",)}) if first == second else None


async def compared(client: Client, pair: Pair) -> dict[str, Any]:
    """Verdicts and reasons of both orders, as JSON. Raises Failed where one has no usable answer."""
    texts = pair.replies.replies[pair.first].strip(), pair.replies.replies[pair.second].strip()
    context, attribute = pair.replies.context, pair.attribute
    forth, back = await asyncio.gather(
        opinion(client, context, attribute, texts[0], texts[1]), opinion(client, context, attribute, texts[1], texts[0])
    )
    verdicts = [winner(forth.verdict, turned=False), winner(back.verdict, turned=True)]
    return {"verdicts": verdicts, "reasons": [forth.reason, back.reason]}


async def opinion(client: Client, context: Sequence[Message], attribute: Attribute, first: str, second: str) -> Opinion:
    """One order's opinion."""
    return await structured.ask(client, question(context, attribute, first, second), Opinion, role=PROMPT)


def winner(verdict: Shown, *, turned: bool) -> Winner:
    """A verdict on places as one on systems; `turned` where the second system was shown first."""
    if verdict == "tie" or not turned:
        return verdict
    return "second" if verdict == "first" else "first"


def judged(pair: Pair, state: str, value: Mapping[str, Any]) -> Comparison:
    """The comparison by what became of it at the judge."""
    if state != "ok":
        return pair.blank.model_copy(update={"unscored": f"the judge: {state}"})
    verdicts: tuple[Winner, ...] = tuple(value["verdicts"])
    score = sum(map(worth, verdicts)) / len(verdicts)
    return pair.blank.model_copy(update={"verdicts": verdicts, "reasons": tuple(value["reasons"]), "score": score})


async def best(client: Client, context: Sequence[Message], attribute: Attribute, texts: Sequence[str]) -> int:
    """The place of the best of some texts: each meets the best so far, which only a better one replaces.

    With a judge that knows its mind this finds the best in n - 1 pairs. Raises Failed.
    """
    held = 0
    for place in range(1, len(texts)):
        if texts[place] == texts[held]:
            continue
        forth, back = await asyncio.gather(
            opinion(client, context, attribute, texts[held], texts[place]),
            opinion(client, context, attribute, texts[place], texts[held]),
        )
        if worth(winner(forth.verdict, turned=False)) + worth(winner(back.verdict, turned=True)) < 1:
            held = place
    return held
