"""`askwell study demo`: the whole way in the simulated clinic, from experts' logs to a page worth looking at.

No weights, no key, no network: the clinic writes the logs, labels them and judges questions as an endpoint would, and
its patients are interviewed at the end. Every folder is a run of a command that can be repeated by hand:

    logs/          experts' conversations, as people have them on file
    conversations/ the same, read and split
    turns/         hindsight: what the expert went on to ask and the person to tell, read by the endpoint
    base/          a language model of whole conversations
    sft/           the expert's next utterance, or the stop marker
    learn_to_ask/  CISPO with Learn-to-Ask's reward, judged by the endpoint
    turns-*/       each at logged turns of held-out conversations
    interviews-*/  each in conversation with patients that no log knows, and the reference asker beside them
"""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from askwell import recipes, runs
from askwell.clinic import logs
from askwell.clinic.knowledge import FOLDER
from askwell.evaluation import interviews, report
from askwell.evaluation import turns as evaluate_turns
from askwell.labelling import extraction
from askwell.recipes import CLINIC, Endpoint, Optimizer, Rollouts, ScratchModel, StudyDemoRecipe
from askwell.runs import Run
from askwell.sources import ingest
from askwell.studies import curves, page, schedule
from askwell.studies.schedule import Step
from askwell.training import grpo, sft

log = logging.getLogger(__name__)
POLICIES = {
    "base": "base: a language model of whole conversations",
    "sft": "SFT: the expert's next utterance, or the stop marker",
    "learn_to_ask": "Learn-to-Ask: CISPO, rewarded by what hindsight says",
}


class Size(NamedTuple):
    """What the demo is made of."""

    scratch: ScratchModel = ScratchModel(vocabulary=1500, hidden=128, layers=3, heads=4)
    base_epochs: float = 4
    sft_epochs: float = 3
    rollout_epochs: float = 1.5
    visitors: int = 300


SIZE = Size()


def inputs(recipe: StudyDemoRecipe) -> list[Path]:
    """The clinic's knowledge."""
    return [FOLDER]


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
    found = gathered(run.path)
    runs.write_json(run.report, {**found, "seconds": cost, "elapsed": elapsed})
    curves.draw({"learn_to_ask": run.path / "learn_to_ask"}, run.path / "rewards.png")
    why = {str(step.output.relative_to(run.path)): step.why for step in chain}
    runs.write_text(run.path / "index.html", page.html(found, cost, why, elapsed=elapsed, root=run.path))
    log.info("the page to look at: %s", run.path / "index.html")
    return {"stages": len(cost), "seconds": elapsed, "page": str(run.path / "index.html")}


def steps(recipe: StudyDemoRecipe, root: Path) -> Iterator[Step]:
    """All stages, in an order in which each finds what it reads."""
    size = SIZE
    yield Step(
        "clinic logs",
        logs,
        recipes.ClinicLogsRecipe(
            conversations=recipe.conversations, skill="mixed", output=root / "logs", seed=recipe.seed
        ),
        "experts of several skills talk with patients: the logs that people have",
    )
    conversations, turns = root / "conversations", root / "turns"
    yield Step(
        "ingest",
        ingest,
        recipes.IngestRecipe(source="chat", input=root / "logs" / "logs.jsonl", output=conversations),
        "the logs are read, checked and split by conversation",
    )
    yield Step(
        "label",
        extraction,
        recipes.LabelRecipe(input=conversations, output=turns, truth="llm", endpoint=endpoint(root)),
        "hindsight: an endpoint reads what the expert went on to ask at each turn, and where it stopped",
    )
    common: dict[str, Any] = {"scratch": size.scratch, "seed": recipe.seed}
    yield Step(
        "train",
        sft,
        recipes.TrainRecipe(
            **common,
            input=conversations,
            output=root / "base" / "0",
            loss="all",
            epochs=size.base_epochs,
            optimizer=Optimizer(learning_rate=2e-3),
        ),
        "a small language model learns English as it is spoken here",
    )
    yield Step(
        "train",
        sft,
        recipes.TrainRecipe(
            **common,
            input=turns,
            model=str(root / "base" / "0" / "checkpoint"),
            output=root / "sft" / "0",
            epochs=size.sft_epochs,
            optimizer=Optimizer(learning_rate=5e-4),
        ),
        "it imitates the experts: the next question, or the stop marker",
    )
    yield Step(
        "train",
        grpo,
        recipes.TrainRecipe(
            **common,
            method="cispo",
            input=turns,
            model=str(root / "sft" / "0" / "checkpoint"),
            output=root / "learn_to_ask" / "0",
            epochs=size.rollout_epochs,
            micro_batch=96,
            rollouts=Rollouts(judge=endpoint(root), turns=96, group=6, updates=2, max_new_tokens=32, scale="none"),
            optimizer=Optimizer(learning_rate=1e-4),
        ),
        "it tries questions of its own, rewarded for what the expert still needed to know and for stopping in time",
    )
    for policy in POLICIES:
        yield from evaluations(recipe, root, policy)


def endpoint(root: Path) -> Endpoint:
    """The clinic, with one store for all stages."""
    return Endpoint(base_url=CLINIC, model="clinic", max_tokens=4096, store=root / "answers.sqlite")


def evaluations(recipe: StudyDemoRecipe, root: Path, policy: str) -> Iterator[Step]:
    """A policy at logged turns and in conversation."""
    checkpoint = str(root / policy / "0" / "checkpoint")
    yield Step(
        "evaluate turns",
        evaluate_turns,
        recipes.EvaluateTurnsRecipe(
            input=root / "turns",
            policy=checkpoint,
            judge=endpoint(root),
            output=root / f"turns-{policy}",
            max_new_tokens=32,
            max_unscored=1.0,
            seed=recipe.seed,
        ),
        f"{policy} at the turns of held-out conversations, in words that no training log used",
    )
    yield Step(
        "evaluate interviews",
        interviews,
        recipes.EvaluateInterviewsRecipe(
            policy=checkpoint,
            cases=SIZE.visitors,
            temperature=1.0,
            max_new_tokens=32,
            output=root / f"interviews-{policy}",
            seed=recipe.seed,
        ),
        f"{policy} interviews patients that no log knows",
    )


def gathered(root: Path) -> dict[str, Any]:
    """What the page shows: figures at turns and in interviews, by policy."""
    talks = {policy: interviews.load(root / f"interviews-{policy}") for policy in POLICIES}
    return {
        "turns": {policy: report.load(root / f"turns-{policy}")["figures"] for policy in POLICIES},
        "interviews": {policy: found["figures"] for policy, found in talks.items()},
        "bounds": talks["learn_to_ask"]["bounds"],
        "everything known": talks["learn_to_ask"]["everything known"],
    }
