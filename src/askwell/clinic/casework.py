"""The clinic as a writer of cases and as their judge (`texts/prompts/build_case.md`, `check_case.md`).

It reads what the person says, exactly, and what came of it where it is named; else the most probable condition counts
as the truth. Options are conditions: wrong ones are drawn from those most probable after the first words, and one is
plausible where something that the person has speaks for it. With an error rate the writer makes up a fact, takes
another condition for the answer, writes an option that is right as well or that nobody would choose; the judge errs
about one sentence or one option.
"""

import json
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from askwell.clinic import language
from askwell.clinic.knowledge import Person, World
from askwell.clinic.language import Oracle, introduced, sentences, squeezed, unanswering
from askwell.clinic.reasoning import Belief

NEAREST = 8
"""Of how many conditions, most probable first, the wrong options are drawn."""
SOMEBODY = Person(40, "female")
"""For whom it reasons where nobody says who they are."""
INQUIRY = "What is behind it?"
AS_WELL = "{name}, or something much like it"
"""An option that is right beside the answer."""
Messages = Sequence[Mapping[str, Any]]


class Casework:
    """Answers each task from the record, what came of it, and what else stands in the prompt."""

    def __init__(self, world: World, oracle: Oracle) -> None:
        self.world, self.oracle = world, oracle

    def facts(self, parts: list[str], task: str, draw: Random, *, wrong: bool) -> object:
        """What the person tells, in their own sentences; a mistake is true of somebody else."""
        found = []
        for message in messages_in(parts[0]):
            if message["speaker"] == "person":
                for sentence in sentences(message["says"]):
                    if introduced(sentence) or self.oracle.statements(sentence):
                        fact = {"message": message["number"], "quote": sentence, "fact": unanswering(sentence)}
                        found.append(fact)
        if wrong and found:
            other = draw.choice(self.world.finding_ids)
            said = language.told_unasked(self.world, other, draw.random() < 0.5, draw)
            found.append({**draw.choice(found), "fact": said})
        return {"facts": found}

    def inquiry(self, parts: list[str], task: str, draw: Random, *, wrong: bool) -> object:
        """The condition; a mistake is one of the others that come to mind."""
        truth = self.truth(parts)
        named = draw.choice(self.others(parts, truth)) if wrong else truth
        return {"reason": "by what is known", "inquiry": INQUIRY, "answer": self.name(named)}

    def distractors(self, parts: list[str], task: str, draw: Random, *, wrong: bool) -> object:
        """Three other conditions; one of them a mistake."""
        answer = self.condition(parts[3])
        options = draw.sample([self.name(place) for place in self.others(parts, answer)], 3)
        if wrong:
            options[draw.randrange(3)] = self.faulty(parts, draw)
        return {"reason": "the first words speak for them, the rest against", "options": options}

    def revise(self, parts: list[str], task: str, draw: Random, *, wrong: bool) -> object:
        """Other conditions in the place of those at fault; the answer becomes what it should be."""
        truth, options = self.truth(parts), [entry["text"] for entry in messages_in(parts[3])]
        faults = {int(entry["option"]) for entry in messages_in(parts[4])}
        taken = {squeezed(text) for number, text in enumerate(options, start=1) if number not in faults}
        left = [name for place in self.others(parts, truth) if squeezed(name := self.name(place)) not in taken]
        draw.shuffle(left)
        changed = [
            {"option": number, "text": self.name(truth) if number == 1 else left.pop()} for number in sorted(faults)
        ]
        if wrong:
            draw.choice(changed)["text"] = self.faulty(parts, draw)
        return {"reason": "so that one is right", "options": changed}

    def support(self, parts: list[str], task: str, draw: Random, *, wrong: bool) -> object:
        """Whether the person says so; a mistake is about one of the sentences."""
        told = self.told(parts[0])
        found = []
        for entry in messages_in(parts[2]):
            stated = self.oracle.statements(entry["says"])
            holds = bool(stated) and all(told.get(name) == there for name, there in stated.items())
            found.append({"fact": entry["fact"], "reason": "by their words", "supported": holds})
        if wrong and found:
            mistaken = draw.choice(found)
            mistaken["supported"] = not mistaken["supported"]
        return {"verdicts": found}

    def options(self, parts: list[str], task: str, draw: Random, *, wrong: bool) -> object:
        """Which options are right, and which anybody would consider; a mistake is about one of them."""
        truth, told = self.truth(parts), self.told(parts[0])
        found = []
        for entry in messages_in(parts[3]):
            place = self.condition(entry["text"])
            verdict = "right" if place == truth else "wrong"
            plausible = place == truth or (place is not None and self.plausible(place, told))
            reason = "what came of it, or the rest of what was said, decides"
            found.append({"option": entry["option"], "reason": reason, "verdict": verdict, "plausible": plausible})
        if wrong:
            mistaken = draw.choice(found)
            mistaken["verdict"] = "wrong" if mistaken["verdict"] == "right" else "right"
        return {"verdicts": found}

    def choose(self, parts: list[str], task: str, draw: Random, *, wrong: bool) -> object:
        """The option that is most probable by what the person says; a mistake is any."""
        posterior = self.belief(parts[0], whole=True).posterior
        chances = {
            entry["option"]: -1.0 if (place := self.condition(entry["text"])) is None else float(posterior[place])
            for entry in messages_in(parts[3])
        }
        best = draw.choice(sorted(chances)) if wrong else max(chances, key=lambda letter: chances[letter])
        return {"reason": "by what the person says", "choice": best}

    def truth(self, parts: list[str]) -> int:
        """The place of the condition that came of it, or that the expert says it is; else of the most probable one."""
        for text in (
            parts[1],
            *(m["says"] for m in messages_in(parts[0]) if m["speaker"] == "expert" and "?" not in m["says"]),
        ):
            if (place := self.condition(text)) is not None:
                return place
        return int(self.belief(parts[0], whole=True).posterior.argmax())

    def others(self, parts: list[str], answer: int | None) -> list[int]:
        """The conditions most probable after the first words, less the answer, for which something speaks."""
        told = self.told(parts[0])
        order = self.belief(parts[0], whole=False).posterior.argsort()[::-1].tolist()
        fit = [place for place in order if place != answer and self.plausible(place, told)]
        unfit = [place for place in order if place != answer and place not in fit]
        return (fit + unfit)[: max(3, min(NEAREST, len(fit)))]

    def faulty(self, parts: list[str], draw: Random) -> str:
        """An option that is right as well, or that nobody would choose."""
        told, truth = self.told(parts[0]), self.truth(parts)
        unfit = [i for i in range(len(self.world.conditions)) if i != truth and not self.plausible(i, told)]
        if unfit and draw.random() < 0.5:
            return self.name(draw.choice(unfit))
        return AS_WELL.format(name=self.name(truth))

    def plausible(self, place: int, told: Mapping[str, bool]) -> bool:
        """Whether something that the person has is likelier in a condition than elsewhere."""
        known, base = self.world.conditions[place].findings, self.world.findings
        return any(there and known.get(name, 0) > base[self.world.place[name]].base for name, there in told.items())

    def belief(self, conversation: str, *, whole: bool) -> Belief:
        """What follows from all that the person says, or from their first words."""
        person, said = None, []
        for message in messages_in(conversation):
            if message["speaker"] == "person":
                said.append(message["says"])
                person = person or introduced(message["says"])
            elif said and not whole:
                break
        answers = {name: there for text in said for name, there in self.oracle.statements(text).items()}
        return Belief.of(self.world, person or SOMEBODY, answers)

    def told(self, conversation: str) -> dict[str, bool]:
        """The findings that the person states."""
        return dict(self.belief(conversation, whole=True).answers)

    def condition(self, text: str) -> int | None:
        """The place of a condition that a text names; of several the one with the longest name."""
        words = f" {squeezed(text)} "
        found = [i for i, it in enumerate(self.world.conditions) if f" {squeezed(it.name)} " in words]
        return max(found, key=lambda i: len(self.world.conditions[i].name), default=None)

    def name(self, place: int) -> str:
        """A condition in words."""
        return self.world.conditions[place].name


def messages_in(part: str) -> list[dict[str, Any]]:
    """JSON lines."""
    return [json.loads(line) for line in part.splitlines()]
