"""The mock endpoint: every fault both ways in, the same faults from the same seed, a ledger that adds up."""

import ast
import asyncio
import errno
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from askwell import mock_endpoint
from askwell.mock_endpoint import FAULTS, Faults, MockEndpoint, body_key, count_tokens, prompt_tokens

TEXT = "Since when have you had the pain, and where?"
UNPAID = {"throttle", "error", "unavailable", "reset", "error_body", "hang"}


def asking(text="What now?", **more):
    return {"model": "mock", "messages": [{"role": "user", "content": text}], **more}


def endpoint(**settings):
    return MockEndpoint(lambda body: TEXT, **settings)


async def over_http(server, bodies, headers, patience):
    """Status, headers and body of each request in turn, or the name of what the client met instead."""
    met = []
    async with server.serve() as base_url, aiohttp.ClientSession() as session:
        for body in bodies:
            limit, declared = aiohttp.ClientTimeout(total=patience), None
            try:
                async with session.post(
                    f"{base_url}/chat/completions", json=body, headers=headers, timeout=limit
                ) as answer:
                    declared = answer.headers["Content-Length"]
                    met.append((answer.status, answer.headers, await answer.read()))
            except aiohttp.ClientPayloadError:
                assert int(declared) > 200
                met.append("cut")
            except aiohttp.ClientOSError as error:
                assert error.errno == errno.ECONNRESET
                met.append("reset")
            except asyncio.TimeoutError:
                met.append("hang")
    return met


async def in_process(server, bodies, headers, patience):
    met = []
    for body in bodies:
        try:
            met.append(await asyncio.wait_for(server.send(body, headers), patience))
        except ConnectionResetError as error:
            met.append("cut" if "cut" in str(error) else "reset")
        except asyncio.TimeoutError:
            met.append("hang")
    return met


WAYS = pytest.mark.parametrize("way", [over_http, in_process])


def meet(way, server, *bodies, headers=None, patience=30.0):
    return asyncio.run(way(server, bodies, headers or {}, patience))


def content(answer):
    status, headers, body = answer
    assert (status, headers["Content-Type"]) == (200, "application/json")
    choice = json.loads(body)["choices"][0]
    return choice["message"]["content"], choice["finish_reason"]


def refused(answer):
    status, _, body = answer
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return status, error["code"]


@WAYS
def test_an_answer_is_a_chat_completion(way):
    body = asking()
    status, headers, raw = meet(way, endpoint(model='a "model"'), body)[0]
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert json.loads(raw) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": 'a "model"',
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": TEXT, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 3 + 4, "completion_tokens": 11, "total_tokens": 18},
    }


@WAYS
@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault(way, fault):
    server = endpoint(faults=Faults(**{fault: 1.0}), latency=0.001)
    met = meet(way, server, asking(), patience=0.2 if fault == "hang" else 30.0)[0]
    if fault in ("reset", "cut", "hang"):
        assert met == fault
    elif fault in ("throttle", "error", "unavailable"):
        assert refused(met)[0] == {"throttle": 429, "error": 500, "unavailable": 503}[fault]
    elif fault == "error_body":
        assert refused(met) == (200, "upstream_error")
    elif fault == "torn":
        assert met[0] == 200
        with pytest.raises(json.JSONDecodeError):
            json.loads(met[2].decode())
    elif fault == "bad_utf8":
        assert met[0] == 200
        with pytest.raises(UnicodeDecodeError):
            met[2].decode()
        # A client that decodes with "replace" gets whole JSON with a wrong text.
        assert json.loads(met[2].decode(errors="replace"))["choices"][0]["message"]["content"] != TEXT
    else:
        wanted = {
            "empty": ("", "stop"),
            "length": ("Since when have you had", "length"),
            "slow": (TEXT, "stop"),
            "fenced": (f"```json\n{TEXT}\n```", "stop"),
            "garbled": ("I cannot say.", "stop"),
        }[fault]
        text, finish = content(met)
        assert (wanted[0] in text if fault == "fenced" else wanted[0] == text) and finish == wanted[1]
    ledger = server.ledger
    assert (ledger.requests, ledger.outcomes, ledger.in_flight) == (1, {fault: 1}, 0)
    assert ledger.paid == (0 if fault in UNPAID else 1)


def outcomes(server, way, count):
    """What each of `count` requests in turn was counted as."""
    seen = []
    original = server._draw

    def recorded():
        seen.append(original()[0])
        return seen[-1], 1.0

    server._draw = recorded
    meet(way, server, *(asking(str(number)) for number in range(count)))
    return seen


def test_the_same_seed_brings_the_same_faults_both_ways():
    storm = replace(Faults.STORM, hang=0)
    first = outcomes(endpoint(faults=storm, seed=5), in_process, 60)
    assert outcomes(endpoint(faults=storm, seed=5), over_http, 60) == first
    assert outcomes(endpoint(faults=storm, seed=6), in_process, 60) != first
    # What becomes of a request, and its latency, moves no later draw.
    assert outcomes(endpoint(faults=storm, seed=5, context=1, slots=0, tail=1.0), in_process, 60) == first


def test_the_storm_has_its_rates():
    assert sum(Faults.STORM.rates()) == pytest.approx(0.695)
    server, count = endpoint(faults=replace(Faults.STORM, hang=0, reset=0)), 4000

    async def ask():
        for number in range(count):
            await server.send(asking(str(number)))

    asyncio.run(ask())
    for name, rate in (("throttle", 0.3), ("error", 0.05), ("torn", 0.15), ("slow", 0.02), ("ok", 0.36)):
        assert abs(server.ledger.outcomes[name] / count - rate) < 4 * (rate * (1 - rate) / count) ** 0.5
    assert sum(server.ledger.outcomes.values()) == server.ledger.requests == count


@pytest.mark.parametrize("rates", [{"error": -0.1}, {"error": 1.1}, {"error": 0.6, "torn": 0.6}])
def test_impossible_rates_are_refused(rates):
    with pytest.raises(ValueError, match="fault rates"):
        Faults(**rates)


def test_always_overrides_the_draw_for_its_row_alone():
    faults = Faults(throttle=1.0, always=lambda body: "torn" if "row 3" in body["messages"][0]["content"] else None)
    server = endpoint(faults=faults)
    meet(in_process, server, *(asking(f"row {number}") for number in range(5)))
    assert server.ledger.outcomes == {"torn": 1, "throttle": 4}
    with pytest.raises(ValueError, match="'tornado'"):
        meet(in_process, endpoint(faults=Faults(always=lambda body: "tornado")), asking())


@WAYS
def test_the_ledger_agrees_with_the_answers(way):
    server = endpoint(faults=Faults(throttle=0.3, length=0.3), seed=1)
    bodies = [asking(str(number % 7)) for number in range(20)]
    met = meet(way, server, *bodies)
    usages = [json.loads(raw)["usage"] for status, _, raw in met if status == 200]
    ledger = server.ledger
    assert ledger.paid == len(usages) == ledger.outcomes["ok"] + ledger.outcomes["length"] < 20
    assert ledger.prompt_tokens == sum(usage["prompt_tokens"] for usage in usages)
    assert ledger.completion_tokens == sum(usage["completion_tokens"] for usage in usages)
    paid = [body_key(body) for body, (status, _, _) in zip(bodies, met, strict=True) if status == 200]
    assert ledger.paid_by_body == {key: paid.count(key) for key in paid}
    assert ledger.peak == 1
    summary = json.loads(json.dumps(ledger.summary()))
    assert summary["bodies"] == len(set(paid))
    assert summary["paid_again"] == {key: paid.count(key) for key in paid if paid.count(key) > 1} != {}


def test_the_key_of_a_body_is_its_meaning():
    assert body_key({"a": 1, "b": "ü\ud800"}) == body_key({"b": "ü\ud800", "a": 1}) != body_key({"a": 1, "b": "u"})


def test_one_more_than_the_slots_is_refused_at_once():
    server = endpoint(latency=0.05, slots=3, retry_after="1")

    async def crowd():
        return await asyncio.gather(*(server.send(asking(str(number))) for number in range(5)))

    met = asyncio.run(crowd())
    assert [answer[0] for answer in met] == [200, 200, 200, 429, 429]
    assert met[4][1]["Retry-After"] == "1"
    assert (server.ledger.outcomes, server.ledger.peak) == ({"ok": 3, "busy": 2}, 3)
    assert content(meet(in_process, server, asking())[0])


@WAYS
def test_a_wrong_or_missing_key_gets_401(way):
    server = endpoint(api_key="right")
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"authorization": "right"}):
        assert refused(meet(way, server, asking(), headers=headers)[0]) == (401, "invalid_api_key")
    assert content(meet(way, server, asking(), headers={"authorization": "Bearer right"})[0])[0] == TEXT
    assert (server.ledger.outcomes, server.ledger.paid) == ({"unauthorized": 3, "ok": 1}, 1)


@WAYS
@pytest.mark.parametrize("schema", [True, False])
@pytest.mark.parametrize("json_object", [True, False])
def test_older_servers_refuse_response_formats(way, schema, json_object):
    server = endpoint(schema=schema, json_object=json_object)
    kinds = ("json_schema", "json_object", "text", "yaml")
    met = meet(way, server, *(asking(response_format={"type": kind}) for kind in kinds))
    assert [answer[0] for answer in met] == [200 if schema else 400, 200 if json_object else 400, 200, 400]
    assert server.ledger.outcomes["invalid"] == 3 - schema - json_object
    assert server.ledger.paid == 1 + schema + json_object


@WAYS
def test_a_prompt_above_the_context_is_refused(way):
    server = endpoint(context=10)
    parts = [{"type": "text", "text": "one two three"}, {"type": "image_url", "image_url": {"url": "x"}}]
    six, seven = asking("one two three four five six"), asking("one two three four five six seven")
    several = {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": None}]}
    met = meet(way, server, six, seven, several)
    assert [answer[0] for answer in met] == [200, 400, 400]
    assert refused(met[1]) == refused(met[2]) == (400, "context_length_exceeded")
    assert (prompt_tokens(several), server.ledger.outcomes) == (11, {"ok": 1, "too_long": 2})


@WAYS
def test_an_answer_longer_than_allowed_is_cut(way):
    bodies = (asking(max_tokens=10), asking(max_tokens=11), asking(max_tokens=99, max_completion_tokens=1))
    met = meet(way, endpoint(), *bodies)
    assert [content(answer) for answer in met] == [(TEXT[:-1], "length"), (TEXT, "stop"), ("Since", "length")]
    assert [json.loads(raw)["usage"]["completion_tokens"] for _, _, raw in met] == [10, 11, 1]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": []},
        {"messages": "hello"},
        {"messages": ["hello"]},
        {"messages": [{"role": "user", "content": ["hello"]}]},
        asking(max_tokens=0),
        asking(max_tokens="many"),
        asking(n=2),
        asking(stream=True),
        asking(response_format="json_object"),
    ],
)
def test_what_is_not_offered_is_refused(body):
    server = endpoint()
    assert refused(meet(in_process, server, body)[0])[0] == 400
    assert (server.ledger.outcomes, server.ledger.paid) == ({"invalid": 1}, 0)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"messages": "\xff"}', b"[" * 100_000])
def test_bytes_that_are_no_request_are_refused(raw):
    async def ask():
        async with endpoint().serve() as base_url, aiohttp.ClientSession() as session:
            answer = await session.post(f"{base_url}/chat/completions", data=raw)
            return answer.status, await answer.json()

    status, said = asyncio.run(ask())
    assert (status, said["error"]["type"]) == (400, "invalid_request_error")


def test_the_models_and_unknown_routes():
    async def ask():
        seen = []
        async with endpoint(api_key="k", model="m").serve() as base_url, aiohttp.ClientSession() as session:
            for path, key in (("models", "k"), ("models", "wrong"), ("chat/completions", "k")):
                async with session.get(f"{base_url}/{path}", headers={"Authorization": f"Bearer {key}"}) as answer:
                    seen.append((answer.status, await answer.json()))
        return seen

    models, unauthorized, unknown = asyncio.run(ask())
    assert (models[0], [model["id"] for model in models[1]["data"]]) == (200, ["m"])
    assert (unauthorized[0], unknown[0]) == (401, 404)


@WAYS
def test_retry_after_is_what_the_test_says(way):
    bodies = [asking(str(number)) for number in range(4)]

    def told(source):
        server = endpoint(faults=Faults(throttle=1.0), retry_after=source)
        return [headers.get("Retry-After") for _, headers, _ in meet(way, server, *bodies)]

    assert told(["1e9", None, "Wed, 21 Oct 2015 07:28:00 GMT"]) == ["1e9", None, "Wed, 21 Oct 2015 07:28:00 GMT", None]
    assert told(lambda: "NaN") == ["NaN"] * 4
    assert told("-1") == ["-1"] * 4
    assert told(None) == [None] * 4


async def until(condition):
    while not condition():
        await asyncio.sleep(0.01)


def delays(monkeypatch, **settings):
    """How long each of 200 answers was made to wait."""
    waited = []

    async def sleep(seconds):
        waited.append(seconds)

    monkeypatch.setattr(mock_endpoint.asyncio, "sleep", sleep)
    server = endpoint(latency=0.2, **settings)

    async def ask():
        for number in range(200):
            await server.send(asking(str(number)))

    asyncio.run(ask())
    return waited


def test_latency_its_tail_and_the_slow(monkeypatch):
    assert set(delays(monkeypatch)) == {0.2}
    assert set(delays(monkeypatch, faults=Faults(slow=1.0))) == {4.0}
    tailed = delays(monkeypatch, tail=0.5)
    assert tailed == delays(monkeypatch, tail=0.5) != delays(monkeypatch, tail=0.5, seed=1)
    assert 0.17 < sorted(tailed)[100] < 0.23 and 0.5 < max(tailed) < 2


@pytest.mark.parametrize("faults", [Faults(), Faults(hang=1.0)])
def test_a_client_that_leaves_frees_its_place_and_has_paid_for_what_was_made(faults):
    server = endpoint(latency=30.0, faults=faults)

    async def leave():
        async with server.serve() as base_url, aiohttp.ClientSession() as session:
            waiting = asyncio.create_task(session.post(f"{base_url}/chat/completions", json=asking()))
            await until(lambda: server.ledger.in_flight == 1)
            waiting.cancel()
            await until(lambda: server.ledger.in_flight == 0)

    asyncio.run(asyncio.wait_for(leave(), 20))
    assert server.ledger.paid == (0 if faults.hang else 1)


def test_leaving_the_server_drops_who_still_waits():
    server = endpoint(latency=30.0)

    async def leave():
        async with aiohttp.ClientSession() as session:
            async with server.serve() as base_url:
                waiting = asyncio.create_task(session.post(f"{base_url}/chat/completions", json=asking()))
                await until(lambda: server.ledger.in_flight == 1)
            with pytest.raises(aiohttp.ClientConnectionError):
                await waiting

    asyncio.run(asyncio.wait_for(leave(), 20))


@WAYS
def test_a_reply_may_be_slow_to_make_and_say_anything(way):
    async def echo(body):
        await asyncio.sleep(0)
        return body["messages"][0]["content"]

    said = ['"}\n\\', "Schmerz, 疼痛", "half \ud800 a pair", ""]
    met = meet(way, MockEndpoint(echo, usage=False), *map(asking, said))
    assert [content(answer)[0] for answer in met] == said
    assert all("usage" not in json.loads(raw) for _, _, raw in met)
    assert "疼痛".encode() in met[1][2]


def test_the_reply_is_made_only_for_a_completion():
    called = []
    unpaid = dict.fromkeys(UNPAID - {"hang"}, 1 / 5)
    server = MockEndpoint(lambda body: called.append(body) or TEXT, faults=Faults(**unpaid))
    meet(in_process, server, *(asking(str(number)) for number in range(50)))
    assert (called, server.ledger.paid, len(server.ledger.outcomes)) == ([], 0, 5)


def test_tokens_are_words_and_marks():
    assert (count_tokens("It hurts, doesn't it?"), count_tokens(""), count_tokens(" \n")) == (8, 0, 0)


def test_it_knows_no_client():
    tree = ast.parse(Path(mock_endpoint.__file__).read_text())
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) == {"aiohttp"}


@pytest.mark.parametrize(
    "arguments, text",
    [(["--words", "3"], "word word word"), (["--json", '{"a": 1}'], '{"a": 1}')],
)
def test_the_command_prints_its_address_and_then_its_ledger(arguments, text):
    command = [sys.executable, "-m", "askwell.mock_endpoint", "--latency", "0.01", *arguments]

    async def ask(base_url):
        async with aiohttp.ClientSession() as session:
            answer = await session.post(f"{base_url}/chat/completions", json=asking())
            return (await answer.json())["choices"][0]["message"]["content"]

    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert asyncio.run(ask(process.stdout.readline().strip())) == text
        finally:
            process.send_signal(signal.SIGTERM)
        ledger = json.loads(process.stdout.read())
    assert (process.returncode, ledger["outcomes"], ledger["paid_again"]) == (0, {"ok": 1}, {})
