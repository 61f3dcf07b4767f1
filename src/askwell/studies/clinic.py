"""Learn-to-Ask's table in the simulated clinic: `askwell study learn-to-ask --data clinic`, and the stages of the demo.

Experts' logs, labelled by an endpoint, train the rows; each is evaluated at logged turns of held-out conversations and,
which the paper lacks, in interviews with people whom no log knows, beside the reference asker. The clinic writes the
logs, labels, rewards and judges: no weights, no key, no network. It is small: a few body systems, so that a policy of a
million parameters can learn what there is to know within minutes.

    logs/ conversations/ turns/    what experts said; the same, read and split; hindsight
    contrast/                      question sets for dpo
    base/ sft/ ...                 the rows, a folder a seed; sft starts from base, the others from sft
    evaluation/                    ROW-SEED-turns-DECODING and ROW-SEED-interviews-DECODING
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from askwell import recipes, runs
from askwell.clinic import logs
from askwell.clinic.knowledge import FOLDER, load
from askwell.evaluation import interviews, report
from askwell.evaluation import turns as evaluate_turns
from askwell.evaluation.metrics import differences, figures
from askwell.interview.clinic import visitors
from askwell.labelling import contrast, extraction
from askwell.recipes import CLINIC, Endpoint, Optimizer, Reward, Rollouts, ScratchModel, StudyRecipe
from askwell.records import Episode, Grade, Turn
from askwell.sources import ingest
from askwell.statistics import difference_interval
from askwell.studies import ladder
from askwell.studies.ladder import RANDOM, Talks, row_of
from askwell.studies.rows import DECODING, MODES, ROLLED, ROWS, method_of, seeds_of
from askwell.studies.schedule import Step
from askwell.training import dpo, grpo, sft

SPLIT = "dev"
"""Whom the rows are evaluated on: people whom no log for training knows, in words that some have used. In `test` every
wording is new, which no policy can know that never read a text from elsewhere."""
LONGEST = 32
"""Tokens of a reply."""
MOST = 12
"""Questions after which an interview ends."""


LADDER = ((RANDOM, ("sft",)), ("sft", ("dpo", *ROLLED)))
"""Who should diagnose worse after as many questions, and than whom."""


class Size(NamedTuple):
    """What a study in the clinic is made of."""

    visits: int
    scratch: ScratchModel
    base_epochs: float
    sft_epochs: float
    dpo_epochs: float
    rollout_epochs: float
    people: int
    """Interviews of each evaluation."""
    systems: tuple[str, ...] = ("respiratory",)
    skill: Any = "average"
    question_cost: float = 1.2
    """Without it a policy that is unsure goes on asking: four turns in five are turns to ask at."""


SMALL = ScratchModel(vocabulary=1500, hidden=128, layers=3, heads=4)
SIZES = {"small": Size(4000, SMALL, 1.25, 1.5, 0.5, 0.3, 1500), "full": Size(6000, SMALL, 1.25, 1.5, 0.5, 0.4, 1500)}


def inputs() -> list[Path]:
    """The clinic's knowledge."""
    return [FOLDER]


def steps(recipe: StudyRecipe, root: Path) -> Iterator[Step]:
    """All stages of the study, in an order in which each finds what it reads."""
    size = SIZES[recipe.budget]
    yield from data_steps(size, root, recipe.seed)
    yield from policy_steps(size, root, {row: seeds_of(recipe, row) for row in recipe.rows})
    for row in recipe.rows:
        for seed in seeds_of(recipe, row):
            for decoding in DECODING:
                bounds = (row, seed, decoding) == (recipe.rows[0], recipe.seed, "sampled")
                yield from evaluation_steps(size, root, row, seed, decoding, people=recipe.seed, bounds=bounds)
    yield interview_step(size, root, RANDOM, recipe.seed, "sampled", people=recipe.seed)


def data_steps(size: Size, root: Path, seed: int) -> Iterator[Step]:
    """Experts' logs to turns with hindsight."""
    conversations = root / "conversations"
    visits = recipes.ClinicLogsRecipe(
        conversations=size.visits, skill=size.skill, systems=size.systems, output=root / "logs", seed=seed
    )
    yield from talk_steps(visits, conversations, "experts talk with patients: the logs that people have")
    yield Step(
        "label",
        extraction,
        recipes.LabelRecipe(input=conversations, output=root / "turns", truth="llm", endpoint=endpoint(root)),
        "hindsight: an endpoint reads what the expert went on to ask at each turn, and where it stopped",
    )


def talk_steps(talk: recipes.ClinicLogsRecipe, conversations: Path, why: str) -> Iterator[Step]:
    """Talk in the clinic, and its conversations as records."""
    yield Step("clinic logs", logs, talk, why)
    yield Step(
        "ingest",
        ingest,
        recipes.IngestRecipe(source="chat", input=talk.output / "logs.jsonl", output=conversations),
        "the logs are read, checked and split by conversation",
    )


def endpoint(root: Path) -> Endpoint:
    """The clinic, with one store for all stages."""
    return Endpoint(base_url=CLINIC, model="clinic", max_tokens=4096, store=root / "answers.sqlite")


def policy_steps(size: Size, root: Path, seeds: Mapping[str, Sequence[int]]) -> Iterator[Step]:
    """The rows' training runs: `seeds` maps each row to its own."""
    for seed in sorted({seed for row in seeds.values() for seed in row}):
        yield Step("train", sft, base_recipe(size, root, seed), "a small language model learns how people talk here")
        if set(seeds) - {"base"}:
            yield Step(
                "train", sft, sft_recipe(size, root, seed), "it imitates the experts: their next question or stop"
            )
    if "dpo" in seeds:
        question_sets = recipes.ContrastRecipe(input=root / "turns", output=root / "contrast", seed=min(seeds["dpo"]))
        yield Step("contrast", contrast, question_sets, "the expert's choice against utterances of other conversations")
        for seed in seeds["dpo"]:
            yield Step("train", dpo, dpo_recipe(size, root, seed), ROWS["dpo"])
    for row in seeds:
        if row in ROLLED:
            for seed in seeds[row]:
                yield Step("train", grpo, rollout_recipe(size, root, row, seed), f"questions of its own, {ROWS[row]}")


def base_recipe(size: Size, root: Path, seed: int) -> recipes.TrainRecipe:
    """A language model of whole conversations."""
    return recipes.TrainRecipe(
        scratch=size.scratch,
        seed=seed,
        input=root / "conversations",
        output=root / "base" / str(seed),
        loss="all",
        epochs=size.base_epochs,
        optimizer=Optimizer(learning_rate=3e-3),
    )


def sft_recipe(size: Size, root: Path, seed: int) -> recipes.TrainRecipe:
    """Supervised fine-tuning of the base model of a seed."""
    return recipes.TrainRecipe(
        scratch=size.scratch,
        seed=seed,
        input=root / "turns",
        model=str(root / "base" / str(seed) / "checkpoint"),
        output=root / "sft" / str(seed),
        epochs=size.sft_epochs,
        optimizer=Optimizer(learning_rate=1e-3),
    )


def dpo_recipe(size: Size, root: Path, seed: int) -> recipes.TrainRecipe:
    """Preferences, from the SFT policy of a seed."""
    return recipes.TrainRecipe(
        scratch=size.scratch,
        seed=seed,
        method="dpo",
        input=root / "contrast",
        model=str(root / "sft" / str(seed) / "checkpoint"),
        output=root / "dpo" / str(seed),
        epochs=size.dpo_epochs,
        batch=48,
        micro_batch=48,
        optimizer=Optimizer(learning_rate=5e-5),
    )


def rollout_recipe(size: Size, root: Path, row: str, seed: int) -> recipes.TrainRecipe:
    """Learn-to-Ask or one of its ablations, from the SFT policy of a seed, judged by the endpoint."""
    return recipes.TrainRecipe(
        scratch=size.scratch,
        seed=seed,
        method=method_of(row),
        input=root / "turns",
        model=str(root / "sft" / str(seed) / "checkpoint"),
        output=root / row / str(seed),
        epochs=size.rollout_epochs,
        micro_batch=96,
        rollouts=Rollouts(
            judge=endpoint(root),
            turns=96,
            group=6,
            updates=2,
            max_new_tokens=LONGEST,
            scale="none",
            reward=Reward(mode=MODES.get(row, "both"), question_cost=size.question_cost),
        ),
        optimizer=Optimizer(learning_rate=3e-4),
    )


def evaluation_steps(
    size: Size, root: Path, row: str, seed: int, decoding: str, *, people: int, bounds: bool
) -> Iterator[Step]:
    """A policy at logged turns and in conversation. `people` is the seed of whom it meets: the same for all rows, so
    that one of them is enough to state the `bounds`."""
    checkpoint = str(root / row / str(seed) / "checkpoint")
    yield Step(
        "evaluate turns",
        evaluate_turns,
        recipes.EvaluateTurnsRecipe(
            input=root / "turns",
            split=SPLIT,
            policy=checkpoint,
            judge=endpoint(root),
            output=turns_of(root, row, seed, decoding),
            temperature=DECODING[decoding],
            max_new_tokens=LONGEST,
            max_unscored=1.0,
            seed=seed,
        ),
        f"{row} at the turns of held-out conversations, {decoding}",
    )
    yield interview_step(size, root, row, seed, decoding, people=people, bounds=bounds)


def interview_step(
    size: Size, root: Path, row: str, seed: int, decoding: str, *, people: int, bounds: bool = False
) -> Step:
    """A policy, or the random asker, in conversation."""
    return Step(
        "evaluate interviews",
        interviews,
        recipes.EvaluateInterviewsRecipe(
            policy="clinic:random" if row == RANDOM else str(root / row / str(seed) / "checkpoint"),
            split=SPLIT,
            systems=size.systems,
            limit=size.people,
            most=MOST,
            temperature=DECODING[decoding],
            max_new_tokens=LONGEST,
            bounds=bounds,
            output=interviews_of(root, row, seed, decoding),
            seed=people,
        ),
        f"{row} interviews people whom no log knows, {decoding}",
    )


def turns_of(root: Path, row: str, seed: int, decoding: str) -> Path:
    """Where an evaluation at turns stands."""
    return root / "evaluation" / f"{row}-{seed}-turns-{decoding}"


def interviews_of(root: Path, row: str, seed: int, decoding: str) -> Path:
    """Where interviews stand."""
    return root / "evaluation" / f"{row}-{seed}-interviews-{decoding}"


def tables(recipe: StudyRecipe, root: Path) -> dict[str, Any]:
    """What report.json holds: figures at turns and in interviews by row and decoding, all seeds of a row pooled; what
    each row has over SFT, paired; the bounds on the same people."""
    turns = list(runs.records_of(root / "turns", Turn, made_by="askwell label"))
    size = SIZES[recipe.budget]
    people = visitors(load(systems=size.systems), size.people, seed=recipe.seed, split=SPLIT)
    cases = [visitor.case for visitor in people]
    answers = {case.id: case.answer for case in cases}
    first = interviews.load(interviews_of(root, recipe.rows[0], recipe.seed, "sampled"))
    found: dict[str, Any] = {"turns": {}, "interviews": {}, "turns against sft": {}, "interviews against sft": {}}
    found["at equal questions"] = {}
    for decoding in DECODING:
        grades = {row: list(pooled_grades(recipe, root, row, decoding)) for row in recipe.rows}
        talks = {row: list(pooled_episodes(recipe, root, row, decoding)) for row in recipe.rows}
        for row in recipe.rows:
            name, seeds = f"{row}, {decoding}", seeds_of(recipe, row)
            found["turns"][name] = report.as_json(figures(turns, grades[row], seed=recipe.seed))
            held = interviews.figures(talks[row], cases * len(seeds), most=MOST, seed=recipe.seed)
            found["interviews"][name] = interviews.as_json(held)
            if "sft" in recipe.rows and row not in ("base", "sft"):
                gain = differences(turns, grades[row], grades["sft"], seed=recipe.seed)
                found["turns against sft"][name] = report.as_json(gain)
                found["interviews against sft"][name] = gains(talks[row], talks["sft"], answers, seed=recipe.seed)
        held = {row: Talks.of(talks[row], {case.id: case for case in cases}) for row in recipe.rows}
        held[RANDOM] = Talks.of(episodes_of(root, RANDOM, recipe.seed, "sampled"), {case.id: case for case in cases})
        found["at equal questions"][decoding] = ladder.climbed(held, LADDER, most=interviews.CEILING, seed=recipe.seed)
    return {**found, **{name: first[name] for name in ("bounds", "best possible", "everything known")}}


def pooled_grades(recipe: StudyRecipe, root: Path, row: str, decoding: str) -> Iterator[Grade]:
    """The grades of a row over all seeds; the replies of another seed are further samples of the same turns."""
    for number, seed in enumerate(seeds_of(recipe, row)):
        path = turns_of(root, row, seed, decoding)
        for grade in runs.records_of(path, Grade, made_by="askwell evaluate turns"):
            yield grade.model_copy(update={"sample": grade.sample + 1000 * number})


def pooled_episodes(recipe: StudyRecipe, root: Path, row: str, decoding: str) -> Iterator[Episode]:
    """The interviews of a row over all seeds, with the same people in the same order each time."""
    for seed in seeds_of(recipe, row):
        yield from episodes_of(root, row, seed, decoding)


def episodes_of(root: Path, row: str, seed: int, decoding: str) -> Iterator[Episode]:
    """The interviews of a row and seed, in the order of the people."""
    return runs.records_of(interviews_of(root, row, seed, decoding), Episode, made_by="askwell evaluate interviews")


def gains(
    first: Sequence[Episode], second: Sequence[Episode], answers: Mapping[str, str], *, seed: int
) -> dict[str, Any]:
    """Accuracy and questions of `first` less those of `second`, paired by the person interviewed."""
    values = {
        "accuracy": lambda episode: float(episode.decision == answers[episode.case_id]),
        "questions": lambda episode: float(len(episode.exchanges)),
    }
    sides = [[episode.case_id for episode in episodes] for episodes in (first, second)]
    return {
        name: difference_interval(
            [value(episode) for episode in first], sides[0], [value(episode) for episode in second], sides[1], seed=seed
        )._asdict()
        for name, value in values.items()
    }


SHOWN = {"turns": ("TR", "WA", "WC", "WS"), "interviews": ("accuracy", "questions", "timeouts", "repeated")}


def markdown(recipe: StudyRecipe, found: Mapping[str, Any], cost: Mapping[str, float], *, plot: bool) -> str:
    """report.md."""
    size = SIZES[recipe.budget]
    seeds = ", ".join(f"{row} {len(seeds_of(recipe, row))}" for row in recipe.rows)
    bounds = found["bounds"]
    parts = [
        "# Learn-to-Ask in the simulated clinic\n",
        f"A small invented world with known truth ({', '.join(size.systems)}): it shows which way methods move, never "
        f"how a large model would score. {size.visits} visits of experts ({size.skill}), {size.people} people "
        f"interviewed; budget {recipe.budget}; seeds: {seeds}. Intervals: 95 %, bootstrap over conversations and "
        "people.\n",
        *(f"* {ROWS[row]}" for row in recipe.rows),
        "\n## At logged turns, and in interviews\n",
        row_of(["", *SHOWN["turns"], *SHOWN["interviews"]]),
        row_of(["---"] * 9),
    ]
    for name in found["turns"]:
        parts.append(row_of([name, *shown(found, "turns", name), *shown(found, "interviews", name)]))
    for name, bound in bounds.items():
        parts.append(row_of([name, *["–"] * 4, *(report.cell(bound[figure]) for figure in SHOWN["interviews"])]))
    parts.append(f"\nEverything known: accuracy {report.cell(found['everything known'])}.\n")
    if found["turns against sft"]:
        parts += ["## Over SFT, paired\n", row_of(["", *SHOWN["turns"], "accuracy", "questions"]), row_of(["---"] * 7)]
        for name in found["turns against sft"]:
            cells = [report.cell(found["turns against sft"][name][figure]) for figure in SHOWN["turns"]]
            talks = found["interviews against sft"][name]
            parts.append(row_of([name, *cells, report.cell(talks["accuracy"]), report.cell(talks["questions"])]))
    for decoding, climbed in found["at equal questions"].items():
        parts.append(f"\n## Who diagnoses best after as many questions, {decoding}\n")
        parts += ladder.markdown(climbed, found["best possible"])
    parts += ["\n## Accuracy over the number of questions\n", *curves_of(found)]
    if plot:
        parts += ["\n## Reward while training\n", "![mean reward of rollouts by step](rewards.png)"]
    parts += ["\n## Cost\n", "| stage | seconds |\n|---|---|"]
    parts += [f"| {stage} | {seconds:.0f} |" for stage, seconds in cost.items()]
    return "\n".join(parts) + "\n"


def shown(found: Mapping[str, Any], kind: str, name: str) -> list[str]:
    """The figures of a row as the table shows them."""
    return [report.cell(found[kind][name][figure]) for figure in SHOWN[kind]]


def curves_of(found: Mapping[str, Any]) -> Iterator[str]:
    """Accuracy after 0, 1, ... questions, a row each."""
    curves = {**{name: row["curve"] for name, row in found["interviews"].items()}}
    curves |= {name: bound["curve"] for name, bound in found["bounds"].items()}
    curves["best possible at each number"] = found["best possible"]
    most = len(next(iter(curves.values())))
    yield row_of(["questions", *map(str, range(most))])
    yield row_of(["---"] * (most + 1))
    for name, curve in curves.items():
        yield row_of([name, *(f"{point['value']:.2f}" for point in curve), *["–"] * (most - len(curve))])
