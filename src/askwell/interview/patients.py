"""Patients: who answers an asker's question, and what of the record the answer holds.

Random, direct, instruct and fact-select follow MediQ (Li et al., 2024; ALFA, section 5.3). A model that picks facts is
held to them: what it quotes and no fact says is left out of the answer and counted. What a model says in its own words
holds the facts whose words it has, as far as those show it.
"""

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from random import Random
from typing import Any

from pydantic import BaseModel

from askwell import recipes
from askwell.errors import RecipeError
from askwell.interview import lexical
from askwell.interview.talk import Meter, Patient, Said, readable
from askwell.llm import prompts, structured
from askwell.llm.chat import Request
from askwell.llm.client import Client, Failed
from askwell.records import Case
from askwell.texts import TEXTS, sentences_of

FILE = TEXTS / "patient.toml"
ROLES = {kind: f"patient_{kind}" for kind in ("direct", "instruct", "facts")}
REFUSES = 0.5
"""Share of questions that the random patient does not answer, as MediQ's."""
Stated = Callable[[str, Sequence[str]], tuple[str, ...]]
"""The facts that a text states."""


class Picked(BaseModel):
    """What a model picks: facts, copied word for word."""

    facts: list[str]


@lru_cache(maxsize=1)
def talk() -> dict[str, list[str]]:
    """What patients say beside the facts, by occasion."""
    return sentences_of(FILE)


def texts(patient: recipes.Patient) -> list[Any]:
    """The files that a patient's words come from."""
    role = ROLES.get(patient.kind)
    return [FILE, *([prompts.load(role).file] if role else [])]


def of(
    patient: recipes.Patient,
    *,
    seed: int,
    client: Client | None = None,
    stated: Stated = lexical.stated,
    own: Patient | None = None,
) -> Patient:
    """A patient as the recipe has it, with its habits; `own` is the clinic's, `stated` reads facts in free words."""
    kinds: dict[str, Callable[[], Patient]] = {
        "random": lambda: RandomPatient(seed),
        "lexical": lambda: LexicalPatient(patient.overlap, patient.most, seed),
        "facts": lambda: FactPatient(needed(client), patient.most, seed),
        "direct": lambda: SpeakingPatient(needed(client), ROLES["direct"], stated),
        "instruct": lambda: SpeakingPatient(needed(client), ROLES["instruct"], stated),
        "clinic": lambda: needed(own),
    }
    plain = kinds[patient.kind]()
    if patient.withholds + patient.rambles + patient.unsure:
        return WithHabits(plain, patient, seed)
    return plain


def needed(thing: Any) -> Any:
    """What a kind of patient cannot do without."""
    if thing is None:
        raise RecipeError("patient: this kind needs an endpoint, or the clinic's people")
    return thing


def drawn(seed: int, what: str, case: Case, number: int) -> Random:
    """The draw for one answer: it hangs on nothing but the seed, the case and the question's number."""
    return Random(f"{what} {seed} {case.id} {number}")


def refusal(seed: int, case: Case, number: int) -> str:
    """How a patient says that they cannot answer."""
    return drawn(seed, "refusal", case, number).choice(talk()["refusals"])


class RandomPatient:
    """Answers every other question, with a fact that has nothing to do with it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    async def answer(self, case: Case, said: Sequence[Said], question: str, meter: Meter) -> Said:
        number = len(said)
        draw = drawn(self.seed, "random patient", case, number)
        if not case.facts or draw.random() < REFUSES:
            return Said(question, refusal(self.seed, case, number))
        fact = draw.choice(case.facts)
        return Said(question, fact, (fact,))


class LexicalPatient:
    """Says the facts that share rare words with the question."""

    def __init__(self, overlap: float, most: int | None, seed: int) -> None:
        self.overlap, self.most, self.seed = overlap, most, seed

    async def answer(self, case: Case, said: Sequence[Said], question: str, meter: Meter) -> Said:
        facts = lexical.answering(question, case.facts, overlap=self.overlap, most=self.most)
        return Said(question, " ".join(facts) or refusal(self.seed, case, len(said)), facts)


class FactPatient:
    """A model picks facts; they are said word for word, and what is no fact is left out and counted."""

    def __init__(self, client: Client, most: int | None, seed: int) -> None:
        self.client, self.most, self.seed = client, most, seed
        self.prompt = prompts.load(ROLES["facts"])

    async def answer(self, case: Case, said: Sequence[Said], question: str, meter: Meter) -> Said:
        messages = self.prompt.fill(
            facts=prompts.fenced("\n".join(json.dumps(fact, ensure_ascii=False) for fact in case.facts)),
            question=prompts.fenced(question),
        )
        # What cannot be read is no answer; the patient has nothing to say, which the asker takes as any refusal.
        picked = await readable(structured.ask(meter.reading(self.client), messages, Picked, role=ROLES["facts"]))
        facts, invented = lexical.verbatim(picked.facts, case.facts) if picked else ((), 1)
        facts = facts[: self.most]
        return Said(question, " ".join(facts) or refusal(self.seed, case, len(said)), facts, invented)


class SpeakingPatient:
    """A model that has the record and answers in its own words."""

    def __init__(self, client: Client, role: str, stated: Stated) -> None:
        self.client, self.role, self.stated = client, role, stated
        self.prompt = prompts.load(role)

    async def answer(self, case: Case, said: Sequence[Said], question: str, meter: Meter) -> Said:
        record = case.record or "\n".join(case.facts)
        messages = self.prompt.fill(record=prompts.fenced(record), question=prompts.fenced(question))
        answer = await meter.reading(self.client).complete(Request(messages, None, 0, self.role))
        if answer.kind not in ("ok", "length"):
            raise Failed(answer.kind, "the patient gave no answer", text=answer.text)
        text = answer.text.strip()
        return Said(question, text, self.stated(text, case.facts))


class WithHabits:
    """A patient who at times withholds, rambles or is unsure, by stated rates."""

    def __init__(self, patient: Patient, rates: recipes.Patient, seed: int) -> None:
        self.patient, self.rates, self.seed = patient, rates, seed

    async def answer(self, case: Case, said: Sequence[Said], question: str, meter: Meter) -> Said:
        draw, rates = drawn(self.seed, "habits", case, len(said)), self.rates
        at = draw.random()
        if at < rates.withholds:
            return Said(question, refusal(self.seed, case, len(said)), manner="withheld")
        answer = await self.patient.answer(case, said, question, meter)
        if at < rates.withholds + rates.rambles:
            text = draw.choice(talk()["rambling"]).replace("{answer}", answer.answer)
            return answer._replace(answer=text, manner="rambled")
        if at < rates.withholds + rates.rambles + rates.unsure and answer.revealed:
            text = draw.choice(talk()["doubts"]).replace("{answer}", answer.answer)
            return answer._replace(answer=text, manner="unsure")
        return answer
