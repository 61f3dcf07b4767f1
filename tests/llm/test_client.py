"""Calls through the client, against an endpoint in process."""

import asyncio
import sqlite3

import pytest
from llm_examples import client_of, endpoint_of, judge_all, question, verdict_of

from askwell.errors import EndpointError, RecipeError
from askwell.llm.chat import Request
from askwell.llm.client import Client, Failed, key_in, permit
from askwell.llm.store import Store
from askwell.mock_endpoint import Faults, MockEndpoint


def keyed(url, store):
    """A client over HTTP that sends the key in MY_KEY."""
    return Client(endpoint_of(base_url=url, key_variable="MY_KEY"), store, run="r")


def complete(path, mock, request, **fields):
    async def go():
        async with client_of(path / "answers.sqlite", mock, **fields) as client:
            try:
                return await client.complete(request), client
            except Failed as failed:
                return failed, client

    return asyncio.run(go())


def test_an_answer_is_durable_before_it_is_used_and_never_paid_for_again(tmp_path):
    mock = MockEndpoint(lambda body: "hello")
    answer, _ = complete(tmp_path, mock, Request(question(1)))
    again, client = complete(tmp_path, mock, Request(question(1)))
    assert answer == again and answer.text == "hello"
    assert mock.ledger.requests == 1 and client.ledger == {"stored": 1}


def test_another_sample_is_another_call(tmp_path):
    mock = MockEndpoint(lambda body: "hello")
    for sample in (0, 1, 1):
        complete(tmp_path, mock, Request(question(1), sample=sample))
    assert mock.ledger.requests == 2


@pytest.mark.parametrize("kind", ["empty", "length"])
def test_a_poor_answer_is_stored_as_what_it_is(tmp_path, kind):
    mock = MockEndpoint(lambda body: "hello there", faults=Faults(**{kind: 1.0}))
    first, _ = complete(tmp_path, mock, Request(question(1)))
    again, _ = complete(tmp_path, mock, Request(question(1)))
    assert first.kind == again.kind == kind and mock.ledger.requests == 1


def test_a_wrong_key_stops_the_run_and_is_not_repeated_in_the_error(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-wrong-and-secret")
    mock = MockEndpoint(verdict_of, api_key="sk-right")

    async def go():
        store = Store(tmp_path / "answers.sqlite")
        async with (
            mock.serve() as url,
            Client(endpoint_of(base_url=url, key_variable="MY_KEY"), store, run="r") as client,
        ):
            await client.complete(Request(question(1)))

    with pytest.raises(EndpointError, match=r"401.*--endpoint\.key_variable") as error:
        asyncio.run(go())
    assert "secret" not in str(error.value) and mock.ledger.requests == 1


def test_a_key_that_an_endpoint_echoes_is_scrubbed(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret")

    async def go():
        store = Store(tmp_path / "answers.sqlite")
        client = Client(endpoint_of(key_variable="MY_KEY", base_url="http://127.0.0.1:9/v1"), store, run="r")
        async with client:
            return client.scrubbed("Incorrect API key: sk-secret.")

    assert asyncio.run(go()) == "Incorrect API key: ***."


def test_no_key_in_the_environment_is_one_clear_line():
    with pytest.raises(RecipeError, match="the environment has no MY_KEY"):
        key_in(endpoint_of(key_variable="MY_KEY"), {})
    assert key_in(endpoint_of(), {}) is None


def test_keys_reach_neither_store_nor_spool(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret")
    mock = MockEndpoint(verdict_of, api_key="sk-secret", faults=Faults(error=0.2))

    async def go():
        store = Store(tmp_path / "answers.sqlite")
        async with (
            mock.serve() as url,
            Client(endpoint_of(base_url=url, key_variable="MY_KEY"), store, run="r") as client,
        ):
            for number in range(5):
                await client.complete(Request(question(number)))
        store.close()

    asyncio.run(go())
    assert mock.ledger.paid == 5
    assert not any(b"sk-secret" in file.read_bytes() for file in tmp_path.iterdir())


def test_nobody_at_the_address_is_one_clear_line(tmp_path):
    async def go():
        store = Store(tmp_path / "answers.sqlite")
        async with Client(endpoint_of(base_url="http://127.0.0.1:9/v1"), store, run="r", pause=0.001) as client:
            await client.complete(Request(question(1)))

    with pytest.raises(EndpointError, match=r"127\.0\.0\.1:9.*start the endpoint, or mend --endpoint\.base_url"):
        asyncio.run(go())


def test_a_redirect_is_not_followed(tmp_path):
    from aiohttp import web

    async def go():
        asked = []

        async def elsewhere(request):
            asked.append(request.path)
            raise web.HTTPTemporaryRedirect("/stolen")

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", elsewhere)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        store = Store(tmp_path / "answers.sqlite")
        async with Client(endpoint_of(base_url=url), store, run="r") as client:
            with pytest.raises(Failed, match="status 307"):
                await client.complete(Request(question(1)))
        await runner.cleanup()
        return asked

    assert asyncio.run(go()) == ["/v1/chat/completions"]


def test_text_that_was_not_redacted_stays_unless_the_recipe_names_the_host(tmp_path):
    far = endpoint_of(base_url="https://api.example.com/v1")
    permit(endpoint_of(), redacted=False, what=tmp_path)
    permit(endpoint_of(base_url="http://127.0.0.2:1/v1"), redacted=False, what=tmp_path)
    permit(far, redacted=True, what=tmp_path)
    permit(far.model_copy(update={"consent": "api.example.com"}), redacted=False, what=tmp_path)
    for endpoint in (
        far,
        endpoint_of(base_url="http://localhost.evil.com/v1"),
        endpoint_of(base_url="http://10.0.0.5/v1"),
    ):
        with pytest.raises(RecipeError, match=r"--redact true.*--endpoint\.consent"):
            permit(endpoint, redacted=False, what=tmp_path)


def test_a_run_that_is_cut_leaves_its_reservation_behind(tmp_path):
    """Killed between send and answer: the call may have been paid, so it counts at what it may have cost."""
    mock = MockEndpoint(verdict_of, faults=Faults(hang=1.0))

    async def go():
        async with client_of(tmp_path / "answers.sqlite", mock, prices={"completion": 1.0}, timeout=60) as client:
            call = asyncio.create_task(client.complete(Request(question(1))))
            while not mock.ledger.in_flight:
                await asyncio.sleep(0.001)
            spent = client.store.spent("run")
            call.cancel()
            return spent

    spent = asyncio.run(go())
    assert spent.calls == 1 and spent.cost == 100.0
    assert Store(tmp_path / "answers.sqlite").spent("run") == spent
    assert Store(tmp_path / "answers.sqlite").spent("another run").calls == 0


def test_a_budget_ends_the_run_and_says_so(tmp_path):
    mock = MockEndpoint(verdict_of)
    error, client, values = judge_all(tmp_path, mock, range(50), fields={"budget": {"calls": 20}})
    assert isinstance(error, EndpointError) and "30 of 50 items left" in str(error)
    assert len(values) == 20 == mock.ledger.requests
    # A new run of the same recipe has a budget of its own, and pays for nothing again.
    (tmp_path / "spool.jsonl").unlink()
    states, client, _ = judge_all(tmp_path, mock, range(20))
    assert states == {"ok": 20} and mock.ledger.requests == 20 and client.ledger["stored"] == 20


def test_the_store_is_sqlite_that_anyone_can_open(tmp_path):
    complete(tmp_path, MockEndpoint(lambda body: "hello"), Request(question(1)))
    with sqlite3.connect(tmp_path / "answers.sqlite") as found:
        ((state, tokens),) = found.execute("select state, tokens from calls").fetchall()
        assert state == "answered" and tokens > 0
        assert "hello" in found.execute("select body from answers").fetchone()[0]
    found.close()
