"""Experts: an asker, an abstention rule and a decision maker, each with a model of its own, or none.

The asker sees a chat: what the patient said unasked, its questions, the answers. Rule and decision maker read the same
interview as a record, with what is to be found out and the options. Their verdicts come as structured output, and what
cannot be read is no verdict: it is never replaced by a random one, as in the published code, nor by a wrong one.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from random import Random
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, Field, create_model

from askwell.grading.replies import parse
from askwell.interview.patients import talk
from askwell.interview.talk import Asked, Choice, Meter, Said, Verdict, readable
from askwell.llm import prompts, structured
from askwell.llm.chat import Request
from askwell.llm.client import Client
from askwell.recipes import Abstention
from askwell.records import Case

DECIDE = "decide"
REASON = '- "reason": in one or two sentences, what speaks for it and what against;\n'
SHOWN_REASON = '"reason": "...", '
LIKERT = {"very confident": 5, "confident": 4, "neither": 3, "unconfident": 2, "very unconfident": 1}
"""MediQ's scale, from 5 down to 1; at 4 it answers."""
Messages = tuple[Mapping[str, str], ...]


class Binary(BaseModel):
    """Sure enough?"""

    enough: bool


class Numerical(BaseModel):
    """How sure, and is it enough?"""

    confidence: float = Field(ge=0, le=1)
    enough: bool


class Cutoff(BaseModel):
    """How sure?"""

    confidence: float = Field(ge=0, le=1)


class Scale(BaseModel):
    """How sure, in words."""

    confidence: Literal["very confident", "confident", "neither", "unconfident", "very unconfident"]


class Implicit(BaseModel):
    """Answer, or ask."""

    action: Literal["answer", "ask"]
    question: str


class WithReason(BaseModel):
    """Any of them with the reason before it."""

    reason: str


KINDS: dict[str, type[BaseModel]] = {
    "binary": Binary,
    "numerical": Numerical,
    "cutoff": Cutoff,
    "scale": Scale,
    "implicit": Implicit,
}


@lru_cache(maxsize=32)
def reasoned(kind: type[BaseModel]) -> type[BaseModel]:
    """The same answer, the reason first."""
    return create_model(f"Reasoned{kind.__name__}", __base__=(kind, WithReason))


@lru_cache(maxsize=4096)
def opinion(options: tuple[str, ...], rationale: bool) -> type[BaseModel]:
    """What a decision maker answers: an option of this menu and how sure it is."""
    fields: dict[str, Any] = {"reason": (str, ...)} if rationale else {}
    fields |= {"choice": (Literal[options], ...), "confidence": (float, Field(ge=0, le=1))}
    return create_model("Opinion", **fields)


def view(case: Case, said: Sequence[Said], *, rationale: bool) -> dict[str, str]:
    """An interview as rule and decision maker read it: the fields of their prompts."""
    lines = [{"speaker": "person", "says": case.initial_information}]
    for entry in said:
        lines += [{"speaker": "expert", "says": entry.question}, {"speaker": "person", "says": entry.answer}]
    return {
        "reason": REASON if rationale else "",
        "shown_reason": SHOWN_REASON if rationale else "",
        "inquiry": prompts.fenced(case.inquiry),
        "options": prompts.fenced("\n".join(f"{name}: {text}" for name, text in case.options.items())),
        # What grows comes last: a server reads what came before it once.
        "conversation": prompts.fenced("\n".join(json.dumps(line, ensure_ascii=False) for line in lines)),
    }


class Own:
    """No rule but the asker's own marker, or none at all: asks until the end."""

    async def verdict(self, case: Case, said: Sequence[Said], meter: Meter) -> Verdict:
        return Verdict()


class Rule:
    """An abstention rule that a model answers, once or several times at each point."""

    def __init__(self, abstention: Abstention, client: Client) -> None:
        self.abstention, self.client = abstention, client
        self.role = f"abstain_{abstention.rule}"
        self.prompt = prompts.load(self.role)
        kind = KINDS[abstention.rule]
        self.kind = reasoned(kind) if abstention.rationale else kind

    async def verdict(self, case: Case, said: Sequence[Said], meter: Meter) -> Verdict:
        """Ends where it is sure enough. A verdict that nobody can read ends nothing, and is counted."""
        messages = self.prompt.fill(**view(case, said, rationale=self.abstention.rationale))
        client = meter.reading(self.client)
        drawn = await asyncio.gather(
            *(
                readable(structured.ask(client, messages, self.kind, role=self.role, sample=sample))
                for sample in range(self.abstention.samples)
            )
        )
        read = [answer for answer in drawn if answer is not None]
        found = ruling(self.abstention, read, Random(f"questions {case.id} {len(said)}")) if read else Verdict()
        return found._replace(unread=len(drawn) - len(read))


def ruling(abstention: Abstention, answers: Sequence[Any], draw: Random) -> Verdict:
    """What verdicts come to: the majority's, a tie asks on; of figures the mean."""
    rule, at = abstention.rule, abstention.at
    if rule == "cutoff" or rule == "scale":
        degrees = [LIKERT[answer.confidence] if rule == "scale" else answer.confidence for answer in answers]
        sure = sum(degrees) / len(degrees)
        assert at is not None
        return Verdict(stop=sure >= at, sure=sure)
    if rule == "implicit":
        questions = [
            answer.question.strip() for answer in answers if answer.action == "ask" and answer.question.strip()
        ]
        share = sum(answer.action == "answer" for answer in answers) / len(answers)
        stop = share > 0.5
        return Verdict(stop=stop, sure=share, question=draw.choice(questions) if questions and not stop else None)
    share = sum(answer.enough for answer in answers) / len(answers)
    sure = sum(answer.confidence for answer in answers) / len(answers) if rule == "numerical" else share
    return Verdict(stop=share > 0.5, sure=sure)


class ModelAsker:
    """A model that sees the interview as a chat and says the next question, or its stop marker."""

    def __init__(
        self, client: Client, *, prompt: str, stop_marker: str, sees: Literal["conversation", "inquiry", "options"]
    ) -> None:
        self.client, self.prompt, self.stop_marker, self.sees = client, prompt, stop_marker, sees

    async def ask(self, case: Case, said: Sequence[Said], meter: Meter) -> Asked:
        answer = await meter.reading(self.client).complete(Request(self.messages(case, said), None, 0, "ask"))
        if answer.kind not in ("ok", "length"):
            return Asked(None)  # it said nothing that could be asked
        parsed = parse(answer.text, self.stop_marker)
        return Asked(None, stop=True) if parsed.decision == "stop" else Asked(parsed.text)

    def messages(self, case: Case, said: Sequence[Said]) -> Messages:
        """Its view: the patient's words are the user's, its own questions the assistant's."""
        first = [case.initial_information]
        first += [case.inquiry] if self.sees != "conversation" else []
        first += [f"{name}: {text}" for name, text in case.options.items()] if self.sees == "options" else []
        chat = [{"role": "system", "content": self.prompt}] if self.prompt else []
        chat.append({"role": "user", "content": "\n".join(filter(None, first))})
        for entry in said:
            chat += [{"role": "assistant", "content": entry.question}, {"role": "user", "content": entry.answer}]
        return tuple(chat)


class NoAsker:
    """Nobody: the rule's model asks in the same breath, and where it does not, nothing is asked."""

    async def ask(self, case: Case, said: Sequence[Said], meter: Meter) -> Asked:
        return Asked(None)


class ModelDecisionMaker:
    """A model that chooses an option and says how sure it is."""

    def __init__(self, client: Client, *, rationale: bool) -> None:
        self.client, self.rationale = client, rationale
        self.prompt = prompts.load(DECIDE)

    async def choose(self, case: Case, said: Sequence[Said], meter: Meter) -> Choice:
        kind: Any = opinion(tuple(case.options), self.rationale)
        messages = self.prompt.fill(**view(case, said, rationale=self.rationale))
        found = await readable(structured.ask(meter.reading(self.client), messages, kind, role=DECIDE))
        return Choice(None, None) if found is None else Choice(found.choice, found.confidence)


class ExactDecision:
    """Exact reasoning over the facts that came to light, which the clinic's cases allow."""

    def __init__(self, choose: Callable[[Case, Sequence[str]], tuple[str, float]]) -> None:
        self._choose = choose

    async def choose(self, case: Case, said: Sequence[Said], meter: Meter) -> Choice:
        return Choice(*self._choose(case, [fact for entry in said for fact in entry.revealed]))


class ThreeParts(NamedTuple):
    """An expert made of an asker, a rule and a decision maker."""

    asker: Any
    rule: Any
    maker: Any

    async def verdict(self, case: Case, said: Sequence[Said], meter: Meter) -> Verdict:
        return await self.rule.verdict(case, said, meter)

    async def ask(self, case: Case, said: Sequence[Said], meter: Meter) -> Asked:
        return await self.asker.ask(case, said, meter)

    async def choose(self, case: Case, said: Sequence[Said], meter: Meter) -> Choice:
        return await self.maker.choose(case, said, meter)


class RandomExpert:
    """Stops at every point with probability one half, asks whatever anyone might, and chooses at random (MediQ's)."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def _draw(self, what: str, case: Case, said: Sequence[Said]) -> Random:
        return Random(f"random expert {what} {self.seed} {case.id} {len(said)}")

    async def verdict(self, case: Case, said: Sequence[Said], meter: Meter) -> Verdict:
        return Verdict(stop=self._draw("stop", case, said).random() < 0.5)

    async def ask(self, case: Case, said: Sequence[Said], meter: Meter) -> Asked:
        return Asked(self._draw("ask", case, said).choice(talk()["questions"]))

    async def choose(self, case: Case, said: Sequence[Said], meter: Meter) -> Choice:
        return Choice(self._draw("choose", case, said).choice(list(case.options)), None)


def everything(case: Case) -> list[Said]:
    """An interview in which all that is known was said."""
    return [Said("What else is there to know?", case.record or " ".join(case.facts), case.facts)]
