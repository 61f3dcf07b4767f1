"""One interview: a neutral list of exchanges, a view of it for each speaker, and the calls that it took.

The patient answers, the decision maker says after every answer what it would choose now, and the abstention rule says
whether to go on. What the decision maker would choose is for the record and holds nobody up: it is awaited at the end.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Sequence
from typing import Literal, NamedTuple, Protocol, TypeVar

from askwell.llm.chat import Answer, Request
from askwell.llm.client import Client, Failed
from askwell.records import Case, Episode, Exchange, Usage

T = TypeVar("T")
READABLE = frozenset(("unreadable", "off_menu", "length", "content_filter", "refusal", "empty"))
"""What a model said that nobody can use: it is stored and would be the same again, so the interview goes on without."""


class Said(NamedTuple):
    """A question and what the patient answered; `revealed` are the facts in it, `invented` counts what was left out."""

    question: str
    answer: str
    revealed: tuple[str, ...] = ()
    invented: int = 0
    manner: Literal["withheld", "rambled", "unsure"] | None = None


class Choice(NamedTuple):
    """What a decision maker would say; an option and how sure it is, None where it could not be read."""

    option: str | None
    confidence: float | None


class Verdict(NamedTuple):
    """What an abstention rule says: whether to stop, how sure it is in its own unit, and the question where it has one.
    `unread` counts verdicts that nobody could read."""

    stop: bool = False
    sure: float | None = None
    question: str | None = None
    unread: int = 0


class Asked(NamedTuple):
    """What an asker says next: a question, or that it stops, or nothing that could be asked."""

    question: str | None
    stop: bool = False


class Patient(Protocol):
    """Somebody who is asked. `number` counts the questions of an interview from 0."""

    async def answer(self, case: Case, said: Sequence[Said], question: str, meter: "Meter") -> Said: ...


class Expert(Protocol):
    """Who asks, knows when to stop, and decides."""

    async def verdict(self, case: Case, said: Sequence[Said], meter: "Meter") -> Verdict: ...

    async def ask(self, case: Case, said: Sequence[Said], meter: "Meter") -> Asked: ...

    async def choose(self, case: Case, said: Sequence[Said], meter: "Meter") -> Choice: ...


class Meter:
    """Counts what an interview's calls took, by the role that made them, from the answers as they were received: what
    the interview costs, whether its answers were paid for now or are stored from before."""

    def __init__(self) -> None:
        self.usage: Counter[tuple[str, str]] = Counter()

    def reading(self, client: Client) -> "Metered":
        """The client, with its answers counted here."""
        return Metered(client, self)

    def count(self, client: Client, role: str, answer: Answer) -> None:
        prompt, completion = answer.prompt_tokens or 0, answer.completion_tokens or 0
        price = client.endpoint.prices
        self.usage[role, "calls"] += 1
        self.usage[role, "prompt_tokens"] += prompt
        self.usage[role, "completion_tokens"] += completion
        # In units of 1e-12 of the currency, so that the sum hangs on no order.
        self.usage[role, "cost"] += round(1e6 * (prompt * price.prompt + completion * price.completion))

    def by_role(self) -> dict[str, Usage]:
        """For the episode."""
        roles = sorted({role for role, _ in self.usage})
        return {
            role: Usage(
                calls=self.usage[role, "calls"],
                prompt_tokens=self.usage[role, "prompt_tokens"],
                completion_tokens=self.usage[role, "completion_tokens"],
                cost=self.usage[role, "cost"] / 1e12,
            )
            for role in roles
        }


class Metered:
    """A client whose answers are counted; what `llm.structured` needs of one."""

    def __init__(self, client: Client, meter: Meter) -> None:
        self.endpoint, self.ledger = client.endpoint, client.ledger
        self._client, self._meter = client, meter

    async def complete(self, request: Request) -> Answer:
        """As the client's own."""
        answer = await self._client.complete(request)
        self._meter.count(self._client, request.role, answer)
        return answer


async def hold(case: Case, patient: Patient, expert: Expert, *, most: int) -> Episode:
    """An interview. Raises Failed where asker or patient could not be had."""
    meter, said = Meter(), []
    choices: list[asyncio.Task[Choice]] = []
    sure: list[float | None] = []
    unread: Counter[str] = Counter()
    end: Literal["stopped", "most questions", "no question"] = "most questions"
    try:
        for number in range(most + 1):
            choices.append(asyncio.ensure_future(expert.choose(case, tuple(said), meter)))
            verdict = await expert.verdict(case, said, meter)
            sure.append(verdict.sure)
            unread["verdicts"] += verdict.unread
            if verdict.stop:
                end = "stopped"
                break
            if number == most:
                break
            asked = Asked(verdict.question) if verdict.question else await expert.ask(case, said, meter)
            if asked.question is None:
                end = "stopped" if asked.stop else "no question"
                break
            said.append(await patient.answer(case, said, asked.question, meter))
        chosen = await asyncio.gather(*choices)
    finally:
        for task in choices:
            task.cancel()
        await asyncio.gather(*choices, return_exceptions=True)
    unread["choices"] = sum(choice.option is None for choice in chosen)
    exchanges = tuple(
        Exchange(
            question=entry.question,
            answer=entry.answer,
            revealed=entry.revealed,
            choice=choice.option,
            confidence=choice.confidence,
            sure=degree,
            invented=entry.invented,
            manner=entry.manner,
        )
        for entry, choice, degree in zip(said, chosen[1:], sure[1:], strict=True)
    )
    return Episode(
        case_id=case.id,
        exchanges=exchanges,
        first_choice=chosen[0].option,
        first_confidence=chosen[0].confidence,
        first_sure=sure[0],
        decision=chosen[-1].option,
        end=end,
        unread={name: count for name, count in sorted(unread.items()) if count},
        usage=meter.by_role(),
    )


async def readable(answer: Awaitable[T]) -> T | None:
    """An answer, or None where it was given and nobody can read it. Raises Failed where none was given."""
    try:
        return await answer
    except Failed as failed:
        if failed.kind not in READABLE:
            raise
        return None
