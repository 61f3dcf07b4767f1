"""How fast interviews go, against one after the other and against what the endpoint allows.

    python benchmarks/interviews.py [--quick] [--cases 300] [--most 10] [--slots 64]

A server process (askwell.mock_endpoint) answers every call after 200 ms and serves 64 at once. Four roles ask it: the
asker, a patient who picks facts, an abstention rule on a scale of five, and the decision maker, who is asked after
every answer: 42 calls an interview of 10 questions. `one after the other` is measured on two interviews with one call
at a time, and taken times the number of interviews. What the endpoint allows is the larger of calls x latency / slots
and the longest chain of calls in one interview. The last line is JSON: `speedup_sequential` and `times_limit`.
"""

import argparse
import asyncio
import json
import logging
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from askwell import jsonl, recipes, runs
from askwell.evaluation import interviews
from askwell.mock_endpoint import Body, MockEndpoint
from askwell.records import Case, Episode
from askwell.runs import Run

LATENCY = 0.2
CHAIN = 3
"""Calls that wait for one another at each question: rule, asker, patient. What would be decided holds nobody up."""


def answer(body: Body) -> str:
    """What any of the roles says; no interview ends before its last question."""
    text = body["messages"][-1]["content"]
    name = body.get("response_format", {}).get("json_schema", {}).get("name")
    if name == "Opinion":
        return json.dumps({"choice": "B", "confidence": 0.4})
    if name == "Scale":
        return json.dumps({"confidence": "unconfident"})
    if name == "Picked":
        return json.dumps({"facts": re.findall(r'"(fact \d+ [^"]*)"', text)[:1]})
    return f"What about matter {len(body['messages'])}?"


def serve(slots: int) -> None:
    """The server: prints its address and serves until it is ended."""

    async def go() -> None:
        async with MockEndpoint(answer, latency=LATENCY, slots=slots).serve() as url:
            print(url, flush=True)
            await asyncio.Event().wait()

    asyncio.run(go())


def cases_in(folder: Path, count: int) -> Path:
    """A finished run of `askwell cases read`."""
    recipe = recipes.CasesReadRecipe(input=Path("none"), output=folder / f"cases-{count}")
    made = [
        Case(
            id=f"case {number}",
            group=f"case {number}",
            split="test",
            initial_information=f"Person {number} has come with a complaint that began some days ago.",
            facts=tuple(f"fact {place} of person {number}, as it stands in the record" for place in range(15)),
            inquiry="What is behind it?",
            options={"A": "this", "B": "that", "C": "something else", "D": "nothing"},
            answer="B",
        )
        for number in range(count)
    ]
    with runs.start(recipe, "cases read") as run:
        jsonl.write(run.records, made)
        run.finish({})
    return recipe.output


def held(url: str, cases: Path, output: Path, *, most: int, concurrency: int) -> tuple[float, list[Episode]]:
    """Seconds of a whole run, reports included, and its interviews."""
    endpoint = recipes.Endpoint(base_url=url, model="mock", concurrency=concurrency, structured="json_schema")
    recipe = recipes.EvaluateInterviewsRecipe(
        cases=str(cases),
        output=output,
        asker=endpoint,
        decision=endpoint,
        patient=recipes.Patient(kind="facts", endpoint=endpoint),
        abstention=recipes.Abstention(rule="scale"),
        most=most,
        bounds=False,
    )
    output.mkdir(parents=True)
    run = Run(output, resumed=False)
    began = time.perf_counter()
    interviews.run(recipe, run)
    took = time.perf_counter() - began
    return took, list(jsonl.read(run.records, Episode))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute: shorter interviews one after the other")
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--most", type=int, default=10)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.slots)
        return
    logging.basicConfig(level=logging.WARNING)
    if options.quick:
        options.most = 5
    call = [sys.executable, __file__, "--serve", "--slots", str(options.slots)]
    server = subprocess.Popen(call, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    try:
        with tempfile.TemporaryDirectory() as folder:
            directory, most = Path(folder), options.most
            few = 1 if options.quick else 2
            slow, _ = held(url, cases_in(directory, few), directory / "slow" / "run", most=most, concurrency=1)
            many = cases_in(directory, options.cases)
            took, episodes = held(url, many, directory / "fast" / "run", most=most, concurrency=options.slots)
    finally:
        server.terminate()
        server.communicate()
    questions = sum(len(episode.exchanges) for episode in episodes)
    calls = sum(used.calls for episode in episodes for used in episode.usage.values())
    assert len(episodes) == options.cases and questions == options.cases * most
    sequential = slow / few * options.cases
    limit = max(calls * LATENCY / options.slots, (CHAIN * most + 1) * LATENCY)
    figures = {
        "interviews": options.cases,
        "questions": questions,
        "calls": calls,
        "seconds": took,
        "seconds_one_after_the_other": sequential,
        "seconds_that_the_endpoint_allows": limit,
        "speedup_sequential": sequential / took,
        "times_limit": took / limit,
    }
    for name, value in figures.items():
        print(f"{name:>34} {value:.2f}")
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
