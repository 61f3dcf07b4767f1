"""Patients: who answers an asker's question, and what of the record the answer holds.

Random, direct, instruct and fact-select follow MediQ (Li et al., 2024; ALFA, section 5.3). A model that picks facts is
held to them: what it quotes and no fact says is left out of the answer and counted. What a model says in its own words
holds the facts whose words it has, as far as those show it. Facts are also picked without a language model: by the
words that they share with a question, or by a sentence encoder where torch is installed.
"""

import importlib.util
import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
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
CASES = 1024
"""Cases whose facts are kept as vectors."""
Stated = Callable[[str, Sequence[str]], tuple[str, ...]]
"""The facts that a text states."""


class Picked(BaseModel):
    """What a model picks: facts, copied word for word."""

    facts: list[str]


@lru_cache(maxsize=1)
def talk() -> dict[str, list[str]]:
    """What patients say beside the facts, by occasion."""
    return sentences_of(FILE)


class Encodes(Protocol):
    """Makes vectors of length 1 of texts, (n, d), as `askwell.embeddings`."""

    def vectors(self, texts: Sequence[str], kind: Literal["question", "passage"]) -> NDArray[np.float32]: ...


def texts(patient: recipes.Patient) -> list[Path]:
    """The files that a patient's words come from. Raises ModuleNotFoundError where an encoder's library is missing."""
    role, encoder = ROLES.get(patient.kind), patient.encoder
    if encoder is not None:
        for package in ("torch", "transformers"):
            if importlib.util.find_spec(package) is None:
                raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        if Path(encoder).is_dir() and not (Path(encoder) / "config.json").is_file():
            raise RecipeError(f"patient.encoder {encoder!r}: no encoder, for it holds no config.json")
    folder = [Path(encoder)] if encoder is not None and Path(encoder).is_dir() else []
    return [FILE, *folder, *([prompts.load(role).file] if role else [])]


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
        "embeddings": lambda: EmbeddingPatient(encoder_of(patient), patient.near, patient.most, seed),
        "facts": lambda: FactPatient(needed(client), patient.most, seed),
        "direct": lambda: SpeakingPatient(needed(client), ROLES["direct"], stated),
        "instruct": lambda: SpeakingPatient(needed(client), ROLES["instruct"], stated),
        "clinic": lambda: needed(own),
    }
    plain = kinds[patient.kind]()
    if patient.withholds + patient.rambles + patient.unsure:
        return WithHabits(plain, patient, seed)
    return plain


def encoder_of(patient: recipes.Patient) -> Encodes:
    """The recipe's encoder, loaded."""
    from askwell import embeddings

    return embeddings.load(needed(patient.encoder))


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


class EmbeddingPatient:
    """Says the facts that an encoder finds near the question."""

    def __init__(self, encoder: Encodes, near: float, most: int | None, seed: int) -> None:
        self.encoder, self.near, self.most, self.seed = encoder, near, most, seed
        self._vectors = lru_cache(maxsize=CASES)(lambda facts: encoder.vectors(facts, "passage"))

    async def answer(self, case: Case, said: Sequence[Said], question: str, meter: Meter) -> Said:
        facts = self.picked(question, case.facts) if case.facts else ()
        return Said(question, " ".join(facts) or refusal(self.seed, case, len(said)), facts)

    def picked(self, question: str, facts: tuple[str, ...]) -> tuple[str, ...]:
        """The facts whose cosine with the question is `near` or more, the nearest first to be kept, in their order."""
        near = self._vectors(facts) @ self.encoder.vectors([question], "question")[0]
        places = [int(place) for place in np.argsort(-near, kind="stable") if near[place] >= self.near][: self.most]
        return tuple(facts[place] for place in sorted(places))


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
