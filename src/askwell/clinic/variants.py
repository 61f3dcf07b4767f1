"""The clinic as a rewriter of questions, as their judge, and as one who proposes attributes.

It gets the prompts that a large model gets (`texts/prompts/synthesize.md`, `propose.md`). It reads a question
(`clinic.quality`), changes one thing and says it again in the clinic's words: another level of the same question, or
where the wording is at fault already a remark beside it; one thing more or less; the finding that tells most or hardly
anything. What is good already it words anew, so that an enhanced question may be as good as the original. A question
that it cannot read it leaves as it is. Where a question was worded as only test posts are, so is what is made of it.

With an error rate a rewriter goes the other way (and where it knows the outcome, may give it away), the judge gives any
verdict.
"""

import itertools
import re
from collections.abc import Sequence
from random import Random

import numpy as np

from askwell import attributes
from askwell.clinic import language
from askwell.clinic.knowledge import LEVELS
from askwell.clinic.language import squeezed
from askwell.clinic.quality import SPOILT, Part, Quality, Reading, messages_in
from askwell.clinic.reasoning import Floats
from askwell.records import Message

OBVIOUS = 0.8
"""Of the best question's information gain: what gains less only somebody who knows the outcome would ask for."""
EQUAL = 0.02
"""Scores closer than this are equal to the judge."""
ATTRIBUTE = re.compile(r"^Attribute: (\w+)", re.MULTILINE)
COUNT = re.compile(r"\bat most (\d+) attributes\b")


class Writer:
    """Rewrites and ranks questions."""

    def __init__(self, quality: Quality) -> None:
        self.quality, self.world, self.oracle = quality, quality.world, quality.oracle
        said = language.talk()
        lists = [getattr(finding.questions, level) for finding in self.world.findings for level in LEVELS]
        lists += [said["irrelevant"], *(said[f"spoils_{name}"] for name in SPOILT)]
        self._unseen = {squeezed(texts[-1]) for texts in lists}

    def rewrite(self, parts: list[str], task: str, draw: Random, *, wrong: bool) -> object:
        """The question by itself; a mistake asks for something else."""
        del task
        reading = self.quality.read(parts[1])
        if reading is None:
            return {"question": parts[1]}
        if wrong:
            other = draw.choice(self.world.finding_ids)
            return {"question": self.said(Reading((self.ask(other, "good", reading, draw),), frozenset()), draw)}
        return {"question": self.said(reading, draw)}

    def enhance(self, parts: list[str], task: str, draw: Random, *, wrong: bool) -> object:
        """A better question; a mistake makes a worse one, or gives away the outcome that it was shown."""
        conversation, question, *told = parts
        if wrong and told and draw.random() < 0.5:
            return {"question": f"{question} I think of {told[0].splitlines()[0]}."}
        return {"question": self.varied(conversation, question, task, draw, better=not wrong, told=told)}

    def corrupt(self, parts: list[str], task: str, draw: Random, *, wrong: bool) -> object:
        """A worse question; a mistake makes a better one."""
        return {"question": self.varied(parts[0], parts[1], task, draw, better=wrong)}

    def varied(
        self, conversation: str, question: str, task: str, draw: Random, *, better: bool, told: Sequence[str] = ()
    ) -> str:
        """The question with one attribute changed."""
        reading, found = self.quality.read(question), ATTRIBUTE.search(task)
        if reading is None or found is None:
            return question
        name, context = found[1], messages_in(conversation)
        if name == "overall" and not better:
            name = draw.choice((*SPOILT, "focus", "relevance"))
        if name in SPOILT:
            changed = self.reworded(reading, name, draw, better=better)
        elif name == "focus":
            changed = self.focused(reading, context, draw) if better else self.unfocused(reading, context, draw)
        elif name == "relevance":
            changed = self.aimed(reading, context, draw, told) if better else self.astray(reading, context, draw)
        elif name == "overall":
            changed = self.aimed(Reading(reading.parts[:1], frozenset()), context, draw, told)
            changed = Reading(tuple(self.worded(part, "good", reading, draw) for part in changed.parts), frozenset())
        else:
            changed = reading
        if changed == reading:
            changed = reading._replace(
                parts=tuple(self.worded(part, part.fault or "good", reading, draw) for part in reading.parts)
            )
        return self.said(changed, draw)

    def reworded(self, reading: Reading, name: str, draw: Random, *, better: bool) -> Reading:
        """At another level in an attribute of wording."""
        fault = SPOILT[name]
        if better:
            parts = (
                self.worded(part, "good", reading, draw) if part.fault == fault else part for part in reading.parts
            )
            return Reading(tuple(parts), reading.spoilt - {name})
        if any(part.fault == fault for part in reading.parts):
            return reading
        if all(part.finding and part.fault is None for part in reading.parts):
            return reading._replace(parts=tuple(self.worded(part, fault, reading, draw) for part in reading.parts))
        return reading._replace(spoilt=reading.spoilt | {name})

    def focused(self, reading: Reading, context: Sequence[Message], draw: Random) -> Reading:
        """One thing alone, that which tells most."""
        if len(reading.parts) == 1:
            return reading
        gains = self.gains(context)
        told = [0.0 if gains is None or not it.finding else gains[self.world.place[it.finding]] for it in reading.parts]
        return reading._replace(parts=(reading.parts[int(np.argmax(told))],))

    def unfocused(self, reading: Reading, context: Sequence[Message], draw: Random) -> Reading:
        """With something else in the same breath: of the same body system what tells least."""
        first = reading.parts[0]
        if first.finding is None:
            texts = [text for text in self.texts(language.talk()["irrelevant"], reading) if text != first.text]
            return reading._replace(parts=(*reading.parts, Part(draw.choice(texts), None, None))) if texts else reading
        known = self.quality.known(context)
        asked = {*(part.finding for part in reading.parts), *(known[0].answers if known else ())}
        system = self.world.system_of[first.finding]
        others = [name for name in self.world.finding_ids if self.world.system_of[name] == system and name not in asked]
        if not others:
            return reading
        other = self.least(others, context, draw)
        return reading._replace(parts=(*reading.parts, self.ask(other, first.fault or "good", reading, draw)))

    def aimed(self, reading: Reading, context: Sequence[Message], draw: Random, told: Sequence[str]) -> Reading:
        """At what tells most: about the conditions as they stand, or about the one that it turned out to be."""
        gains = self.hindsight(context, told)
        if gains is None:
            return reading
        best = self.world.finding_ids[int(gains.argmax())]
        first, *rest = reading.parts
        if first.finding == best:
            return reading
        kept = (part for part in rest if part.finding != best)
        return reading._replace(parts=(self.ask(best, first.fault or "good", reading, draw), *kept))

    def astray(self, reading: Reading, context: Sequence[Message], draw: Random) -> Reading:
        """At what tells next to nothing, or has nothing to do with it."""
        first = reading.parts[0]
        if first.finding is None:
            return reading
        if first.fault is None and draw.random() < 0.5:
            return reading._replace(parts=(Part(self.pick(language.talk()["irrelevant"], reading, draw), None, None),))
        gains, place = self.gains(context), self.world.place
        others = [name for name in self.world.finding_ids if name not in {part.finding for part in reading.parts}]
        if gains is not None:  # what tells nothing as it is stays where it is
            others = [name for name in others if gains[place[name]] <= gains[place[first.finding]]]
        if not others:
            return reading
        other = self.ask(self.least(others, context, draw), first.fault or "good", reading, draw)
        return reading._replace(parts=(other,))

    def gains(self, context: Sequence[Message]) -> Floats | None:
        """The information gain of every finding, (F,), in nats."""
        known = self.quality.known(context)
        return None if known is None else known[1]

    def hindsight(self, context: Sequence[Message], told: Sequence[str]) -> Floats | None:
        """The same; or with the outcome told, the expected rise of its log probability, of what is worth asking
        anyway."""
        known = self.quality.known(context)
        named = next((i for i, it in enumerate(self.world.conditions) if told and it.name in told[0]), None)
        if known is None or named is None:
            return None if known is None else known[1]
        belief = known[0]
        chances = belief.tables.chances  # (2, C, F)
        means = np.einsum("c,acf->af", belief.posterior, chances)
        rise = (chances[:, named] * np.log(chances[:, named] / means)).sum(axis=0)
        return np.where(known[1] >= OBVIOUS * known[1].max(), rise, -np.inf)

    def least(self, names: Sequence[str], context: Sequence[Message], draw: Random) -> str:
        """One of the findings that tell least."""
        gains = self.gains(context)
        if gains is None:
            return draw.choice(names)
        return draw.choice(sorted(names, key=lambda name: gains[self.world.place[name]])[:4])

    def ask(self, finding: str, level: str, like: Reading, draw: Random) -> Part:
        """A question for a finding at a level."""
        texts = getattr(self.world.findings[self.world.place[finding]].questions, level)
        return Part(self.pick(texts, like, draw), finding, None if level == "good" else level)  # type: ignore[arg-type]

    def worded(self, part: Part, level: str, like: Reading, draw: Random) -> Part:
        """A part worded anew, at a level; what asks for nothing stays."""
        if part.finding is None:
            return part
        texts = getattr(self.world.findings[self.world.place[part.finding]].questions, level)
        others = tuple(text for text in self.texts(texts, like) if text != part.text)
        fault = None if level == "good" else level
        return Part(draw.choice(others), part.finding, fault) if others else part  # type: ignore[arg-type]

    def pick(self, texts: Sequence[str], like: Reading, draw: Random) -> str:
        """One of the wordings that the split may use."""
        return draw.choice(self.texts(texts, like))

    def texts(self, texts: Sequence[str], like: Reading) -> Sequence[str]:
        """The wordings that the split of a question may use: the last is kept for test."""
        unseen = any(squeezed(part.text) in self._unseen for part in like.parts)
        return texts[-1:] if unseen else texts[:-1]

    def said(self, reading: Reading, draw: Random) -> str:
        """A reading in words."""
        text = reading.parts[0].text
        for part in reading.parts[1:]:
            text = draw.choice(language.talk()["joins"]).format(first=text, second=language.lowered(part.text))
        spoils = (self.pick(language.talk()[f"spoils_{name}"], reading, draw) for name in sorted(reading.spoilt))
        return " ".join([text, *spoils])

    def rank(self, parts: list[str], task: str, draw: Random, *, wrong: bool) -> object:
        """The questions by their exact scores; what cannot be read shares a place. A mistake is any order."""
        conversation, *questions = parts
        letters = "ABCDEFGH"[: len(questions)]
        found = ATTRIBUTE.search(task)
        if wrong:
            return {"reason": "a mistake", "verdict": " > ".join(draw.sample(letters, len(letters)))}
        context = messages_in(conversation)
        scores = [self.quality.scores(context, text).get(found[1] if found else "") for text in questions]
        if any(score is None for score in scores):
            return {"reason": "I cannot read all of them.", "verdict": " = ".join(letters)}
        values = [score for score in scores if score is not None]
        order = sorted(range(len(values)), key=lambda i: -values[i])
        ranking = letters[order[0]]
        for before, i in itertools.pairwise(order):
            ranking += f" {'=' if values[before] - values[i] < EQUAL else '>'} {letters[i]}"
        told = ", ".join(f"{letter} {value:.2f}" for letter, value in zip(letters, values, strict=True))
        return {"reason": f"{found[1] if found else ''}: {told}.", "verdict": ranking}

    def propose(self, parts: list[str], task: str, draw: Random, *, wrong: bool) -> object:
        """The attributes in which the examples differ, as they stand on file; a mistake leaves one out."""
        del draw
        seen = {name for line in parts[1].splitlines() for name in self.at_fault(line)}
        names = [name for name in attributes.ALFA if name in seen] or ["clarity"]
        found = COUNT.search(task)
        names = names[wrong : int(found[1]) if found else None] or names[:1]
        return {"attributes": [attributes.load(name).model_dump() for name in names]}

    def at_fault(self, text: str) -> set[str]:
        """The attributes in which a question is lacking."""
        if (reading := self.quality.read(text)) is None:
            return set()
        lacking = {name for name, fault in SPOILT.items() if any(part.fault == fault for part in reading.parts)}
        lacking |= {"focus"} if len(reading.parts) > 1 else set()
        return lacking | reading.spoilt | ({"relevance"} if not all(part.finding for part in reading.parts) else set())
