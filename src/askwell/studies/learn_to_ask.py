"""`askwell study learn-to-ask`: Learn-to-Ask's table on real dialogues with exact truth, from raw data to report.

With `--data clinic` it takes place in the simulated clinic (`studies.clinic`). Else the data is the Schema-Guided
Dialogue corpus, whose annotated acts say at every turn what the expert still went on to find out and when it stopped
asking. Policies see the `train` folder's training split alone and are evaluated on its test split, and, as out of
distribution, on the `dev` folder, more than half of whose dialogues are about services that no policy has seen.

    data/          ingest train and dev, label both
    graders/       reward: one kind of model, five eighths of the dialogues; judge: another kind, the other three
    reader/        a language model of dev's dialogues, which no policy has seen: how likely does it find a question?
    contrast/      question sets for dpo: what the expert did against utterances irrelevant to the dialogue
    base/ sft/ ... the rows, a folder a seed; sft starts from base, the others from sft
    evaluation/    each policy on each set, sampled at temperature 1 and greedily, by the judge

Every folder is a run of a command and can be made, repeated or resumed by hand; stages that do not wait for one another
run side by side (`studies.schedule`). Started again after a cut, the study goes on with the stages that were cut.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from askwell import recipes, runs
from askwell.errors import DataError
from askwell.evaluation import report
from askwell.evaluation import turns as evaluate_turns
from askwell.evaluation.metrics import differences, figures
from askwell.grading import fit
from askwell.labelling import contrast, hindsight
from askwell.recipes import Optimizer, Reward, Rollouts, ScratchModel, StudyRecipe
from askwell.records import Conversation, Grade, Turn
from askwell.runs import Run
from askwell.sources import ingest
from askwell.studies import clinic, curves, schedule
from askwell.studies.rows import DECODING, MODES, ROLLED, ROWS, method_of, seeds_of
from askwell.studies.schedule import Step
from askwell.training import dpo, grpo, sft

log = logging.getLogger(__name__)


class Budget(NamedTuple):
    """What a budget buys."""

    conversations: int | None
    """Training dialogues; None: all."""
    scratch: ScratchModel
    base_epochs: float
    sft_epochs: float
    dpo_epochs: float
    rollout_epochs: float
    evaluated: int
    """Dialogues of each evaluation."""


BUDGETS = {
    "small": Budget(1500, ScratchModel(vocabulary=2048, hidden=128, layers=3, heads=4), 3, 3, 0.5, 0.6, 100),
    "full": Budget(None, ScratchModel(vocabulary=2048, hidden=128, layers=4, heads=4), 2, 3, 0.5, 3, 1000),
}
SETS = {"test": "held-out dialogues of the training services", "dev": "out of distribution: the dev folder"}


def inputs(recipe: StudyRecipe) -> list[Path]:
    """The data's two folders, or the clinic's knowledge."""
    if in_clinic(recipe):
        return clinic.inputs()
    for folder in ("train", "dev"):
        if not (recipe.data / folder).is_dir():
            raise DataError(
                f"{recipe.data}: no folder {folder!r} in it; --data names a copy of the Schema-Guided Dialogue data "
                "with dialogues_*.json in `train` and `dev`, or `clinic`"
            )
    return [recipe.data / "train", recipe.data / "dev"]


def in_clinic(recipe: StudyRecipe) -> bool:
    """Whether the study takes place in the simulated clinic."""
    return recipe.data == Path("clinic")


def plan(recipe: StudyRecipe) -> dict[str, object]:
    """The stages in their order."""
    inputs(recipe)
    return {f"{step.command} --output {step.recipe.output}": step.why for step in steps(recipe, recipe.output)}


def run(recipe: StudyRecipe, run: Run) -> dict[str, object]:
    """Every stage that is not finished yet, then the table."""
    chain = list(steps(recipe, run.path))
    began = time.monotonic()

    def done(step: Step, seconds: float) -> None:
        run.log(stage=str(step.output.relative_to(run.path)), seconds=round(seconds, 1))

    schedule.carry_out(chain, workers=workers(recipe), root=run.path, done=done)
    elapsed = round(time.monotonic() - began)
    cost = {str(step.output.relative_to(run.path)): runs.manifest_of(step.output)["seconds"] for step in chain}
    drawn = curves.draw({row: run.path / row for row in recipe.rows if row in ROLLED}, run.path / "rewards.png")
    if in_clinic(recipe):
        found = clinic.tables(recipe, run.path)
        page = clinic.markdown(recipe, found, cost, plot=drawn)
    else:
        tables = {name: rows_of(recipe, run.path, name) for name in SETS}
        gains = {name: against_sft(recipe, run.path, name) for name in SETS}
        found = {"tables": tables, "against sft": gains}
        page = markdown(recipe, run.path, tables, gains, cost, plot=drawn)
    runs.write_json(run.report, {**found, "seconds": cost, "elapsed": elapsed})
    runs.write_text(run.path / "report.md", page)
    return {"stages": len(cost), "seconds_of_stages": round(sum(cost.values())), "seconds": elapsed}


def workers(recipe: StudyRecipe) -> int:
    """Stages side by side."""
    return recipe.workers or (1 if Path("/dev/nvidia0").exists() else schedule.cores())


def steps(recipe: StudyRecipe, root: Path) -> Iterator[Step]:
    """All stages of the study, in an order in which each finds what it reads."""
    if in_clinic(recipe):
        yield from clinic.steps(recipe, root)
        return
    yield from data_steps(recipe, root)
    yield from grader_steps(root)
    yield from policy_steps(recipe, root)
    for row in recipe.rows:
        for seed in seeds_of(recipe, row):
            yield from evaluation_steps(recipe, root, row, seed)


def data_steps(recipe: StudyRecipe, root: Path) -> Iterator[Step]:
    """Conversations and turns of both folders."""
    for folder in ("train", "dev"):
        conversations = root / "data" / f"{folder}-conversations"
        yield Step(
            "ingest",
            ingest,
            recipes.IngestRecipe(source="sgd", input=recipe.data / folder, output=conversations),
            f"the dialogues of {folder}, split by dialogue",
        )
        yield Step(
            "label",
            hindsight,
            recipes.LabelRecipe(input=conversations, output=root / "data" / f"{folder}-turns"),
            "hindsight: what the expert still went on to ask at each turn, and where it stopped",
        )


def grader_steps(root: Path) -> Iterator[Step]:
    """Two graders of different kinds, fitted on different dialogues."""
    train, dev = root / "data" / "train-conversations", root / "data" / "dev-conversations"
    yield Step(
        "grader",
        fit,
        recipes.GraderRecipe(input=(train, dev), kind="linear", fold="0-4/8", output=root / "graders" / "reward"),
        "the grader that will reward: reads the slots that a question asks for",
    )
    yield Step(
        "grader",
        fit,
        recipes.GraderRecipe(input=(train, dev), kind="convolutional", fold="5-7/8", output=root / "graders" / "judge"),
        "the grader that evaluates: another kind of model, fitted on other dialogues",
    )


def policy_steps(recipe: StudyRecipe, root: Path) -> Iterator[Step]:
    """The reader, the base models and the policies trained from them."""
    budget, data = BUDGETS[recipe.budget], root / "data"
    common: dict[str, Any] = {"scratch": budget.scratch, "limit": budget.conversations}
    reader = {**common, "seed": recipe.seed + 1000}
    yield Step(
        "train",
        sft,
        base_recipe(data / "dev-conversations", root / "reader", budget.base_epochs / 2, reader),
        "a language model that no policy has seen, to read what they ask",
    )
    seeds = sorted({seed for row in recipe.rows for seed in seeds_of(recipe, row)})
    for seed in seeds:
        output = root / "base" / str(seed)
        trained = base_recipe(data / "train-conversations", output, budget.base_epochs, {**common, "seed": seed})
        yield Step("train", sft, trained, ROWS["base"])
        if set(recipe.rows) - {"base"}:
            yield Step("train", sft, sft_recipe(recipe, root, {**common, "seed": seed}), ROWS["sft"])
    if "dpo" in recipe.rows:
        question_sets = recipes.ContrastRecipe(input=data / "train-turns", output=root / "contrast", seed=recipe.seed)
        yield Step("contrast", contrast, question_sets, "the expert's choice against irrelevant utterances")
        for seed in seeds_of(recipe, "dpo"):
            yield Step("train", dpo, dpo_recipe(recipe, root, {**common, "seed": seed}), ROWS["dpo"])
    for row in recipe.rows:
        if row in ROLLED:
            for seed in seeds_of(recipe, row):
                yield Step("train", grpo, rollout_recipe(recipe, root, row, {**common, "seed": seed}), ROWS[row])


def base_recipe(data: Path, output: Path, epochs: float, common: Mapping[str, Any]) -> recipes.TrainRecipe:
    """A language model of whole dialogues."""
    return recipes.TrainRecipe(
        **common,
        input=data,
        output=output,
        loss="all",
        epochs=epochs,
        batch=16,
        micro_batch=16,
        optimizer=Optimizer(learning_rate=2e-3),
    )


def sft_recipe(recipe: StudyRecipe, root: Path, common: Mapping[str, Any]) -> recipes.TrainRecipe:
    """Supervised fine-tuning of the base model of a seed."""
    return recipes.TrainRecipe(
        **common,
        input=root / "data" / "train-turns",
        model=str(root / "base" / str(common["seed"]) / "checkpoint"),
        output=root / "sft" / str(common["seed"]),
        epochs=BUDGETS[recipe.budget].sft_epochs,
        batch=16,
        optimizer=Optimizer(learning_rate=5e-4),
    )


def dpo_recipe(recipe: StudyRecipe, root: Path, common: Mapping[str, Any]) -> recipes.TrainRecipe:
    """Preferences, from the SFT policy of a seed."""
    return recipes.TrainRecipe(
        **common,
        method="dpo",
        input=root / "contrast",
        model=str(root / "sft" / str(common["seed"]) / "checkpoint"),
        output=root / "dpo" / str(common["seed"]),
        epochs=BUDGETS[recipe.budget].dpo_epochs,
        batch=48,
        micro_batch=48,
        optimizer=Optimizer(learning_rate=5e-5),
    )


def rollout_recipe(recipe: StudyRecipe, root: Path, row: str, common: Mapping[str, Any]) -> recipes.TrainRecipe:
    """Learn-to-Ask and its ablations, from the SFT policy of a seed. docs/LOG.md says how the settings were found."""
    return recipes.TrainRecipe(
        **common,
        method=method_of(row),
        input=root / "data" / "train-turns",
        model=str(root / "sft" / str(common["seed"]) / "checkpoint"),
        output=root / row / str(common["seed"]),
        epochs=BUDGETS[recipe.budget].rollout_epochs,
        micro_batch=96,
        rollouts=Rollouts(
            grader=root / "graders" / "reward",
            turns=96,
            group=6,
            updates=2,
            max_new_tokens=32,
            scale="none",
            reward=Reward(mode=MODES.get(row, "both")),
        ),
        optimizer=Optimizer(learning_rate=1e-4),
    )


def evaluation_steps(recipe: StudyRecipe, root: Path, row: str, seed: int) -> Iterator[Step]:
    """One policy on both sets, sampled and greedily."""
    for name in SETS:
        folder = "train" if name == "test" else "dev"
        for decoding, temperature in DECODING.items():
            evaluation = recipes.EvaluateTurnsRecipe(
                input=root / "data" / f"{folder}-turns",
                policy=str(root / row / str(seed) / "checkpoint"),
                grader=root / "graders" / "judge",
                second_grader=root / "graders" / "reward",
                reader=str(root / "reader" / "checkpoint"),
                output=evaluation_of(root, row, seed, name, decoding),
                limit=BUDGETS[recipe.budget].evaluated,
                temperature=temperature,
                seed=seed,
                # A row that speaks so badly that the judge abstains belongs in the table, with its unscored share.
                max_unscored=1.0,
            )
            yield Step("evaluate turns", evaluate_turns, evaluation, f"{row} on {SETS[name]}, {decoding}")


def evaluation_of(root: Path, row: str, seed: int, name: str, decoding: str) -> Path:
    """Where an evaluation stands."""
    return root / "evaluation" / f"{row}-{seed}-{name}-{decoding}"


def rows_of(recipe: StudyRecipe, root: Path, name: str) -> dict[str, Any]:
    """The rows of one table: {title: figures}, all seeds of a row pooled; on dev also its unseen services alone."""
    rows: dict[str, Any] = {}
    folder = "train" if name == "test" else "dev"
    turns = list(runs.records_of(root / "data" / f"{folder}-turns", Turn, made_by="askwell label"))
    unseen = services(root, "dev") - services(root, "train") if name == "dev" else set()
    for decoding in DECODING:
        for row in recipe.rows:
            grades = list(pooled(recipe, root, row, name, decoding))
            rows[f"{row}, {decoding}"] = report.as_json(figures(turns, grades, seed=recipe.seed))
            if unseen:
                there = {turn.id for turn in turns if turn.service in unseen}
                grades = [grade for grade in grades if grade.turn_id in there]
                rows[f"{row}, {decoding}, unseen services"] = report.as_json(figures(turns, grades, seed=recipe.seed))
    first = report.load(evaluation_of(root, recipe.rows[0], recipe.seed, name, "greedy"))
    rows["the expert, by this grader"] = first["expert"]
    return rows


def against_sft(recipe: StudyRecipe, root: Path, name: str) -> dict[str, Any]:
    """What each row that starts from SFT has over it: differences paired by dialogue, all seeds of a row pooled."""
    folder = "train" if name == "test" else "dev"
    turns = list(runs.records_of(root / "data" / f"{folder}-turns", Turn, made_by="askwell label"))
    found: dict[str, Any] = {}
    for decoding in DECODING:
        sft_grades = list(pooled(recipe, root, "sft", name, decoding)) if "sft" in recipe.rows else []
        for row in recipe.rows:
            if sft_grades and row not in ("base", "sft"):
                grades = pooled(recipe, root, row, name, decoding)
                found[f"{row}, {decoding}"] = report.as_json(differences(turns, grades, sft_grades, seed=recipe.seed))
    return found


def pooled(recipe: StudyRecipe, root: Path, row: str, name: str, decoding: str) -> Iterator[Grade]:
    """The grades of a row over all seeds; the replies of another seed are further samples of the same turns."""
    for number, seed in enumerate(seeds_of(recipe, row)):
        path = evaluation_of(root, row, seed, name, decoding)
        for grade in runs.records_of(path, Grade, made_by="askwell evaluate turns"):
            yield grade.model_copy(update={"sample": grade.sample + 1000 * number})


def services(root: Path, folder: str) -> set[str]:
    """The services of a folder's conversations."""
    records = runs.records_of(root / "data" / f"{folder}-conversations", Conversation, made_by="askwell ingest")
    return {act.service for conversation in records for message in conversation.messages for act in message.acts}


def markdown(
    recipe: StudyRecipe,
    root: Path,
    tables: Mapping[str, Any],
    gains: Mapping[str, Any],
    cost: Mapping[str, float],
    *,
    plot: bool,
) -> str:
    """report.md."""
    seeds = ", ".join(f"{row} {len(seeds_of(recipe, row))}" for row in recipe.rows)
    parts = [
        "# Learn-to-Ask on real dialogues\n",
        f"Schema-Guided Dialogue (CC BY-SA 4.0), budget {recipe.budget}; seeds: {seeds}. Exact truth from the "
        "annotated acts; questions read by a grader fitted on experts' questions. Intervals: 95 %, bootstrap over "
        "dialogues.\n",
        *(f"* {ROWS[row]}" for row in recipe.rows),
        "",
    ]
    for name, rows in tables.items():
        parts += [f"## {name}: {SETS[name]}\n", report.table(rows), ""]
        if gains[name]:
            parts += ["What each has over SFT, paired by dialogue:\n", report.table(gains[name]), ""]
    if plot:
        parts += ["## Reward while training\n", "![mean reward of rollouts by step](rewards.png)\n"]
    parts += ["## Does a policy please its readers?\n", second_opinions(recipe, root), ""]
    parts += ["## Cost\n", "| stage | seconds |\n|---|---|"]
    parts += [f"| {stage} | {seconds:.0f} |" for stage, seconds in cost.items()]
    last = evaluation_of(root, recipe.rows[-1], recipe.seed, "test", "sampled")
    shown = (last / "report.md").read_text(encoding="utf-8").partition("\n## Sampled turns")
    parts += [f"\n## Sampled turns ({recipe.rows[-1]}, test, sampled)", shown[2].partition("\n")[2]]
    return "\n".join(parts)


def second_opinions(recipe: StudyRecipe, root: Path) -> str:
    """Agreement of the graders, perplexity under the reader and variety, a line an evaluation."""
    lines = [
        "| | equal slots, both graders | perplexity | the experts' | distinct questions | the experts' |",
        "|---|---|---|---|---|---|",
    ]
    for name in SETS:
        for decoding in DECODING:
            for row in recipe.rows:
                found = report.load(evaluation_of(root, row, recipe.seed, name, decoding))
                cells = [
                    found["agreement"]["equal_sets"],
                    found["reader"]["policy"],
                    found["reader"]["expert"],
                    found["figures"]["distinct"],
                    found["expert"]["distinct"],
                ]
                lines.append(f"| {row}, {name}, {decoding} | {' | '.join(map(report.cell, cells))} |")
    return "\n".join(lines)
