"""People to interview in the simulated clinic: their case, what they answer, and who decides by exact reasoning."""

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

import numpy as np

from askwell.clinic import language, logs
from askwell.clinic.interviewing import answers_in, fact
from askwell.clinic.knowledge import World
from askwell.clinic.language import Oracle, introduced, introduction
from askwell.clinic.reasoning import Asker, Belief, Truth
from askwell.interview.loop import Answer
from askwell.interview.talk import Meter, Said
from askwell.records import Case, Message, Split


class Visitor(NamedTuple):
    """Somebody: the case that an asker sees, and the truth."""

    case: Case
    truth: Truth


def visitors(world: World, count: int, *, seed: int, split: Split = "test") -> list[Visitor]:
    """People with their complaints: those of `test` are worded as no log for training is."""
    found, unseen = [], split == "test"
    for number in range(count):
        draw = Random(f"visitor {seed} {number}")
        truth, complaints = logs.case(world, np.random.default_rng([seed, number, 1]), draw, test=unseen)
        told = [
            language.tell(world, name, bool(truth.present[world.place[name]]), draw, unseen=unseen)
            for name in complaints
        ]
        facts = [fact(name, bool(truth.present[world.place[name]])) for name in world.finding_ids]
        case = Case(
            id=f"visitor-{seed}-{number}",
            group=f"visitor-{seed}-{number}",
            split=split,
            initial_information=" ".join([introduction(truth.person), *told]),
            facts=tuple(facts),
            inquiry="What is behind it?",
            options={condition.id: condition.name for condition in world.conditions},
            answer=truth.condition,
        )
        found.append(Visitor(case, truth))
    return found


class ClinicPatient:
    """Answers what it understands, truthfully; half of the vague and learned questions it does not."""

    def __init__(self, world: World, oracle: Oracle, visitor: Visitor) -> None:
        self.world, self.oracle, self.visitor = world, oracle, visitor
        self._draw = Random(f"answers {visitor.case.id}")

    def answer(self, question: str) -> Answer:
        """What it says, and the facts in it."""
        read = self.oracle.question(question)
        puzzled = read is not None and read.fault in ("vague", "jargon") and self._draw.random() < 0.5
        if read is None or not read.findings or puzzled:
            return Answer(self._draw.choice(language.talk()["not_understood"]), ())
        present = {name: bool(self.visitor.truth.present[self.world.place[name]]) for name in read.findings}
        unseen = self.visitor.case.split == "test"
        told = [language.tell(self.world, name, there, self._draw, unseen=unseen) for name, there in present.items()]
        return Answer(" ".join(told), tuple(fact(name, there) for name, there in present.items()))


class ExactDecisionMaker:
    """Chooses the most probable condition given all that was said: the best that anyone could make of it."""

    def __init__(self, world: World, oracle: Oracle) -> None:
        self.world, self.oracle = world, oracle

    def choose(self, case: Case, revealed: Sequence[str]) -> tuple[str, float]:
        """The condition and its posterior probability."""
        belief = self.belief(case.initial_information, answers_in(revealed))
        return belief.best, float(belief.posterior.max())

    def belief(self, opening: str, answers: dict[str, bool]) -> Belief:
        """What opening words and answers amount to."""
        person = introduced(opening)
        assert person is not None, "visitors say who they are"
        return Belief.of(self.world, person, self.oracle.statements(opening) | answers)


class SpeakingAsker:
    """An asker of `clinic.reasoning` that speaks: it reads the conversation, and asks in the clinic's words."""

    def __init__(
        self, world: World, oracle: Oracle, asker: Asker, *, stop_marker: str = "<stop />", seed: int = 0
    ) -> None:
        self.maker, self.asker, self.stop_marker = ExactDecisionMaker(world, oracle), asker, stop_marker
        self._draw = Random(f"asker {seed}")

    def replies(self, conversations: Sequence[Sequence[Message]]) -> list[str]:
        """The next question of each, or the stop marker."""
        return [self.reply(messages) for messages in conversations]

    def reply(self, messages: Sequence[Message]) -> str:
        oracle, world = self.maker.oracle, self.maker.world
        answers: dict[str, bool] = {}
        asked: set[str] = set()
        for message in messages[1:]:
            if message.role == "user":
                answers |= oracle.statements(message.content)
            elif question := oracle.question(message.content):
                asked |= set(question.findings)
        finding = self.asker.next(self.maker.belief(messages[0].content, answers), asked)
        return self.stop_marker if finding is None else language.ask(world, finding, self._draw)


class AsyncClinicPatient:
    """The same people for interviews that are held side by side, each at its own pace. What one says depends on what
    was said, and nothing is kept of anybody between two questions."""

    def __init__(self, world: World, oracle: Oracle, people: Sequence[Visitor]) -> None:
        self.world, self.oracle = world, oracle
        self._people = {visitor.case.id: visitor for visitor in people}

    async def answer(self, case: Case, said: Sequence[Said], question: str, meter: Meter) -> Said:
        """What they say, and the facts in it."""
        patient = ClinicPatient(self.world, self.oracle, self._people[case.id])
        for earlier in said:  # their wording is drawn in order; a question that was withheld drew nothing
            if earlier.manner != "withheld":
                patient.answer(earlier.question)
        answer = patient.answer(question)
        return Said(question, answer.text, answer.revealed)


def stated(oracle: Oracle, text: str, facts: Sequence[str]) -> tuple[str, ...]:
    """The facts that a text states, read by the clinic's grammar."""
    said = [fact(name, there) for name, there in oracle.statements(text).items()]
    return tuple(text for text in said if text in facts)
