"""What a rewriter and a judge are asked about a question, and what they answer.

All calls share their first part, in which the attributes stand; those of a post then share what was said, those of a
question the question, and the task comes last, so that a server's prefix cache reads each once (`llm.prefixes`).
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel

from askwell import attributes, jsonl
from askwell.attributes import Attribute
from askwell.errors import DataError
from askwell.labelling import variants
from askwell.labelling.verification import ORIGINS, Ranking, Verdict, shown
from askwell.llm import prompts
from askwell.llm.chat import Request
from askwell.recipes import SynthesizeRecipe
from askwell.records import Message, Record, Thread

PROMPT = "synthesize"
Varied = Literal["enhanced", "corrupted"]
SPEAKERS = {"user": "person", "assistant": "helper", "system": "notice"}
VARIED: tuple[Varied, ...] = ("enhanced", "corrupted")
Messages = tuple[Mapping[str, str], ...]


class Rewritten(BaseModel):
    """What the rewriter answers."""

    question: str


class Variant(BaseModel):
    """One of a question's variants: its text, or why there is none and what was `said` in its place."""

    text: str | None = None
    failure: str | None = None
    said: str = ""


class Made(BaseModel):
    """All that came of a question: its stand-alone form, and by attribute its variants by origin, and the verdict."""

    original: str
    made: dict[str, dict[Varied, Variant]]
    verdicts: dict[str, Verdict | None]


class Person(Record):
    """One line of a file of profiles."""

    group: str
    profile: str


class Plan(NamedTuple):
    """What holds of all questions of a run."""

    recipe: SynthesizeRecipe
    attributes: tuple[Attribute, ...]
    rubric: str
    profiles: Mapping[str, str]


def planned(recipe: SynthesizeRecipe) -> Plan:
    """The files that a recipe names, read."""
    chosen = attributes.load_all(recipe.attributes)
    profiles = {} if recipe.profiles is None else profiles_of(recipe.profiles)
    return Plan(recipe, chosen, "\n\n".join(map(described, chosen)), profiles)


def profiles_of(path: Path) -> dict[str, str]:
    """Profiles by group. Raises DataError where a group has two."""
    found: dict[str, str] = {}
    for person in jsonl.read(path, Person):
        if person.group in found:
            raise DataError(f"{path}: group {person.group!r} has two profiles; write one line for each group")
        found[person.group] = person.profile
    return found


def described(attribute: Attribute) -> str:
    """An attribute as a model reads it; how to make a question better or worse in it stands in the task."""
    scale = "\n".join(f"{step}. {text}" for step, text in enumerate(attribute.scale, start=1))
    tips = "\n".join(f"- {tip}" for tip in attribute.tips)
    return f"## {attribute.name}: {attribute.title}\n\n{attribute.definition}\n\n{scale}\n\n{tips}"


def stand_in(thread: Thread, whole: Plan) -> Made:
    """What may come of a question, before anything was asked."""
    text = thread.question
    return Made(
        original=text,
        made={
            each.name: {origin: Variant(text=f"{text} ({origin})") for origin in VARIED} for each in whole.attributes
        },
        verdicts={each.name: Verdict(order=ORIGINS, places=(0, 1, 2)) for each in whole.attributes},
    )


def context_of(thread: Thread, whole: Plan) -> tuple[Message, ...]:
    """What was said before a question, a profile first where there is one."""
    profile = whole.profiles.get(thread.group)
    return thread.context if profile is None else (Message(role="system", content=profile), *thread.context)


def filled(task: str, thread: Thread, whole: Plan, **values: str) -> Messages:
    """The messages of a call. What was said stands as JSON lines, so that a line break in it forges no speaker."""
    lines = (
        json.dumps({"speaker": SPEAKERS[message.role], "says": message.content}, ensure_ascii=False)
        for message in context_of(thread, whole)
    )
    said = prompts.fenced("\n".join(lines))
    return prompts.load(PROMPT, task).fill(attributes=whole.rubric, conversation=said, **values)


def rewriting(thread: Thread, whole: Plan) -> Messages:
    """Asks for the stand-alone form."""
    return filled("rewrite", thread, whole, question=prompts.fenced(thread.question))


def varying(thread: Thread, original: str, attribute: Attribute, origin: Varied, whole: Plan) -> Messages:
    """Asks for a variant."""
    better = origin == "enhanced"
    values = {
        "question": prompts.fenced(original),
        "attribute": attribute.name,
        "instruction": attribute.more if better else attribute.less,
    }
    told = [text for text in (thread.outcome, thread.conclusion) if text]
    if better and whole.recipe.outcome and told:
        return filled("enhance_knowing", thread, whole, **values, outcome=prompts.fenced("\n".join(told)))
    return filled("enhance" if better else "corrupt", thread, whole, **values)


def ranking(
    thread: Thread, original: str, attribute: Attribute, found: Mapping[Varied, Variant], whole: Plan
) -> tuple[tuple[str, ...], Messages] | None:
    """Asks for a verdict: the order in which the sound wordings are shown, and the messages. None where there is
    nothing to compare."""
    sound = {
        origin: variant.text
        for origin, variant in found.items()
        if variant.text is not None and not fault_of(thread, original, attribute.name, origin, variant.text, whole)
    }
    if all(text == original for text in sound.values()):
        return None
    order, text = shown({"original": original, **sound}, seed=f"{whole.recipe.seed}/{thread.id}/{attribute.name}")
    return order, filled("rank", thread, whole, questions=text, attribute=attribute.name)


def fault_of(thread: Thread, original: str, attribute: str, origin: str, text: str, whole: Plan) -> str | None:
    """What is wrong with a variant. Whether it names the outcome is looked at whoever was shown it, whether it takes a
    phrase from the conclusion where the rewriter was: else it found it for itself."""
    return variants.fault_of(
        text,
        original,
        origin=origin,
        attribute=attribute,
        outcome=thread.outcome,
        conclusion=thread.conclusion if whole.recipe.outcome else None,
        known=[message.content for message in context_of(thread, whole)],
    )


def requests_of(thread: Thread, made: Made, whole: Plan) -> Iterator[Request]:
    """The calls that a question took, repairs aside."""
    yield Request(rewriting(thread, whole), Rewritten, role="rewrite")
    for attribute in whole.attributes:
        for origin in VARIED:
            yield Request(varying(thread, made.original, attribute, origin, whole), Rewritten, role="vary")
        asked = ranking(thread, made.original, attribute, made.made[attribute.name], whole)
        if asked is not None:
            yield Request(asked[1], Ranking, role="rank")
