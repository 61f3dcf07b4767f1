"""The goals of docs/reliability.md that belong to the endpoint layer, each in a test named after its row."""

import asyncio
import json
import random
import socket
import sqlite3
import subprocess
import sys
import time
from email.utils import formatdate
from functools import lru_cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llm_examples import Verdict, client_of, endpoint_of, judge_all, question, verdict_of

from askwell.errors import EndpointError
from askwell.llm import chat, stage
from askwell.llm.chat import Request
from askwell.llm.client import ALIKE, Client, Failed
from askwell.llm.store import Store
from askwell.llm.transport import InProcess
from askwell.mock_endpoint import Faults, MockEndpoint, body_key
from served import served


@pytest.fixture(scope="module")
def job():
    """Runs jobs of killed_stage.py; returns their exit codes."""
    here = Path(__file__).parent
    with subprocess.Popen(
        [sys.executable, here / "killed_stage.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": f"{here}:{here.parents[1] / 'src'}"},
    ) as process:

        def run(**fields):
            process.stdin.write(json.dumps(fields) + "\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield run
        process.stdin.close()


def body(number):
    return chat.body_of(chat.settings(endpoint_of(), Verdict, "json_schema"), Request(question(number)))


def received(directory, url, items):
    """The items whose answers stand in the store, as hashes of their bodies."""
    if not (directory / "answers.sqlite").exists():
        return set()
    with sqlite3.connect(directory / "answers.sqlite") as store:
        try:
            keys = {key for (key,) in store.execute("select key from answers")}
        except sqlite3.OperationalError:  # killed before the tables were made
            keys = set()
    store.close()
    return {body for key, body in keys_of(url, items).items() if key in keys}


@lru_cache(maxsize=1)
def keys_of(url, items):
    """The key of each item in the store, and the hash of its body in the ledger."""
    return {chat.key_of(url, text, 0): body_key(json.loads(text)) for text in map(body, range(items))}


def in_flight(directory):
    """Calls that were claimed and never settled, because the process died."""
    with sqlite3.connect(directory / "answers.sqlite") as store:
        ((count,),) = store.execute("select count(*) from calls where state = 'sent'").fetchall()
    store.close()
    return count


def expected(items):
    return [[number, json.loads(verdict_of({"messages": question(number)}))] for number in range(items)]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a1_killed_thirty_times_nothing_is_lost_torn_or_paid_again(tmp_path, job):
    items, concurrency, draw = 1500, 32, random.Random(1)
    mock = MockEndpoint(verdict_of, latency=0.01)
    kills = 0
    with served(mock) as url:
        for _ in range(200):
            before = received(tmp_path, url, items)
            paid = mock.ledger.paid_by_body.copy()
            seconds = draw.uniform(0.02, 0.12) if kills < 30 else None
            code = job(directory=str(tmp_path), url=url, items=items, concurrency=concurrency, seconds=seconds)
            assert all(mock.ledger.paid_by_body[key] == paid[key] for key in before), "what was received is paid again"
            kills += code == -9
            if code == 0:
                break
    assert kills == 30
    assert lines(tmp_path / "records.jsonl") == expected(items)
    assert sum(mock.ledger.paid_by_body.values()) - items <= in_flight(tmp_path)


POINTS = [f"{when} {it}" for it in ("claim", "send", "settle", "commit", "rename") for when in ("before", "after")]


@pytest.mark.parametrize("point", POINTS)
def test_a3_killed_at_a_named_point_the_output_is_whole_or_absent(tmp_path, job, point):
    items = 60
    mock = MockEndpoint(verdict_of, latency=0.001)
    with served(mock) as url:
        common = {"directory": str(tmp_path), "url": url, "items": items, "concurrency": 8}
        times = 1 if "rename" in point else 7
        assert job(**common, point=point, times=times) == -9
        written = tmp_path / "records.jsonl"
        assert not written.exists() if point != "after rename" else lines(written) == expected(items)
        before, paid = received(tmp_path, url, items), mock.ledger.paid_by_body.copy()
        assert job(**common) == 0
        assert all(mock.ledger.paid_by_body[key] == paid[key] for key in before)
    assert lines(written) == expected(items)
    assert sum(mock.ledger.paid_by_body.values()) - items <= in_flight(tmp_path)


def test_a4_killed_again_inside_the_resume(tmp_path, job):
    items = 400
    mock = MockEndpoint(verdict_of, latency=0.001)
    with served(mock) as url:
        common = {"directory": str(tmp_path), "url": url, "items": items, "concurrency": 8}
        for times in (9, 8, 7, 6, 1):
            assert job(**common, point="after commit", times=times) == -9
        assert job(**common) == 0
    assert lines(tmp_path / "records.jsonl") == expected(items)
    assert sum(mock.ledger.paid_by_body.values()) - items <= in_flight(tmp_path)


class FailingDisk:
    """A connection whose writes fail from the n-th statement on, as a disk that is full or broken does."""

    def __init__(self, connection, after):
        self.connection, self.left = connection, after

    def execute(self, *arguments):
        self.left -= 1
        if self.left < 0:
            raise sqlite3.OperationalError("database or disk is full")
        return self.connection.execute(*arguments)

    def __getattr__(self, name):
        return getattr(self.connection, name)


@pytest.mark.parametrize("after", [0, 1, 2, 7, 30])
def test_a6_a_full_disk_stops_the_sending_and_acknowledges_nothing_that_is_not_stored(tmp_path, after):
    mock = MockEndpoint(verdict_of, latency=0.005)
    told = []

    async def go():
        async with client_of(tmp_path / "answers.sqlite", mock) as client:
            client.store._writer = FailingDisk(client.store._writer, after)

            async def ask(number):
                answer = await client.complete(Request(question(number), sample=number))
                told.append(number)
                return answer.text

            spool = stage.Spool(tmp_path / "spool.jsonl")
            began = time.monotonic()
            with pytest.raises(EndpointError, match="answers cannot be stored.*full"):
                await stage.each(range(5000), ask, client, spool)
            spool.close()
            return time.monotonic() - began

    assert asyncio.run(go()) < 2
    sent = mock.ledger.requests
    assert sent < 5000
    with sqlite3.connect(tmp_path / "answers.sqlite") as store:
        assert store.execute("select count(*) from answers").fetchone()[0] >= len(told)
    store.close()


def test_a6_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EndpointError, match=r"answers cannot be stored.*--endpoint\.store"):
        Store(tmp_path / "file" / "answers.sqlite")


def test_a7_in_a_storm_every_row_ends_in_one_state_and_none_is_poisoned(tmp_path):
    rows = 1500
    mock = MockEndpoint(verdict_of, latency=0.002, faults=Faults.STORM, seed=7)
    states, _, values = judge_all(tmp_path, mock, range(rows), fields={"max_unscored": 0.5, "concurrency": 64})
    assert sum(states.values()) == rows
    truth = dict(expected(rows))
    assert all(value == truth[ordinal] for ordinal, value in values.items())
    assert states["ok"] == len(values) > 0.85 * rows
    outcomes = mock.ledger.outcomes
    assert states["empty"] == outcomes["empty"] and states["length"] <= outcomes["length"]
    unreadable = outcomes["torn"] + outcomes["bad_utf8"]
    assert mock.ledger.paid <= 1.05 * (rows + unreadable)
    # With the default limit the same storm ends with a clear error, not with an exit code of 0.
    (tmp_path / "strict").mkdir()
    error, _, _ = judge_all(tmp_path / "strict", MockEndpoint(verdict_of, faults=Faults.STORM), range(rows))
    assert isinstance(error, EndpointError) and "have no usable answer" in str(error)


def test_a8_calls_that_never_answer_cost_one_timeout(tmp_path):
    rows, floor = 600, 0.5
    hanging = iter(range(10**9))
    free = MockEndpoint(verdict_of, latency=0.02)
    began = time.monotonic()
    judge_all(tmp_path, free, range(rows))
    without = time.monotonic() - began

    mock = MockEndpoint(
        verdict_of, latency=0.02, faults=Faults(always=lambda body: "hang" if next(hanging) % 50 == 49 else None)
    )
    (tmp_path / "hanging").mkdir()
    began = time.monotonic()

    async def go():
        store = Store(tmp_path / "hanging" / "answers.sqlite")
        client = Client(endpoint_of(), store, run="r", transport=InProcess(mock.send), floor=floor, pause=0.002)
        spool = stage.Spool(tmp_path / "hanging" / "spool.jsonl")

        async def ask(number):
            return (await client.complete(Request(question(number)))).text

        states = await stage.each(range(rows), ask, client, spool)
        spool.close()
        store.close()
        return states

    assert asyncio.run(go()) == {"ok": rows}
    assert mock.ledger.outcomes["hang"] >= 12
    # A second hang of the same row costs a second timeout.
    assert time.monotonic() - began < 2 * without + 2 * (floor + floor / 4) + 1


@pytest.mark.parametrize("fault", ["error", "torn", "reset", "error_body"])
def test_a9_one_row_that_always_fails_fails_alone(tmp_path, fault):
    rows = 400
    bad = question(123)[-1]["content"]
    faults = Faults(always=lambda body: fault if body["messages"][-1]["content"] == bad else None)
    mock = MockEndpoint(verdict_of, faults=faults)
    states, _, values = judge_all(tmp_path, mock, range(rows))
    kind = {"error": "server"}.get(fault, fault)
    assert states == {"ok": rows - 1, kind: 1} and 123 not in values
    assert mock.ledger.requests == rows - 1 + ALIKE <= rows + 3


def test_a11_retry_after_is_obeyed_within_reason_and_never_spun_on(tmp_path, monkeypatch):
    slept = []
    plain = asyncio.sleep

    async def sleep(seconds, *more):
        slept.append(seconds)
        await plain(min(seconds, 0.001), *more)

    texts = [
        "0",
        "-1",
        "1e9",
        "NaN",
        None,
        "",
        "soon",
        formatdate(time.time() + 9e5, usegmt=True),
        formatdate(0, usegmt=True),
    ]
    faults = iter(range(10**9))
    mock = MockEndpoint(
        verdict_of,
        retry_after=iter(texts * 20),
        faults=Faults(always=lambda body: "throttle" if next(faults) % 3 else None),
    )

    async def go():
        async with client_of(tmp_path / "answers.sqlite", mock) as client:
            monkeypatch.setattr("askwell.llm.client.asyncio.sleep", sleep)
            for number in range(60):
                await client.complete(Request(question(number)))

    asyncio.run(go())
    waits = [seconds for seconds in slept if seconds > 0 and seconds not in (0.05, 1.0)]
    assert len(waits) == mock.ledger.outcomes["throttle"] > 100
    assert max(waits) == 60.0 and min(waits) > 0


def test_a14_a_million_items_resume_their_first_new_call_soon(tmp_path):
    with (tmp_path / "spool.jsonl").open("wb") as file:
        file.writelines(b"%d\tok\t{}\n" % ordinal for ordinal in range(999_990))
    first = []

    async def ask(number):
        first.append(time.process_time())
        return number

    async def go():
        async with client_of(tmp_path / "answers.sqlite", MockEndpoint(verdict_of)) as client:
            spool = stage.Spool(tmp_path / "spool.jsonl")
            states = await stage.each(range(1_000_000), ask, client, spool)
            spool.close()
            return states

    began = time.process_time()
    assert asyncio.run(go()) == {"ok": 1_000_000} and len(first) == 10
    assert first[0] - began < 10
    assert (tmp_path / "spool.jsonl").read_bytes().endswith(b"\n999999\tok\t999999\n")


def test_a14_nothing_grows_with_the_number_of_calls(tmp_path):
    mock = MockEndpoint(verdict_of)
    states, client, _ = judge_all(tmp_path, mock, range(3000))
    assert states == {"ok": 3000}
    assert not client._flying and not client._attempts and not client._late
    assert len(client.timeouts._seen) == 1 and len(client.pace._latencies) <= 3000


@settings(max_examples=25)
@given(
    prompt=st.floats(0, 1000),
    completion=st.floats(0, 1000),
    cap=st.floats(1e-6, 0.2),
    usage=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_a15_never_over_the_cap_and_the_account_is_the_endpoints(
    tmp_path_factory, prompt, completion, cap, usage, seed
):
    directory = tmp_path_factory.mktemp("budget")
    mock = MockEndpoint(verdict_of, faults=Faults(torn=0.1, reset=0.1, error=0.1), seed=seed, usage=usage)
    fields = {"prices": {"prompt": prompt, "completion": completion}, "budget": {"money": cap}, "max_unscored": 1.0}
    _, client, _ = judge_all(directory, mock, range(30), fields=fields)
    charged = mock.ledger.prompt_tokens * prompt + mock.ledger.completion_tokens * completion
    spent = client.budget.spent[2]
    assert charged <= spent * (1 + 1e-9) <= cap * 1e6 * (1 + 1e-9)
    # What is not known for certain is counted at its most; the rest is the endpoint's own figure.
    assert spent - client.unbilled <= charged * (1 + 1e-9)
    if not mock.ledger.outcomes["torn"] and not mock.ledger.outcomes["reset"] and usage:
        assert spent == pytest.approx(charged)
    assert Store(directory / "answers.sqlite").spent("run").cost == pytest.approx(spent)


halves = st.floats(-3, 3).map(lambda number: round(number * 2) / 2)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | halves | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)


def same(one, other):
    """Equal as JSON means it: 1 and 1.0 are one number, true is none."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    numbers = type(one) in (int, float) and type(other) in (int, float)
    return (numbers or type(one) is type(other)) and one == other


@given(json_values, json_values, st.integers(0, 1), st.integers(0, 1))
def test_a16_equal_keys_iff_equal_meaning(one, other, first, second):
    url = "http://localhost/v1"
    bodies = [chat.canonical(chat.plain({"a": value})) for value in (one, other)]
    keys = chat.key_of(url, bodies[0], first), chat.key_of(f"{url}/", bodies[1], second)
    assert (keys[0] == keys[1]) == (same(one, other) and first == second)


def test_a16_a_hundred_equal_requests_are_one_paid_call(tmp_path):
    mock = MockEndpoint(verdict_of, latency=0.01)

    async def go():
        async with client_of(tmp_path / "answers.sqlite", mock) as client:
            return await asyncio.gather(*(client.complete(Request(question(1))) for _ in range(100)))

    assert len(set(asyncio.run(go()))) == 1
    assert mock.ledger.requests == 1


@pytest.mark.parametrize("leaving", [0, 1])
def test_a16_one_of_two_may_leave_and_the_other_gets_its_answer(tmp_path, leaving):
    mock = MockEndpoint(verdict_of, latency=0.02)

    async def go():
        async with client_of(tmp_path / "answers.sqlite", mock) as client:
            both = [asyncio.create_task(client.complete(Request(question(1)))) for _ in range(2)]
            await asyncio.sleep(0.005)
            both[leaving].cancel()
            answer = await both[1 - leaving]
            assert both[leaving].cancelled() and not client._flying
            return answer

    assert asyncio.run(go()).text == verdict_of({"messages": question(1)})


def test_a16_equal_requests_fail_alike(tmp_path):
    mock = MockEndpoint(verdict_of, faults=Faults(error=1.0), latency=0.01)

    async def go():
        async with client_of(tmp_path / "answers.sqlite", mock) as client:
            calls = (client.complete(Request(question(1))) for _ in range(10))
            return await asyncio.gather(*calls, return_exceptions=True)

    assert [failed.kind for failed in asyncio.run(go())] == ["server"] * 10
    assert mock.ledger.requests == ALIKE


def test_a16_what_another_process_has_stored_is_found(tmp_path):
    """Two stores of one file: what one writes after the other was opened is not asked for again."""
    mock = MockEndpoint(verdict_of)

    async def go():
        async with client_of(tmp_path / "answers.sqlite", mock) as late:
            async with client_of(tmp_path / "answers.sqlite", mock) as other:
                for number in range(20):
                    await other.complete(Request(question(number)))
            await late.complete(Request(question(99)))  # whoever writes sees that others have
            for number in range(20):
                await late.complete(Request(question(number)))

    asyncio.run(go())
    assert mock.ledger.requests == 21


def test_an_unscored_item_keeps_its_text_and_is_tried_again_by_a_resume(tmp_path):
    mock = MockEndpoint(lambda body: '{"reason": "so", "verdict": "perhaps"}')
    states, _, values = judge_all(tmp_path, mock, range(3), fields={"max_unscored": 1.0})
    assert states == {"off_menu": 3} and values == {}
    kept = [json.loads(line.split("\t")[2]) for line in (tmp_path / "spool.jsonl").read_text().splitlines()]
    assert all("perhaps" in entry["text"] for entry in kept)


def test_a_stage_stops_as_soon_as_its_limit_is_surely_passed(tmp_path):
    mock = MockEndpoint(verdict_of, faults=Faults(garbled=0.3))
    error, _, _ = judge_all(tmp_path, mock, range(100_000))
    assert isinstance(error, EndpointError)
    assert "max_unscored 5%" in str(error) and "unreadable" in str(error)
    assert mock.ledger.requests < 1000


def test_a1_what_was_spooled_is_there_after_a_kill(tmp_path):
    program = (
        "import os, sys; from pathlib import Path; from askwell.llm.stage import Outcome, Spool\n"
        "spool = Spool(Path(sys.argv[1]))\n"
        "for i in range(3): spool.put(Outcome(i, 'ok', 'x' * i))\n"
        "os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path / "spool")]).returncode == -9
    spool = stage.Spool(tmp_path / "spool")
    assert [(found.ordinal, found.value) for found in spool.in_order()] == [(0, ""), (1, "x"), (2, "xx")]
    spool.close()


def test_failed_says_its_class():
    assert str(Failed("torn", "half a line")) == "torn: half a line"


def test_a21_no_test_reaches_beyond_this_machine(tmp_path):
    with pytest.raises(OSError, match="a test tried to connect"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)

    async def go():
        store = Store(tmp_path / "answers.sqlite")
        endpoint = endpoint_of(base_url="http://192.0.2.1/v1")
        async with Client(endpoint, store, run="r", pause=0.001) as client:
            await client.complete(Request(question(1)))

    with pytest.raises(EndpointError, match=r"192\.0\.2\.1"):
        asyncio.run(go())
