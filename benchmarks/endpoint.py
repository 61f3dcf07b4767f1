"""The endpoint layer against what one would use instead: same server, same work, one run.

    python benchmarks/endpoint.py [--quick] [--calls 30000] [--flat 100000]

A server process (askwell.mock_endpoint) answers after 200 ms; 512 calls are in flight; prompts have 400 tokens and each
answer is a small JSON object. askwell validates every answer and has it on disk before anyone sees it; the bare client
does neither. Beside them, as people do it: the `openai` client at the same concurrency (where it is installed; it is no
dependency), and 16 threads that each send one request at a time with the standard library's HTTP. Rates are calls a
second over a client's whole run; each client gets enough calls for some seconds. The last line is JSON.
"""

import argparse
import asyncio
import http.client
import json
import logging
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import aiohttp
from pydantic import BaseModel

from askwell.llm import chat, stage, structured
from askwell.llm.client import Client
from askwell.llm.store import Store
from askwell.recipes import Endpoint

IN_FLIGHT, LATENCY, THREADS = 512, 0.2, 16
ANSWER = '{"reason": "the text names a cause, a time and what makes it worse", "verdict": "yes"}'
WORDS = "the patient says that the pain began two days ago after a long walk and is worse at night "


class Verdict(BaseModel):
    """What the server answers."""

    reason: str
    verdict: Literal["yes", "no"]


def messages(number: int) -> tuple[dict[str, str], ...]:
    """A prompt of 400 tokens by the server's count, unlike all others."""
    text = (WORDS * 22).split()[:380]
    return ({"role": "system", "content": "Judge."}, {"role": "user", "content": f"{number} {' '.join(text)}"})


def bare(url: str, calls: int) -> float:
    """aiohttp and nothing else: calls a second."""
    fields = chat.settings(Endpoint(model="mock", base_url=url), Verdict, "json_schema")

    async def go() -> float:
        numbers = iter(range(calls))
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def worker() -> None:
                for number in numbers:
                    body = {**fields, "messages": messages(number)}
                    async with session.post(f"{url}/chat/completions", json=body) as response:
                        json.loads(await response.read())["choices"][0]["message"]["content"]

            began = time.perf_counter()
            await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
            return calls / (time.perf_counter() - began)

    return asyncio.run(go())


def ours(url: str, calls: int, directory: Path, *, name: str = "spool") -> dict[str, float]:
    """The endpoint layer, as a stage uses it: rate, CPU milliseconds a call, megabytes at its peak."""

    async def go() -> dict[str, float]:
        store = Store(directory / "answers.sqlite")
        endpoint = Endpoint(model="mock", base_url=url, concurrency=IN_FLIGHT, max_tokens=200)
        client = Client(endpoint, store, run=name)
        spool = stage.Spool(directory / f"{name}.jsonl")

        async def ask(number: int) -> dict[str, str]:
            return (await structured.ask(client, messages(number), Verdict, role="judge")).model_dump()

        began, cpu = time.perf_counter(), time.process_time()
        states = await stage.each(range(calls), ask, client, spool, total=calls)
        took, used = time.perf_counter() - began, time.process_time() - cpu
        assert states == {"ok": calls}, states
        spool.close()
        store.close()
        return {"rate": calls / took, "cpu_ms": 1000 * used / calls, "mb": memory()}

    return asyncio.run(go())


def memory() -> float:
    """This process's peak so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def openai_client(url: str, calls: int) -> float | None:
    """The official client at the same concurrency; None where it is not installed."""
    try:
        from openai import AsyncOpenAI
    except ModuleNotFoundError:
        return None
    schema = {"name": "Verdict", "schema": chat.schema_of(Verdict), "strict": True}

    async def go() -> float:
        numbers = iter(range(calls))
        async with AsyncOpenAI(base_url=url, api_key="none", max_retries=2) as client:

            async def worker() -> None:
                for number in numbers:
                    answer = await client.chat.completions.create(
                        model="mock",
                        messages=list(messages(number)),  # type: ignore[arg-type]
                        response_format={"type": "json_schema", "json_schema": schema},  # type: ignore[arg-type]
                        max_tokens=200,
                    )
                    Verdict.model_validate_json(answer.choices[0].message.content or "")

            began = time.perf_counter()
            await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
            return calls / (time.perf_counter() - began)

    return asyncio.run(go())


def threads(url: str, calls: int) -> float:
    """Sixteen threads, one request at a time each."""
    host, path = urlsplit(url).netloc, urlsplit(url).path
    numbers = iter(range(calls))

    def worker(_: int) -> None:
        connection = http.client.HTTPConnection(host)
        for number in numbers:
            body = json.dumps({"model": "mock", "messages": messages(number), "max_tokens": 200})
            connection.request("POST", f"{path}/chat/completions", body, {"Content-Type": "application/json"})
            answer = json.loads(connection.getresponse().read())
            Verdict.model_validate_json(answer["choices"][0]["message"]["content"])
        connection.close()

    began = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(worker, range(THREADS)))
    return calls / (time.perf_counter() - began)


def in_a_process(work: str, *arguments: object) -> dict[str, float]:
    """`work` in a fresh process, so that memory is its own."""
    call = [sys.executable, __file__, "--only", json.dumps([work, *map(str, arguments)])]
    return json.loads(subprocess.run(call, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute: fewer calls")
    parser.add_argument("--calls", type=int, default=30_000)
    parser.add_argument("--flat", type=int, default=100_000, help="calls over which memory must not grow")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    if options.only:
        _, url, calls, directory = json.loads(options.only)
        print(json.dumps(ours(url, int(calls), Path(directory))))
        return
    calls = 10_000 if options.quick else options.calls
    server = subprocess.Popen(
        [sys.executable, "-m", "askwell.mock_endpoint", "--port", "0", "--latency", str(LATENCY), "--json", ANSWER],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    figures: dict[str, float | None] = {}
    try:
        with tempfile.TemporaryDirectory() as folder:
            directory = Path(folder)
            plain = [bare(url, calls)]
            found = ours(url, calls, directory)
            plain.append(bare(url, calls))
            figures["bare_per_s"] = sum(plain) / len(plain)
            figures["askwell_per_s"] = found["rate"]
            figures["share_of_bare"] = found["rate"] / figures["bare_per_s"]
            figures["cpu_ms_per_call"] = found["cpu_ms"]
            figures["cache_answers_per_s"] = ours(url, calls, directory, name="again")["rate"]
            if not options.quick:
                sizes = {}
                for count in (options.flat // 10, options.flat):
                    part = directory / str(count)
                    part.mkdir()
                    sizes[count] = in_a_process("ours", url, count, part)["mb"]
                small, large = sizes.values()
                figures |= {"mb_at_a_tenth": small, "mb_at_all": large}
            others: dict[str, Callable[[], float | None]] = {
                "openai_client": lambda: openai_client(url, calls // 5),
                "16_threads": lambda: threads(url, 400 if options.quick else 1600),
            }
            for name, measure in others.items():
                rate = measure()
                figures[f"{name}_per_s"] = rate
                figures[f"speedup_{name}"] = None if rate is None else found["rate"] / rate
    finally:
        server.terminate()
        server.communicate()
    for name, value in figures.items():
        print(f"{name:>24} {'not installed' if value is None else f'{value:.3f}'}")
    print(json.dumps({name: None if value is None else round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
