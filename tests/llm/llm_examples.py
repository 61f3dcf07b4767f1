"""What the tests of the endpoint layer share: a question to ask, an endpoint in process, a client over it."""

import asyncio
import json
from contextlib import asynccontextmanager
from typing import Literal

from pydantic import BaseModel

from askwell.llm import stage, structured
from askwell.llm.client import Client
from askwell.llm.store import Store
from askwell.llm.transport import InProcess
from askwell.recipes import Endpoint


class Verdict(BaseModel):
    """A judge's answer."""

    reason: str
    verdict: Literal["yes", "no"]


def verdict_of(body):
    """What the endpoint says: it depends on the question alone."""
    text = body["messages"][-1]["content"]
    return json.dumps({"reason": f"because {text}", "verdict": "yes" if len(text) % 2 else "no"})


def endpoint_of(**fields):
    return Endpoint.model_validate({"model": "mock", "max_tokens": 100, "concurrency": 32, **fields})


def question(number):
    return ({"role": "system", "content": "Judge."}, {"role": "user", "content": f"Is {number} good?"})


@asynccontextmanager
async def client_of(path, mock, *, run="run", **fields):
    """A client of a mock endpoint in process, on short time limits, with its store."""
    store = Store(path)
    try:
        async with Client(
            endpoint_of(**fields), store, run=run, transport=InProcess(mock.send), floor=0.2, pause=0.002
        ) as client:
            yield client
    finally:
        store.close()


def judge_all(directory, mock, numbers, *, fields=None, work=None, **more):
    """A whole stage over `numbers`; returns (states or the error, client, values by ordinal)."""
    found = {}

    async def go():
        store = Store(directory / "answers.sqlite")
        client = Client(
            endpoint_of(**(fields or {})), store, run="run", transport=InProcess(mock.send), floor=0.2, pause=0.002
        )
        spool = stage.Spool(directory / "spool.jsonl")

        async def ask(number):
            return (await structured.ask(client, question(number), Verdict, role="judge")).model_dump()

        try:
            states = await stage.each(numbers, work or ask, client, spool, **more)
        except Exception as error:
            states = error
        found["values"] = {outcome.ordinal: outcome.value for outcome in spool.in_order() if outcome.state == "ok"}
        spool.close()
        store.close()
        return states, client

    states, client = asyncio.run(go())
    return states, client, found["values"]
