"""How good a question is in each of ALFA's attributes, exactly, wherever the clinic can read it.

`Quality.scores(context, text)` gives a score in [0, 1] an attribute, None where it abstains:

    clarity, answerability, accuracy, avoid_bias   1 less the share of its parts that are vague, jargon, wrong, leading;
                                                   0 where a remark beside the question spoils all of it
    focus                                          1 / number of things asked for
    relevance                                      information gain on the condition, given all that was said, as a
                                                   share of what the best single question would gain, at most 1
    overall                                        the mean of these six

A text that cannot be read has no score at all; no relevance has a question to somebody who never said who they are, or
about whom nothing is left to find out. What no question asks for (personal interest, say) it does not judge.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from askwell.clinic import language
from askwell.clinic.language import Fault, Oracle, introduced, sentences, squeezed
from askwell.clinic.reasoning import Belief, Floats, information_gain, joint_gain
from askwell.records import Message

SPOILT: dict[str, Fault] = {
    "clarity": "vague",
    "answerability": "jargon",
    "avoid_bias": "leading",
    "accuracy": "wrong",
}
"""Attributes in which a question's wording may be at fault, and what it is then."""
ATTRIBUTES = ("clarity", "focus", "answerability", "accuracy", "relevance", "avoid_bias")
JOINTS = ("And ", "Also, ", "Oh, and ")
REMEMBERED = 4096
"""Conversations whose reading is kept: all wordings of a question come with the same one."""
NOTHING = 1e-6
"""Nats below which nothing is left to find out."""


class Part(NamedTuple):
    """One question of a text: its words, what it asks for (None: for nothing that matters), and its fault."""

    text: str
    finding: str | None
    fault: Fault | None


class Reading(NamedTuple):
    """A text, read: its questions, and the attributes that remarks beside them spoil."""

    parts: tuple[Part, ...]
    spoilt: frozenset[str]


class Quality:
    """Scores questions by the oracle's reading."""

    def __init__(self, oracle: Oracle) -> None:
        self.oracle, self.world = oracle, oracle.world
        said = language.talk()
        self._remarks = {squeezed(text): name for name in SPOILT for text in said[f"spoils_{name}"]}
        self._known = lru_cache(maxsize=REMEMBERED)(self._knowledge)

    def scores(self, context: Sequence[Message], text: str) -> dict[str, float | None]:
        """The score in each attribute and overall, of a question asked after `context`."""
        reading = self.read(text)
        if reading is None:
            return dict.fromkeys((*ATTRIBUTES, "overall"))
        found: dict[str, float | None] = {}
        for name, fault in SPOILT.items():
            share = sum(part.fault == fault for part in reading.parts) / len(reading.parts)
            found[name] = 0.0 if name in reading.spoilt else 1.0 - share
        found["focus"] = 1 / len(reading.parts)
        found["relevance"] = self.relevance(context, [part.finding for part in reading.parts if part.finding])
        known = [value for value in found.values() if value is not None]
        ordered = {name: found[name] for name in ATTRIBUTES}
        return {**ordered, "overall": sum(known) / len(known) if len(known) == len(found) else None}

    def read(self, text: str) -> Reading | None:
        """A text's questions and remarks; None where a question cannot be read, or there is none."""
        parts: list[Part] = []
        spoilt: set[str] = set()
        for sentence in sentences(text):
            if (name := self._remarks.get(squeezed(sentence))) is not None:
                spoilt.add(name)
                continue
            question = self.oracle.question(sentence)
            if question is None and "?" in sentence:
                return None
            if question is not None:
                finding = question.findings[0] if question.findings else None
                parts.append(Part(alone(sentence), finding, None if finding is None else question.fault))
        return Reading(tuple(parts), frozenset(spoilt)) if parts else None

    def relevance(self, context: Sequence[Message], findings: Sequence[str]) -> float | None:
        """What findings tell, as a share of what the best question would."""
        known = self.known(context)
        if known is None or known[1].max() < NOTHING:
            return None
        belief, gains = known
        if len(asked := dict.fromkeys(findings)) > 1:
            return min(1.0, joint_gain(belief, list(asked)) / float(gains.max()))
        return float(sum(gains[self.world.place[name]] for name in asked) / gains.max())

    def known(self, context: Sequence[Message]) -> tuple[Belief, Floats] | None:
        """What follows from all that a person said, with the information gain of every finding (F,), in nats; None
        where they did not say who they are."""
        return self._known(tuple(message.content for message in context if message.role == "user"))

    def _knowledge(self, said: tuple[str, ...]) -> tuple[Belief, Floats] | None:
        person = next((found for text in said if (found := introduced(text)) is not None), None)
        if person is None:
            return None
        answers: dict[str, bool] = {}
        for text in said:
            answers |= self.oracle.statements(text)
        belief = Belief.of(self.world, person, answers)
        return belief, information_gain(belief)


def alone(sentence: str) -> str:
    """A question without the word that ties it to the one before."""
    for joint in JOINTS:
        if sentence.startswith(joint):
            rest = sentence.removeprefix(joint)
            return rest[:1].upper() + rest[1:]
    return sentence


def messages_in(lines: str) -> tuple[Message, ...]:
    """The messages of a prompt, JSON lines with who speaks (person: the one who is asked) and what they say."""
    found = map(json.loads, lines.splitlines())
    return tuple(
        Message(role="user" if line["speaker"] == "person" else "assistant", content=line["says"]) for line in found
    )
