"""`askwell evaluate questions`: which system asks the better question at the same contexts?

Draws what each system says (`systems`), writes it to replies.jsonl (ReplySet), lets a judge compare it pair by pair in
both orders (`comparing`), and leaves records.jsonl (Comparison), second.jsonl where there is a second judge, and a
report as JSON, Markdown and a page: win-rates with what stands behind them (`winrates`), strengths over more than two
systems (`strengths`). ALFA, section 5.3, with what its published code lacks: losses are losses, ties are allowed, and
failures, stops and empty replies are unscored. `compat: dropped_losses` shows what the published code would have said.
"""

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from askwell import attributes, endpoints, jsonl, runs
from askwell.attributes import Attribute
from askwell.errors import DataError
from askwell.evaluation import comparing, question_page, question_report, systems
from askwell.evaluation.comparing import Pair
from askwell.llm import prompts
from askwell.llm.client import Client, permit
from askwell.llm.transport import Transport
from askwell.recipes import Endpoint, EvaluateQuestionsRecipe
from askwell.records import Comparison, ReplySet
from askwell.texts import prompt_file

log = logging.getLogger(__name__)


def inputs(recipe: EvaluateQuestionsRecipe) -> list[Path]:
    """What is read and hashed; refuses what cannot be, before anything is drawn or sent."""
    systems.command_of(recipe.input, known=systems.KINDS)
    attributes.load_all(recipe.attributes)
    paths = [recipe.input, prompts.load(comparing.PROMPT).file, *map(attributes.file_of, recipe.attributes)]
    for system in recipe.systems.values():
        if system.run is not None:
            systems.command_of(system.run, known=("ingest", "evaluate turns", "evaluate questions"))
            paths.append(system.run)
        if system.reward_model is not None:
            runs.require(system.reward_model, made_by="askwell train")
            paths.append(system.reward_model)
        if system.prompt:
            paths.append(prompt_file(system.prompt))
        if system.policy and (policy := Path(system.policy)).exists():
            paths.append(policy)
    for endpoint in asked(recipe):
        permit(endpoint, redacted=runs.redacted(recipe.input), what=recipe.input)
        paths += endpoints.inputs(endpoint)
    return paths


def asked(recipe: EvaluateQuestionsRecipe) -> list[Endpoint]:
    """All endpoints to which text goes."""
    of_systems = (system.endpoint for system in recipe.systems.values())
    return [endpoint for endpoint in (recipe.judge, recipe.second_judge, *of_systems) if endpoint is not None]


def plan(recipe: EvaluateQuestionsRecipe) -> dict[str, object]:
    """What will be drawn and judged at most: what stops, is missing or equal is not judged."""
    inputs(recipe)
    sets = systems.contexts(recipe)
    judgements = len(sets) * len(couples(recipe)) * len(recipe.attributes)
    to_draw = sum(len(sets) * system.samples for system in recipe.systems.values() if system.run is None)
    chosen_by_judge = (system for system in recipe.systems.values() if system.reward_model is None)
    choices = sum(len(sets) * (system.samples - 1) for system in chosen_by_judge)
    return {
        "contexts": len(sets),
        "groups": len({row.group for row in sets}),
        "systems": ", ".join(recipe.names),
        "replies to draw": to_draw,
        "comparisons": judgements,
        "calls of the judge at most": 2 * (judgements + choices),
        **({"calls of the second judge at most": 2 * judgements} if recipe.second_judge else {}),
    }


def couples(recipe: EvaluateQuestionsRecipe) -> list[tuple[str, str]]:
    """Who is compared with whom: everybody with the reference, or every two."""
    if recipe.reference:
        return [(name, recipe.reference) for name in recipe.names if name != recipe.reference]
    return list(itertools.combinations(recipe.names, 2))


def run(
    recipe: EvaluateQuestionsRecipe, run: runs.Run, transports: Mapping[str, Transport] | None = None
) -> dict[str, object]:
    """Draw, judge, report; returns counts. `transports` reach endpoints in this process, by `judge`, `second_judge` or
    the system's name."""
    reached = dict(transports or {})
    chosen = attributes.load_all(recipe.attributes)
    file = run.path / "replies.jsonl"
    if not file.exists():
        jsonl.write(file, replies(recipe, chosen[0], run, reached))
    sets = list(jsonl.read(file, ReplySet))
    comparisons = judged(recipe, recipe.judge, "judge", sets, chosen, run, reached)
    jsonl.write(run.records, comparisons)
    second = None
    if recipe.second_judge is not None:
        second = judged(recipe, recipe.second_judge, "second_judge", sets, chosen, run, reached)
        jsonl.write(run.path / "second.jsonl", second)
    log.info("%d comparisons; intervals and report", len(comparisons))
    report = question_report.build(recipe, sets, comparisons, second)
    runs.write_json(run.report, report)
    runs.write_text(run.path / "report.md", question_report.markdown(report, sets, comparisons, recipe))
    runs.write_text(run.path / "report.html", question_page.html(report, sets, comparisons, second, recipe=recipe))
    for spool in run.path.rglob("*spool.jsonl"):
        spool.unlink()
    return report["counts"]


def replies(
    recipe: EvaluateQuestionsRecipe, attribute: Attribute, run: runs.Run, reached: Mapping[str, Transport]
) -> list[ReplySet]:
    """The contexts with what every system says there; of several samples, what its reward model or the judge finds
    best."""
    sets = systems.contexts(recipe)
    drawn = {name: systems.drawn(name, recipe, sets, run, reached.get(name)) for name in recipe.systems}
    said = {name: {id: texts[0] for id, texts in found.samples.items()} for name, found in drawn.items()}
    missing = {name: dict(found.missing) for name, found in drawn.items()}
    choices = [
        (name, row)
        for name, system in recipe.systems.items()
        for row in sets
        if system.samples > 1 and system.reward_model is None and row.id in drawn[name].samples
    ]
    for name, system in recipe.systems.items():
        if system.reward_model is not None:
            from askwell.evaluation.choosing import best_by_reward  # torch

            there = [row for row in sets if row.id in drawn[name].samples]
            samples = [drawn[name].samples[row.id] for row in there]
            for row, texts, place in zip(
                there, samples, best_by_reward(system.reward_model, there, samples), strict=True
            ):
                if place is None:
                    del said[name][row.id]
                    missing[name][row.id] = "too long for the reward model"
                else:
                    said[name][row.id] = texts[place]

    async def work(client: Client, item: tuple[str, ReplySet]) -> int:
        name, row = item
        return await comparing.best(client, row.context, attribute, drawn[name].samples[row.id])

    if choices:
        outcomes = systems.through(
            recipe.judge,
            choices,
            work,
            run,
            name="judge",
            spool="choices.spool.jsonl",
            noun="choices",
            transport=reached.get("judge"),
        )
        for (name, row), outcome in zip(choices, outcomes, strict=True):
            if outcome.state == "ok":
                said[name][row.id] = drawn[name].samples[row.id][outcome.value]
            else:
                del said[name][row.id]
                missing[name][row.id] = f"no choice by the judge: {outcome.state}"
    return systems.with_replies(sets, said, missing)


def pairs(recipe: EvaluateQuestionsRecipe, sets: Sequence[ReplySet], chosen: Sequence[Attribute]) -> Iterator[Pair]:
    """All pairs to compare; those of a context stand together, so that a server reads it once."""
    for row in sets:
        for attribute in chosen:
            for first, second in couples(recipe):
                yield Pair(row, attribute, first, second)


def judged(
    recipe: EvaluateQuestionsRecipe,
    endpoint: Endpoint,
    name: str,
    sets: Sequence[ReplySet],
    chosen: Sequence[Attribute],
    run: runs.Run,
    reached: Mapping[str, Transport],
) -> list[Comparison]:
    """Every pair compared by one judge, in order."""
    everything = list(pairs(recipe, sets, chosen))
    open_pairs = [pair for pair in everything if comparing.settled(pair, recipe.stop_marker) is None]
    if not open_pairs:
        raise DataError(f"{recipe.input}: no pair of questions to judge: replies are missing, stop or are all equal")
    outcomes = iter(
        systems.through(
            endpoint,
            open_pairs,
            comparing.compared,
            run,
            name=name,
            spool="spool.jsonl" if name == "judge" else f"{name}.spool.jsonl",
            noun="comparisons",
            transport=reached.get(name),
        )
    )
    found: list[Comparison] = []
    for pair in everything:
        done = comparing.settled(pair, recipe.stop_marker)
        if done is None:
            outcome = next(outcomes)
            done = comparing.judged(pair, outcome.state, outcome.value if outcome.state == "ok" else {})
        found.append(done)
    return found


def load(directory: Path) -> dict[str, Any]:
    """report.json of a finished run."""
    return question_report.load(directory)
