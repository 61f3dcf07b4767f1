"""A stage in a process that is killed: `python killed_stage.py` reads jobs, one JSON line each, and forks for each.

A job names a directory, an endpoint, how many items there are, and either seconds after which the child is killed with
SIGKILL or a fail-point (the n-th time that it is passed). Answers with the child's exit code, -9 where it was killed.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from llm_examples import Verdict, endpoint_of, question

from askwell import runs
from askwell.errors import AskwellError
from askwell.llm import stage, structured
from askwell.llm.client import Client
from askwell.llm.store import Store
from askwell.llm.transport import Http


def killed_at(owner, name, *, after, counter):
    """Make a method kill its process the n-th time, before or after it has done its work."""
    plain = getattr(owner, name)

    def count():
        counter[0] -= 1
        if counter[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    if name in ("replace", "_commit"):

        def at_once(*arguments):
            if not after:
                count()
            found = plain(*arguments)
            if after:
                count()
            return found

        setattr(owner, name, at_once)
        return

    async def awaited(*arguments):
        if not after:
            count()
        found = await plain(*arguments)
        if after:
            count()
        return found

    setattr(owner, name, awaited)


POINTS = {
    "claim": (Store, "claim"),
    "send": (Http, "send"),
    "settle": (Store, "settle"),
    "commit": (Store, "_commit"),
    "rename": (Path, "replace"),
}


def work(job):
    """The stage: ask about every item, then write the verdicts in order."""
    directory = Path(job["directory"])
    if point := job.get("point"):
        when, name = point.split()
        owner, method = POINTS[name]
        killed_at(owner, method, after=when == "after", counter=[job.get("times", 1)])

    import asyncio

    async def go():
        store = Store(directory / "answers.sqlite")
        client = Client(endpoint_of(base_url=job["url"], concurrency=job["concurrency"]), store, run="run", pause=0.002)
        spool = stage.Spool(directory / "spool.jsonl")

        async def ask(number):
            return (await structured.ask(client, question(number), Verdict, role="judge")).model_dump()

        await stage.each(range(job["items"]), ask, client, spool)
        lines = [json.dumps([outcome.ordinal, outcome.value]) for outcome in spool.in_order()]
        runs.write_text(directory / "records.jsonl", "\n".join(lines) + "\n")

    try:
        asyncio.run(go())
    except AskwellError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def main():
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if not child:
            os._exit(work(job))
        if (seconds := job.get("seconds")) is not None:
            time.sleep(seconds)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
