"""`askwell study demo`: the whole way in the simulated clinic, from experts' logs to a page worth looking at.

The stages are those of `studies.clinic`, with three rows and one seed, sampled: logs, ingest, label, base, SFT,
Learn-to-Ask (CISPO), and each policy at logged turns and in interviews. Every folder is a run of a command that can be
repeated by hand. index.html shows what came of it.
"""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from askwell import runs
from askwell.clinic.knowledge import load
from askwell.evaluation import interviews, report
from askwell.interview.clinic import visitors
from askwell.recipes import StudyDemoRecipe
from askwell.runs import Run
from askwell.studies import clinic, curves, page, schedule
from askwell.studies.schedule import Step

log = logging.getLogger(__name__)
ROWS = ("base", "sft", "cispo")
SIZE = clinic.SIZES["small"]


def inputs(recipe: StudyDemoRecipe) -> list[Path]:
    """The clinic's knowledge."""
    return clinic.inputs()


def plan(recipe: StudyDemoRecipe) -> dict[str, object]:
    """The stages in their order."""
    return {f"{step.command} --output {step.recipe.output}": step.why for step in steps(recipe, recipe.output)}


def run(recipe: StudyDemoRecipe, run: Run) -> dict[str, object]:
    """Every stage that is not finished yet, then the page."""
    chain = list(steps(recipe, run.path))
    began = time.monotonic()

    def done(step: Step, seconds: float) -> None:
        run.log(stage=str(step.output.relative_to(run.path)), seconds=round(seconds, 1))

    schedule.carry_out(chain, workers=recipe.workers or schedule.cores(), root=run.path, done=done)
    elapsed = round(time.monotonic() - began)
    cost = {str(step.output.relative_to(run.path)): runs.manifest_of(step.output)["seconds"] for step in chain}
    found = gathered(run.path, recipe.seed)
    runs.write_json(run.report, {**found, "seconds": cost, "elapsed": elapsed})
    curves.draw({"cispo": run.path / "cispo"}, run.path / "rewards.png")
    why = {str(step.output.relative_to(run.path)): step.why for step in chain}
    talks = {row: clinic.interviews_of(run.path, row, recipe.seed, "sampled") for row in ROWS}
    world = load(systems=SIZE.systems)
    cases = [visitor.case for visitor in visitors(world, SIZE.people, seed=recipe.seed, split=clinic.SPLIT)]
    picture = run.path / "rewards.png"
    shown = page.html(found, cost, why, elapsed=elapsed, curve=picture, talks=talks, cases=cases)
    runs.write_text(run.path / "index.html", shown)
    log.info("the page to look at: %s", run.path / "index.html")
    return {"stages": len(cost), "seconds": elapsed, "page": str(run.path / "index.html")}


def steps(recipe: StudyDemoRecipe, root: Path) -> Iterator[Step]:
    """All stages, in an order in which each finds what it reads."""
    size = SIZE._replace(visits=recipe.conversations or SIZE.visits)
    yield from clinic.data_steps(size, root, recipe.seed)
    yield from clinic.policy_steps(size, root, {row: [recipe.seed] for row in ROWS})
    for row in ROWS:
        # The base model never stops: its interviews take longest and say least, a fifth of them will do.
        asked = size._replace(people=max(1, size.people // 5)) if row == "base" else size
        yield from clinic.evaluation_steps(
            asked, root, row, recipe.seed, "sampled", people=recipe.seed, bounds=row == "sft"
        )


def gathered(root: Path, seed: int) -> dict[str, Any]:
    """What the page shows: figures at turns and in interviews, by row."""
    talks = {row: interviews.load(clinic.interviews_of(root, row, seed, "sampled")) for row in ROWS}
    turns = {row: report.load(clinic.turns_of(root, row, seed, "sampled"))["figures"] for row in ROWS}
    return {
        "turns": turns,
        "interviews": {row: found["figures"] for row, found in talks.items()},
        "bounds": talks["sft"]["bounds"],
        "best possible": talks["sft"]["best possible"],
        "everything known": talks["sft"]["everything known"],
    }
