"""A checkpoint in this process as an endpoint: what a server would answer, and nothing that hangs."""

import asyncio
import json
import threading
import time
from typing import Literal

import pytest
import torch
from pydantic import BaseModel

from askwell import local_endpoint, rendering, weights
from askwell.decoding.replies import sample
from askwell.errors import RecipeError
from askwell.generation import LocalPolicy
from askwell.llm import stage, structured
from askwell.llm.chat import Request
from askwell.llm.client import Client, Failed
from askwell.llm.store import Answers, Store
from askwell.llm.transport import Unreachable
from askwell.local_endpoint import LocalEndpoint
from askwell.recipes import LOCAL, Endpoint
from askwell.records import Message
from local_examples import babbler

TEXTS = ["I am hungry.", "x", "In a small town by the sea, where it rains.", "no", "12 of them"]
GREEDY = {"temperature": 0.0, "top_p": 1.0, "max_tokens": 8}
HOT = {**GREEDY, "temperature": 5.0}


class Verdict(BaseModel):
    """A judge's answer."""

    reason: str
    verdict: Literal["yes", "no"]


def question(number):
    return ({"role": "system", "content": "Judge."}, {"role": "user", "content": f"Is {number} good?"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("babbler")
    weights.save(babbler(), path)
    return path


@pytest.fixture
def policy(folder):
    return LocalPolicy.load(str(folder))


def body_of(text, **fields):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
    return json.dumps({"model": "m", "messages": messages, **GREEDY, **fields}).encode()


def spoken(text):
    return [Message(role="system", content="Be brief."), Message(role="user", content=text)]


def sent(policy, bodies):
    """What the endpoint answers to bodies that are sent at once, as (status, JSON)."""

    async def go():
        transport = LocalEndpoint(policy)
        try:
            return await asyncio.wait_for(asyncio.gather(*map(transport.send, bodies)), 60)
        finally:
            await transport.close()
            assert not transport._thread.is_alive()

    return [(found.status, json.loads(found.body)) for found in asyncio.run(go())]


def texts_of(answers):
    assert {status for status, _ in answers} == {200}
    return [value["choices"][0]["message"]["content"] for _, value in answers]


def watched(policy):
    """The sizes of the batches that are drawn from now on."""
    sizes, plain = [], policy.said

    def said(contexts, **how):
        sizes.append(len(contexts))
        return plain(contexts, **how)

    policy.said = said
    return sizes


def test_what_is_asked_at_once_is_drawn_together_and_answered_in_its_order(policy):
    expected = policy.replies([spoken(text) for text in TEXTS], temperature=0.0, top_p=1.0, max_new_tokens=8, seed=0)
    assert len(set(expected)) == len(TEXTS)
    sizes = watched(policy)
    answers = sent(policy, [body_of(text) for text in TEXTS])
    assert texts_of(answers) == expected and sizes == [len(TEXTS)]
    for text, (_, value) in zip(TEXTS, answers, strict=True):
        read = len(rendering.render(policy.tokenizer, spoken(text), None, prompt="")[0])
        assert value["usage"] == {"prompt_tokens": read, "completion_tokens": 8, "total_tokens": read + 8}
        assert value["choices"][0]["finish_reason"] == "length" and value["model"] == "m"


def test_a_reply_that_ends_is_told_from_one_that_is_cut(policy):
    context = rendering.render(policy.tokenizer, spoken("x"), None, prompt="")[0]
    how = {"temperature": 0, "top_p": 1, "max_new_tokens": 8, "ends": [], "pad": 0, "seed": 0}
    [[ids]] = sample(policy.model, [context], group=1, **how)
    policy.ends = [ids[3]]
    [(_, value)] = sent(policy, [body_of("x")])
    assert value["choices"][0]["finish_reason"] == "stop"
    assert value["usage"]["completion_tokens"] == ids.index(ids[3]) + 1


def test_more_requests_than_a_batch_holds_are_drawn_in_turn(policy, monkeypatch):
    monkeypatch.setattr(local_endpoint, "MOST", 4)
    sizes = watched(policy)
    bodies = [body_of(f"number {number}") for number in range(10)]
    together = texts_of(sent(policy, bodies))
    assert sizes == [4, 4, 2]
    assert together == [texts_of(sent(policy, [body]))[0] for body in bodies]


def test_requests_that_are_drawn_otherwise_are_another_batch(policy):
    sizes = watched(policy)
    bodies = [body_of("a"), body_of("b", max_tokens=3), body_of("c"), body_of("d", temperature=1.0)]
    answers = sent(policy, bodies)
    assert sorted(sizes) == [1, 1, 2]
    assert [value["usage"]["completion_tokens"] for _, value in answers] == [8, 3, 8, 8]


def test_a_sampled_reply_hangs_on_its_request_alone(policy):
    bodies = [body_of(text, **HOT, seed=seed) for text in TEXTS for seed in (0, 1)]
    together = texts_of(sent(policy, bodies))
    assert len(set(together)) == len(bodies)
    assert texts_of(sent(policy, bodies[::-1])) == together[::-1]
    assert [texts_of(sent(policy, [body]))[0] for body in bodies] == together


def stage_of(tmp_path, policy, numbers, **fields):
    """A stage of verdicts through a local endpoint: its states, outcomes and client."""

    async def go():
        store = Store(tmp_path / "answers.sqlite")
        endpoint = Endpoint(base_url=LOCAL, model="m", max_tokens=12, max_unscored=1.0, **fields)
        spool = stage.Spool(tmp_path / f"spool-{time.monotonic_ns()}")

        async def ask(number):
            return (await structured.ask(client, question(number), Verdict, role="judge")).model_dump()

        try:
            client = Client(endpoint, store, run="run", transport=LocalEndpoint(policy), pause=0.002)
            states = await asyncio.wait_for(stage.each(numbers, ask, client, spool), 100)
            return states, list(spool.in_order()), client
        finally:
            spool.close()
            store.close()

    return asyncio.run(go())


def test_schemas_are_declined_once_and_babble_is_unscored_by_class(tmp_path, policy):
    states, _, client = stage_of(tmp_path, policy, range(12))
    assert sum(states.values()) == 12 and set(states) <= {"unreadable", "length", "empty"} and not states.get("ok")
    assert client.ledger["failed: refused"] == 2  # json_schema and json_object, of one request
    answers = Answers(tmp_path / "answers.sqlite")
    assert answers.ability(client.name) == "text"
    answers.close()
    again, _, client = stage_of(tmp_path, policy, range(12, 20))
    assert sum(again.values()) == 8 and not client.ledger["failed: refused"]
    calls = client.account()["calls"]
    sizes = watched(policy)
    stored, _, client = stage_of(tmp_path, policy, range(20))
    # A failure of its kind is a stored answer, too: nothing is drawn again.
    assert sum(stored.values()) == 20 and not sizes and client.account()["calls"] == calls


def test_a_prompt_that_leaves_no_room_is_refused_and_nothing_of_it_is_cut(tmp_path, policy):
    room = len(rendering.render(policy.tokenizer, spoken("x" * 40), None, prompt="")[0]) + 8
    policy.room = room
    fits, longer = sent(policy, [body_of("x" * 40), body_of("x" * 41)])
    assert fits[0] == 200
    assert longer[0] == 400 and longer[1]["error"]["code"] == "context_length_exceeded"
    policy.room = 30
    states, outcomes, _ = stage_of(tmp_path, policy, range(3))
    assert states == {"refused": 3}
    assert "max_tokens 12 exceed the model's context length of 30 tokens" in outcomes[0].value["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'{"model": "m", "max_tokens": 8, "messages": []}',
        b'{"model": "m", "max_tokens": 8, "messages": [{"role": "robot", "content": "x"}]}',
        b'{"model": "m", "max_tokens": 8, "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "m", "max_tokens": 0, "messages": [{"role": "user", "content": "x"}]}',
        body_of("x", response_format={"type": "json_object"}),
    ],
)
def test_what_cannot_be_taken_is_refused_and_fails_nobody_else(policy, body):
    (status, value), good = sent(policy, [body, body_of("x")])
    assert status == 400 and value["error"]["message"]
    assert good[0] == 200


def test_an_exception_is_an_answer_and_the_item_fails_in_its_class(tmp_path, policy):
    def broken(contexts, **how):
        raise torch.OutOfMemoryError("no memory left")

    policy.said = broken
    [(status, value)] = sent(policy, [body_of("x")])
    assert status == 500 and value["error"]["message"] == "OutOfMemoryError: no memory left"
    states, outcomes, client = stage_of(tmp_path, policy, range(2), structured="text")
    assert states == {"server": 2} and client.ledger["failed: server"] == 8
    assert "no memory left" in outcomes[0].value["detail"]


def test_a_request_that_always_fails_fails_alone(policy):
    plain = policy.said
    poison = rendering.render(policy.tokenizer, spoken("poison"), None, prompt="")[0]

    def said(contexts, **how):
        if poison in contexts:
            raise RuntimeError("poisoned")
        return plain(contexts, **how)

    expected = texts_of(sent(policy, [body_of(text) for text in TEXTS]))
    policy.said = said
    answers = sent(policy, [body_of(text) for text in [*TEXTS[:3], "poison", *TEXTS[3:]]])
    assert answers.pop(3)[0] == 500
    assert texts_of(answers) == expected


def test_the_loop_stays_free_and_a_closed_endpoint_leaves_nobody_waiting(policy, monkeypatch):
    monkeypatch.setattr(local_endpoint, "MOST", 2)
    at_work = threading.Event()
    steps = []

    def slowly(*_):
        at_work.set()
        steps.append(time.sleep(0.05))

    hook = policy.model.register_forward_pre_hook(slowly)
    policy.ends = []

    async def go():
        transport = LocalEndpoint(policy)
        tasks = [asyncio.create_task(transport.send(body_of(text, max_tokens=200))) for text in TEXTS]
        began = time.monotonic()
        while not at_work.is_set():
            await asyncio.sleep(0.01)
        tasks[-1].cancel()
        await transport.close()
        assert time.monotonic() - began < 5 and not transport._thread.is_alive()
        found = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert [type(one) for one in found] == [Unreachable] * 4 + [asyncio.CancelledError]
        with pytest.raises(Unreachable):
            await transport.send(body_of("x"))
        await transport.close()

    asyncio.run(go())
    assert len(steps) < 100
    hook.remove()
    # The policy is as it was: it speaks again.
    assert texts_of(sent(policy, [body_of("x")]))


def test_whoever_no_longer_waits_is_not_drawn_for(policy, monkeypatch):
    monkeypatch.setattr(local_endpoint, "GATHER", 0.2)
    sizes = watched(policy)

    async def go():
        transport = LocalEndpoint(policy)
        try:
            gone = asyncio.create_task(transport.send(body_of("gone")))
            stays = asyncio.create_task(transport.send(body_of("stays")))
            await asyncio.sleep(0.02)
            gone.cancel()
            return await asyncio.wait_for(stays, 30)
        finally:
            await transport.close()

    assert asyncio.run(go()).status == 200 and sizes == [1]


def test_samples_of_one_request_differ_and_each_is_stored(tmp_path, policy):
    async def go():
        store = Store(tmp_path / "answers.sqlite")
        endpoint = Endpoint(base_url=LOCAL, model="m", temperature=5.0, max_tokens=8, extra_body={"seed": 0})
        try:
            async with Client(endpoint, store, run="run", transport=LocalEndpoint(policy)) as client:
                requests = [Request(question(1), sample=number % 4) for number in range(8)]
                answers = await asyncio.gather(*map(client.complete, requests))
                with pytest.raises(Failed, match="exceed"):
                    policy.room = 10
                    await client.complete(Request(question(1), sample=9))
                return [answer.text for answer in answers], client
        finally:
            store.close()

    texts, client = asyncio.run(go())
    assert texts[:4] == texts[4:] and len(set(texts)) == 4
    assert client.account()["calls"] == 5


@pytest.mark.parametrize("name", ["no/such-model", "/no/such/folder", "empty"])
def test_a_model_that_is_not_there_is_one_clear_error(tmp_path, monkeypatch, name):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for refuse in (local_endpoint.check, local_endpoint.load):
        with pytest.raises(RecipeError, match=f"endpoint.model '{name}'.*name a checkpoint directory"):
            refuse(name)


def test_a_model_that_cannot_chat_or_speak_is_refused_before_any_call(folder, tmp_path):
    mute = babbler()
    mute.tokenizer.chat_template = None
    weights.save(mute, tmp_path / "mute")
    with pytest.raises(RecipeError, match="no chat template"):
        local_endpoint.check(str(tmp_path / "mute"))
    broken = babbler()
    with torch.no_grad():
        broken.model.model.norm.weight.fill_(float("nan"))
    weights.save(broken, tmp_path / "broken")
    local_endpoint.check(str(tmp_path / "broken"))
    with pytest.raises(RecipeError, match="no finite numbers"):
        local_endpoint.load(str(tmp_path / "broken"))
