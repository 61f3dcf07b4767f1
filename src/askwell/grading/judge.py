"""A model behind an endpoint as grader: for truths in words, which no slot grader can read.

Learn-to-Ask, section 4.2.4: it gets the facts still to be found out and a reply, and says whether the reply asks for
one of them (R_a 1, 0.5 or 0 for `direct`, `related`, `neither`) and how many things it asks for (Omega 1, 0.5 or 0 for
one, two, more or none). Decisions, stops and replies without a word are graded without it, so that no marker, filler or
phrase that a model would fall for is worth anything. A reply that could not be judged is unscored, with the class of
the failure: never 0, never a reward.
"""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel

from askwell import endpoints
from askwell.grading.replies import Parsed, parse
from askwell.grading.rewards import grade, reward
from askwell.llm import prompts, stage, structured
from askwell.llm.client import Client, Failed
from askwell.llm.store import Store
from askwell.llm.transport import Transport
from askwell.recipes import Endpoint
from askwell.records import Grade, Message, Reply, Turn

T = TypeVar("T")
PROMPT = "grade"
CONTENT = {"direct": 1.0, "related": 0.5, "neither": 0.0}
FORMAT = {"one": 1.0, "two": 0.5, "more": 0.0, "none": 0.0}
COUNT = {"none": 0, "one": 1, "two": 2, "more": 3}


class Opinion(BaseModel):
    """What the judge answers, the reason before the verdict."""

    reason: str
    questions: Literal["none", "one", "two", "more"]
    match: Literal["direct", "related", "neither"]


class Judge:
    """Grades replies through an endpoint, from code that knows no event loop: all calls of a batch at once.

    `most`: share of replies without a usable verdict above which it raises EndpointError, as soon as that is certain;
    `name`: what the recipe calls the endpoint.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        store: Path,
        *,
        run: str,
        stop_marker: str,
        most: float | None = None,
        name: str = "judge",
        transport: Transport | None = None,
    ) -> None:
        self.endpoint, self.stop_marker = endpoints.pinned(endpoint), stop_marker
        self.most = endpoint.max_unscored if most is None else most
        self.name, self.states = name, Counter[str]()
        self.prompt = prompts.load(PROMPT)
        # A model that cannot be loaded leaves neither a thread nor an open file behind.
        transport = transport or endpoints.transport_of(endpoint)
        self._store = Store(store)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="judge", daemon=True)
        self._thread.start()
        self.client = self._await(self._open(run, transport))

    async def _open(self, run: str, transport: Transport | None) -> Client:
        return await Client(self.endpoint, self._store, run=run, transport=transport).__aenter__()

    def _await(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """End the connections; what was answered is stored."""
        self._await(self.client.__aexit__())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._store.close()

    def graded(self, turns: Sequence[Turn], replies: Sequence[Reply]) -> list[Grade]:
        """A grade a reply, in their order; `turns` holds the turns that they name."""
        by_id = {turn.id: turn for turn in turns}
        return self._await(self._graded([(by_id[reply.turn_id], reply) for reply in replies]))

    async def _graded(self, pairs: Sequence[tuple[Turn, Reply]]) -> list[Grade]:
        # Somewhat more than there are slots, so that claims are written while all slots are in use.
        room = asyncio.Semaphore(self.endpoint.concurrency + 64)

        async def one(turn: Turn, reply: Reply) -> Grade:
            async with room:
                return await self.grade(turn, reply)

        tasks = [asyncio.ensure_future(one(turn, reply)) for turn, reply in pairs]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def grade(self, turn: Turn, reply: Reply) -> Grade:
        """The grade of one reply. Raises EndpointError where too many had no usable verdict."""
        bare = grade(turn, reply.text, reply.sample, asked=None, slots=frozenset(), stop_marker=self.stop_marker)
        parsed = parse(reply.text, self.stop_marker)
        target = turn.target
        if bare.content_score is not None or target is None or target.facts is None:
            return bare  # a stop, a wrong decision, or a truth that names no facts
        if not any(character.isalpha() for character in parsed.text):
            return scored(bare, parsed, Opinion(reason="no word in it", questions="none", match="neither"))
        try:
            opinion = await structured.ask(self.client, self.question(turn, parsed), Opinion, role=PROMPT)
        except Failed as failed:
            self.states[failed.kind] += 1
            stage.check_share(self.states, self.most, "replies", final=False, endpoint=self.name, spooled=False)
            reason = f"unscored: the judge: {failed.kind}"
            return bare.model_copy(update={"format_score": None, "reward": None, "reason": reason})
        self.states["ok"] += 1
        return scored(bare, parsed, opinion)

    def question(self, turn: Turn, parsed: Parsed) -> Any:
        """The messages; facts and conversation first, which all replies to a turn share."""
        assert turn.target is not None and turn.target.facts is not None
        return self.prompt.fill(
            facts=prompts.fenced("\n".join(json.dumps(fact, ensure_ascii=False) for fact in turn.target.facts)),
            conversation=prompts.fenced("\n".join(map(shown, turn.context))),
            reply=prompts.fenced(parsed.text),
        )


def shown(message: Message) -> str:
    """A message as a line of JSON, so that a line break in it forges no speaker."""
    speaker = {"user": "person", "assistant": "assistant", "system": "notice"}[message.role]
    return json.dumps({"speaker": speaker, "says": message.content}, ensure_ascii=False)


def scored(bare: Grade, parsed: Parsed, opinion: Opinion) -> Grade:
    """A question's grade by the judge's opinion."""
    content, style = CONTENT[opinion.match], FORMAT[opinion.questions]
    return bare.model_copy(
        update={
            "questions": COUNT[opinion.questions],
            "content_score": content,
            "format_score": style,
            "reward": reward(1, content, style),
            "reason": opinion.reason,
        }
    )
