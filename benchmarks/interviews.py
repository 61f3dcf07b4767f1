"""How fast interviews go, against one after the other and against what the endpoint allows, and the memory they take.

    python benchmarks/interviews.py [--quick] [--cases 300] [--most 10] [--slots 64]

A server process (askwell.mock_endpoint) answers every call after 200 ms and serves 64 at once. Four roles ask it: the
asker, a patient who picks facts, an abstention rule on a scale of five, and the decision maker, who is asked after
every answer: 42 calls an interview of 10 questions. `one after the other` is measured on two interviews with one call
at a time, and taken times the number of interviews. What the endpoint allows is the larger of calls x latency / slots
and the longest chain of calls in one interview.

Memory: the peak of whole runs over 300, 3,000 and 12,000 cases of two questions, each in a process of its own, with a
server that answers at once; beside it what a process holds that has read those cases and episodes and nothing else.
What the first grows by beyond the second from 3,000 cases to 12,000 is `memory_beyond_episodes`, in MiB a thousand
cases. Below that it grows to its level: up to 1,024 interviews are held at once, and resamples for intervals take up to
50 MiB. `--quick` measures 300 cases alone.

The last line is JSON: `speedup_sequential`, `times_limit` and the memory's figures.
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from askwell import jsonl, recipes, runs
from askwell.evaluation import interviews
from askwell.mock_endpoint import Body, MockEndpoint
from askwell.records import Case, Episode
from askwell.runs import Run

LATENCY = 0.2
FILES = (("cases.jsonl", Case), ("records.jsonl", Episode))
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


def serve(slots: int, latency: float) -> None:
    """The server: prints its address and serves until it is ended."""

    async def go() -> None:
        async with MockEndpoint(answer, latency=latency, slots=slots).serve() as url:
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


@contextmanager
def served(slots: int, latency: float) -> Iterator[str]:
    """The address of a server in a process of its own."""
    call = [sys.executable, __file__, "--serve", str(latency), "--slots", str(slots)]
    server = subprocess.Popen(call, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        yield server.stdout.readline().strip()
    finally:
        server.terminate()
        server.communicate()


def resident(most: bool = False) -> float:
    """MiB that this process holds, or has held at most since `forget_peak`."""
    name = "VmHWM" if most else "VmRSS"
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{name}:")[1].split()[0]) / 1024


def forget_peak() -> None:
    """What modules took while they were imported is no part of a run."""
    Path("/proc/self/clear_refs").write_text("5")


def memory(counts: list[int], *, slots: int, most: int = 2) -> dict[str, float]:
    """Peaks of runs over so many cases, and what the cases and episodes alone take."""
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, served(slots, 0.0) as url:
        for count in counts:
            path = Path(folder) / str(count)
            for what, given in (("run", [url, str(count), str(slots), str(most)]), ("episodes", [])):
                call = [sys.executable, __file__, f"--memory-of-{what}", str(path), *given]
                text = subprocess.run(call, check=True, capture_output=True, text=True).stdout
                found[f"mib_{what}_{count}"] = float(text)
    if len(counts) > 2:
        *_, least, largest = counts
        run, alone = (found[f"mib_{what}_{largest}"] - found[f"mib_{what}_{least}"] for what in ("run", "episodes"))
        found["memory_beyond_episodes"] = 1000 * (run - alone) / (largest - least)
    return found


def memory_of_run(folder: Path, url: str, count: str, slots: str, most: str) -> float:
    """The peak of a whole run, in this process."""
    folder.mkdir()
    cases = cases_in(folder, int(count))
    forget_peak()
    held(url, cases, folder / "out" / "run", most=int(most), concurrency=int(slots))
    return resident(most=True)


def memory_of_episodes(folder: Path) -> float:
    """What this process holds with the cases and episodes that a run left."""
    kept = [list(jsonl.read(folder / "out" / "run" / name, kind)) for name, kind in FILES]
    assert len(kept[0]) == len(kept[1])
    return resident()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute: shorter interviews one after the other")
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--most", type=int, default=10)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--memory-of-run", nargs=5, help=argparse.SUPPRESS)
    parser.add_argument("--memory-of-episodes", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        serve(options.slots, options.serve)
        return
    if options.memory_of_run:
        folder, *given = options.memory_of_run
        print(memory_of_run(Path(folder), *given))
        return
    if options.memory_of_episodes:
        print(memory_of_episodes(options.memory_of_episodes))
        return
    logging.basicConfig(level=logging.WARNING)
    if options.quick:
        options.most = 5
    with served(options.slots, LATENCY) as url, tempfile.TemporaryDirectory() as folder:
        directory, most = Path(folder), options.most
        few = 1 if options.quick else 2
        slow, _ = held(url, cases_in(directory, few), directory / "slow" / "run", most=most, concurrency=1)
        many = cases_in(directory, options.cases)
        took, episodes = held(url, many, directory / "fast" / "run", most=most, concurrency=options.slots)
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
        **memory([300] if options.quick else [300, 3000, 12000], slots=options.slots),
    }
    for name, value in figures.items():
        print(f"{name:>34} {value:.2f}")
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
