"""Stages side by side: each as soon as those whose output it reads are finished, in processes of its own.

A small model gains little from a second thread and much from a second process: one thread draws 68 replies a second,
four threads 74, four processes four times 68. Every stage is the command that a person would type, `askwell COMMAND
DIR/recipe.json`, so a study that was cut goes on with the stages that were, and a folder of it can be made by hand.
Last digits of what is trained depend on the threads that a process has, and nothing else on how stages are scheduled.
"""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from askwell import runs
from askwell.errors import StageError
from askwell.recipes import Recipe
from askwell.runs import Stage

log = logging.getLogger(__name__)
LIGHT = ("ingest", "label", "contrast", "synthesize", "merge", "clinic logs", "clinic threads")
"""Commands that take little, on one thread: they take no worker's place, and who waits for them alone runs soon."""
PR_SET_PDEATHSIG = 1
PAUSE = 0.05
"""Seconds between looks at what is running."""


class Step(NamedTuple):
    """One stage of a study: its command and module, its recipe, and why it is there."""

    command: str
    stage: Stage
    recipe: Recipe
    why: str

    @property
    def output(self) -> Path:
        return self.recipe.output


class Running(NamedTuple):
    """A stage at work: its process, the workers' places that it takes, when it began, its last words on stderr."""

    process: "subprocess.Popen[str]"
    places: int
    began: float
    reader: threading.Thread
    said: list[str]


def carry_out(
    steps: Sequence[Step], *, workers: int, root: Path, done: Callable[[Step, float], None] = lambda step, seconds: None
) -> None:
    """Every step that is not finished yet; `done` is told of each and its seconds.

    With one worker in this process, one after another in their order, which is one in which each finds what it reads.
    Raises StageError where a stage fails, once the others that were running are stopped; they resume later.
    """
    owed = [step for step in steps if not finished(step)]
    if workers == 1:
        for step in owed:
            log.info("%s: %s", step.output.relative_to(root), step.why)
            began = time.monotonic()
            runs.ensure(step.stage, step.recipe, step.command)
            done(step, time.monotonic() - began)
        return
    waiting = {step.output: step for step in owed}
    needs = {step.output: needed(step, owed) for step in owed}
    urgency = chains(needs)
    heavy = {step.output: step.command not in LIGHT for step in owed}
    with processes() as running:
        while waiting or running:
            owing = waiting.keys() | running.keys()
            ready = [path for path in waiting if not needs[path] & owing]
            if not ready and not running:
                raise StageError(f"stages wait for one another: {', '.join(map(str, waiting))}")
            room = workers - sum(job.places for job in running.values())
            soon = {path for path in waiting if heavy[path] and not any(map(heavy.get, needs[path] & owing))}
            for path in sorted(ready, key=lambda path: -urgency[path]):
                if not heavy[path]:
                    running[path] = started(waiting.pop(path), root, threads=1, places=0)
                elif room > 0:
                    beside = (soon | {other for other in running if heavy[other]}) - {path}
                    places = places_of(path, beside, urgency, room=room, workers=workers)
                    share = threads(min(workers, len(beside) + 1))
                    running[path] = started(waiting.pop(path), root, threads=share * places, places=places)
                    room -= places
            for path, job in list(running.items()):
                if job.process.poll() is not None:
                    job.reader.join()
                    step = next(step for step in owed if step.output == path)
                    del running[path]
                    if job.process.returncode:
                        raise StageError(failure(step, job))
                    done(step, time.monotonic() - job.began)
                    log.info("%d of %d stages done", len(owed) - len(waiting) - len(running), len(owed))
            time.sleep(PAUSE)


def finished(step: Step) -> bool:
    """Whether a step's output is there, made by its very recipe: `ensure` refuses another's."""
    if not runs.finished(step.output):
        return False
    runs.ensure(step.stage, step.recipe, step.command)
    return True


def needed(step: Step, steps: Sequence[Step]) -> set[Path]:
    """The outputs of other steps that a step reads: those that its recipe names, or that hold what it names."""
    named = [Path(text) for text in strings(step.recipe.model_dump(mode="json", exclude={"output"}))]
    outputs = {other.output for other in steps} - {step.output}
    return {output for output in outputs if any(path == output or output in path.parents for path in named)}


def strings(value: Any) -> Iterator[str]:
    """Every text in nested lists and mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings(part)


def chains(needs: dict[Path, set[Path]]) -> dict[Path, int]:
    """Of each output the length of the longest chain of steps that wait for it: the longest goes first."""
    found: dict[Path, int] = {}

    def length(path: Path) -> int:
        if path not in found:
            found[path] = 0
            found[path] = max((1 + length(other) for other, read in needs.items() if path in read), default=0)
        return found[path]

    return {path: length(path) for path in needs}


def places_of(path: Path, beside: Set[Path], urgency: Mapping[Path, int], *, room: int, workers: int) -> int:
    """How many workers' places a stage takes: two where it alone has the longest chain behind it and half are left to
    others. Beside one other stage it has half of the cores anyway.

    On two threads a stage trains 1.7 times as fast as on one; but on four threads beside three other stages it went
    at two thirds of its speed on one.
    """
    leads = all(urgency[path] > urgency[other] for other in beside)
    return 2 if len(beside) > 1 and leads and room > 1 and workers > 3 else 1


def threads(side_by_side: int) -> int:
    """Threads of each of so many processes."""
    return max(1, cores() // side_by_side)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def started(step: Step, root: Path, *, threads: int, places: int) -> Running:
    """The step's command in a process of its own, its log passed on line by line."""
    name = str(step.output.relative_to(root))
    log.info("%s: %s (threads: %d)", name, step.why, threads)
    recipe = root / "recipes" / f"{name.replace('/', '-')}.json"
    recipe.parent.mkdir(parents=True, exist_ok=True)
    runs.write_json(recipe, runs.resolved(step.recipe, step.command))
    process = subprocess.Popen(
        [sys.executable, "-m", "askwell.cli", *step.command.split(), str(recipe)],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=end_with(os.getpid()) if sys.platform == "linux" else None,
    )
    said: list[str] = []
    assert process.stderr is not None
    reader = threading.Thread(target=pass_on, args=(process.stderr, name, said), daemon=True)
    reader.start()
    return Running(process, places, time.monotonic(), reader, said)


def end_with(parent: int) -> Callable[[], None]:
    """In the child: ask Linux to end it when the study ends, however that comes about."""
    library = ctypes.CDLL(None)

    def ask() -> None:
        library.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return ask


def pass_on(lines: IO[str], name: str, said: list[str]) -> None:
    """A child's log, with the stage's name before each line less its clock; the last lines are kept for an error."""
    with lines:
        for line in lines:
            text = line.rstrip()
            said.append(text)
            del said[:-40]
            clock, _, rest = text.partition(" ")
            log.info("[%s] %s", name, rest if clock.count(":") == 2 else text)


def failure(step: Step, job: Running) -> str:
    """What a failed stage said last, on one line."""
    marker = "askwell: error: "
    words = [text.removeprefix(marker) for text in job.said if text.startswith(marker)] or job.said[-1:]
    code = job.process.returncode
    return f"{step.command} for {step.output}: {' '.join(words) or 'no word'} (exit code {code})"


@contextmanager
def processes() -> Iterator[dict[Path, Running]]:
    """What is running; whatever still is at the end is stopped."""
    running: dict[Path, Running] = {}
    try:
        yield running
    finally:
        for job in running.values():
            job.process.terminate()
        for job in running.values():
            job.process.wait()
            job.reader.join()
