"""ALFA's table in the simulated clinic: `askwell study alfa`, and the union of both papers, which is new.

Questions of a forum become question sets; a base model learns to ask by imitation, by preferences and from reward
models, attribute by attribute or all at once, and policies and reward models are fused. Each row is compared with the
base model's questions by a judge, scored exactly in every attribute, and interviews people. The clinic writes the
forum, rewrites, ranks and judges, and errs as stated: no weights, no key, no network. `studies.alfa_steps` has
the rows and the stages behind them; here the table is made.

    talk/ talks/                       novices' conversations, for the base model
    forum/ threads/ question_sets/     what people asked on a forum; the same, read and split; variants and verdicts
    logs/ conversations/ turns/        experts' conversations, for the rows that learn from them
    base/ sft/ sft_real/ ...           the rows, a folder a seed
    each/ each_unfiltered/ reward/     a policy, or a reward model, for each attribute
    evaluation/                        ROW-SEED-questions, ROW-SEED-interviews
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from askwell import jsonl, runs
from askwell.attributes import ALFA
from askwell.clinic.knowledge import load
from askwell.clinic.language import oracle_of
from askwell.clinic.quality import Quality
from askwell.evaluation import interviews
from askwell.evaluation.report import cell
from askwell.interview.clinic import visitors
from askwell.recipes import StudyAlfaRecipe
from askwell.records import Comparison, Episode, ReplySet
from askwell.runs import Run
from askwell.statistics import Estimate, difference_interval, mean_interval
from askwell.studies import clinic, curves, ladder, schedule
from askwell.studies.alfa_steps import (
    ERRORS,
    FIXED,
    ROWS,
    SIZES,
    SPLIT,
    TEMPERATURE,
    UNION,
    interviews_of,
    questions_of,
    seeds_of,
    steps,
)
from askwell.studies.ladder import RANDOM, Talks, row_of, verdict
from askwell.studies.schedule import Step

log = logging.getLogger(__name__)
ORDERINGS = (
    ("sft_real", "base", "SFT beats the base model"),
    ("sft_synthetic", "sft_real", "enhanced questions teach more than people's own"),
    ("coarse", "sft_combined", "preferences beat imitation, even with one coarse attribute"),
    ("dpo_mix", "coarse", "six attributes beat one coarse one"),
    ("dpo_mix", "dpo_fusion", "data mixing has the higher win-rate under DPO"),
    ("ppo_reward_fusion", "dpo_mix", "PPO against fused rewards has the highest win-rate"),
    ("ppo_reward_fusion", "ppo_mix", "fusing reward models beats mixing their data"),
    ("ppo_reward_fusion", "ppo_policy_fusion", "fusing reward models beats fusing policies"),
    ("dpo_fusion", "dpo_fusion_unfiltered", "confirmed preferences are worth more"),
    ("dpo_mix", "only_E-C", "all directions beat enhanced over corrupted alone"),
    ("dpo_mix", "only_E-O", "all directions beat enhanced over original alone"),
    ("dpo_mix", "only_O-C", "all directions beat original over corrupted alone"),
    *(("dpo_fusion", f"without_{name}", f"{name} is worth its place") for name in ALFA),
    ("clinical", "general", "the clinical attributes are worth more than the general ones"),
)
"""What the paper finds (its tables 1 to 4, by win-rate), as better row, worse row and claim."""
JOINED = (
    ("learn", "sft", "Learn-to-Ask beats imitation of experts' logs"),
    ("alfa_learn", "learn", "to begin with ALFA helps Learn-to-Ask"),
    ("learn_attributes", "learn", "the attributes' reward models help Learn-to-Ask"),
    ("learn_attributes", "dpo_mix", "the union beats ALFA alone"),
)
"""What the union of both papers should give, likewise."""
WON = ("win_rate", "win_rate_where_base_asks")
ALIGNED = ("coarse", "dpo_mix", "dpo_fusion", "ppo_mix", "ppo_reward_fusion", "ppo_policy_fusion")
LADDER = (
    (RANDOM, ("sft_real", *ALIGNED, "sft")),
    ("sft_real", ALIGNED),
    ("sft", UNION),
)
"""Who should diagnose worse after as many questions, and than whom."""


def inputs(recipe: StudyAlfaRecipe) -> list[Path]:
    """The clinic's knowledge."""
    return clinic.inputs()


def plan(recipe: StudyAlfaRecipe) -> dict[str, object]:
    """The stages in their order."""
    return {f"{step.command} --output {step.recipe.output}": step.why for step in steps(recipe, recipe.output)}


def run(recipe: StudyAlfaRecipe, run: Run) -> dict[str, object]:
    """Every stage that is not finished yet, then the table."""
    stages = steps(recipe, run.path)
    began = time.monotonic()

    def done(step: Step, seconds: float) -> None:
        run.log(stage=str(step.output.relative_to(run.path)), seconds=round(seconds, 1))

    schedule.carry_out(stages, workers=recipe.workers or schedule.cores(), root=run.path, done=done)
    elapsed = round(time.monotonic() - began)
    cost = {str(step.output.relative_to(run.path)): runs.manifest_of(step.output)["seconds"] for step in stages}
    drawn = curves.draw({row: run.path / row for row in recipe.rows if row in UNION}, run.path / "rewards.png")
    found = tables(recipe, run.path)
    runs.write_json(run.report, {**found, "seconds": cost, "elapsed": elapsed})
    runs.write_text(run.path / "report.md", markdown(recipe, found, cost, plot=drawn))
    return {"stages": len(cost), "seconds_of_stages": round(sum(cost.values())), "seconds": elapsed}


def tables(recipe: StudyAlfaRecipe, root: Path) -> dict[str, Any]:
    """What report.json holds: figures of every row, all seeds pooled; the bounds; the paper's orderings."""
    size = SIZES[recipe.budget]
    world = load(systems=size.clinic.systems)
    quality = Quality(oracle_of(world))
    cases = [visitor.case for visitor in visitors(world, size.people, seed=recipe.seed, split=SPLIT)]
    rows = list(dict.fromkeys(("base", *recipe.rows)))
    found: dict[str, Any] = {"rows": {}}
    seeds = seeds_of(recipe)
    won: dict[str, list[Scores]] = {}
    asked = asking(root, quality, seed=recipe.seed)
    for row in ("human", *rows):
        once = row in ("human", "base")
        folders = [questions_of(root, "base" if once else row, seed) for seed in (seeds[:1] if once else seeds)]
        sets = [each for folder in folders for each in jsonl.read(folder / "replies.jsonl", ReplySet)]
        figures: dict[str, Any] = {"attributes": attribute_scores(quality, sets, row, seed=recipe.seed)}
        if row != "base":
            every = [compared(folder, row) for folder in folders]
            won[row] = [Scores.of(pairs) for pairs in every]
            figures["win_rate"] = mean_interval(*pooled(won[row]), seed=recipe.seed)._asdict()
            where = Scores.of([pair for pair in chain.from_iterable(every) if pair.reply_set_id in asked])
            figures["win_rate_where_base_asks"] = mean_interval(*where, seed=recipe.seed)._asdict()
        if row != "human":
            talks = [episode for seed in seeds for episode in episodes_of(root, row, seed)]
            held = interviews.figures(talks, cases * len(seeds), most=FIXED, seed=recipe.seed)
            figures["interviews"] = interviews.as_json(held)
        found["rows"][row] = figures
    contexts = won["human"][0].groups
    won["base"] = [Scores([0.5] * len(contexts), contexts) for _ in seeds]
    found["orderings"] = list(claims(won, ORDERINGS, seed=recipe.seed))
    found["union"] = list(claims(won, JOINED, seed=recipe.seed))
    first = interviews.load(interviews_of(root, "base", recipe.seed))
    people = {case.id: case for case in cases}
    talks = {RANDOM: Talks.of(episodes_of(root, RANDOM, recipe.seed), people)}
    for row in rows:
        talks[row] = Talks.of(chain.from_iterable(episodes_of(root, row, seed) for seed in seeds), people)
    found["at equal questions"] = ladder.climbed(talks, LADDER, most=FIXED, seed=recipe.seed)
    return {**found, **{name: first[name] for name in ("bounds", "best possible", "everything known")}}


def episodes_of(root: Path, row: str, seed: int) -> Iterator[Episode]:
    """A row's interviews of one seed, in the order of the cases."""
    return runs.records_of(interviews_of(root, row, seed), Episode, made_by="askwell evaluate interviews")


class Scores(NamedTuple):
    """What a row's questions get against base's at each context, None where unscored, and the post of each."""

    values: list[float | None]
    groups: list[str]

    @classmethod
    def of(cls, found: Sequence[Comparison]) -> "Scores":
        """Those of comparisons."""
        return cls([each.score for each in found], [each.group for each in found])

    def where(self, chosen: Sequence[bool]) -> "Scores":
        """Those of the contexts chosen; the others unscored."""
        return Scores([value if kept else None for value, kept in zip(self.values, chosen, strict=True)], self.groups)


def pooled(every: Sequence[Scores]) -> Scores:
    """The scores of all seeds."""
    return Scores(*(list(chain.from_iterable(column)) for column in zip(*every, strict=True)))


def gain(better: Sequence[Scores], worse: Sequence[Scores], *, seed: int) -> Estimate:
    """What one row's win-rate has over another's, all seeds of each pooled, paired by post, at the contexts where both
    are scored: a row that stops where it pleases is unscored there, and no better for it."""
    one, other = pooled(better), pooled(worse)
    assert one.groups == other.groups, "all rows are compared at the same contexts"
    scored = [a is not None and b is not None for a, b in zip(one.values, other.values, strict=True)]
    return difference_interval(*one.where(scored), *other.where(scored), seed=seed)


def claims(
    won: Mapping[str, Sequence[Scores]], orderings: Sequence[tuple[str, str, str]], *, seed: int
) -> Iterator[dict[str, Any]]:
    """What comes of orderings whose rows there are: the gain of all seeds together, and of each."""
    for better, worse, claim in orderings:
        if better in won and worse in won:
            pairs = zip(won[better], won[worse], strict=True)
            yield {
                "better": better,
                "worse": worse,
                "claim": claim,
                "gain": gain(won[better], won[worse], seed=seed)._asdict(),
                "by seed": [gain([one], [other], seed=seed).value for one, other in pairs],
            }


def compared(folder: Path, row: str) -> list[Comparison]:
    """All comparisons of a row with base, of one seed."""
    found = runs.records_of(folder, Comparison, made_by="askwell evaluate questions")
    return [each for each in found if each.first == row]


def asking(root: Path, quality: Quality, *, seed: int) -> set[str]:
    """The contexts at which base asks something that can be read, by their ids."""
    sets = jsonl.read(questions_of(root, "base", seed) / "replies.jsonl", ReplySet)
    return {each.id for each in sets if quality.read(each.replies.get("base", "")) is not None}


def attribute_scores(quality: Quality, sets: Sequence[ReplySet], system: str, *, seed: int) -> dict[str, Any]:
    """The mean score of a system's questions in each attribute; what the oracle cannot read is unscored."""
    groups = [row.group for row in sets]
    scores = [quality.scores(row.context, row.replies.get(system, "")) for row in sets]
    return {
        name: mean_interval([each[name] for each in scores], groups, seed=seed)._asdict() for name in (*ALFA, "overall")
    }


def markdown(recipe: StudyAlfaRecipe, found: Mapping[str, Any], cost: Mapping[str, float], *, plot: bool) -> str:
    """report.md."""
    size = SIZES[recipe.budget]
    errors = ", ".join(f"{role} {rate:.0%}" for role, rate in ERRORS.items())
    parts = [
        "# ALFA in the simulated clinic\n",
        f"A small invented world with known truth ({', '.join(size.clinic.systems)}): it shows which way methods move, "
        f"never how a large model would score. {size.posts} posts of a forum ({recipe.forum}), "
        f"{size.clinic.visits} visits of experts, {size.talks} of novices; requests "
        f"that rewriter and judge get wrong: {errors}. Questions compared at {size.questions} contexts, {size.people} "
        f"people interviewed, replies sampled at {TEMPERATURE}; budget {recipe.budget}, seeds of each row: "
        f"{len(seeds_of(recipe))}. Intervals: 95 %, bootstrap over posts and people, all seeds of a row pooled.\n",
        "`win-rate` is against base by a judge without errors, a tie half a win, and `where base asks` the same at the "
        "contexts at which base asks at all; `unscored` is the share of replies without a question that the oracle can "
        "read: a conclusion, a stop, or words that make no sense; the attributes are its exact scores in [0, 1]; "
        f"`diagnosis` is the share of right ones after at most {FIXED} questions.\n",
        *(f"* {row}: {ROWS[row]}" for row in found["rows"] if row in ROWS),
        "",
        row_of(["", "win-rate", "where base asks", "diagnosis", "questions", *ALFA, "overall", "unscored"]),
        row_of(["---"] * (len(ALFA) + 7)),
    ]
    for row, figures in found["rows"].items():
        wins = [cell(figures[name]) if name in figures else "0.500" for name in WON]
        talks = [
            cell(figures["interviews"][name]) if "interviews" in figures else "–" for name in ("accuracy", "questions")
        ]
        scores = figures["attributes"]
        total = scores["overall"]["scored"] + scores["overall"]["unscored"]
        unscored = f"{scores['clarity']['unscored'] / total:.3f}" if total else "–"
        means = [plain_mean(scores[name]) for name in (*ALFA, "overall")]
        parts.append(row_of([row, *wins, *talks, *means, unscored]))
    for name, bound in found["bounds"].items():
        talks = [cell(bound[figure]) for figure in ("accuracy", "questions")]
        parts.append(row_of([f"{name} asker", "–", "–", *talks, *["–"] * (len(ALFA) + 2)]))
    parts.append(f"\nEverything known: accuracy {cell(found['everything known'])}.\n")
    parts += ["## The paper's orderings, by win-rate\n", *claimed(found["orderings"])]
    if found["union"]:
        parts += ["\n## What the union gives, by win-rate\n", *claimed(found["union"])]
    climbed = ladder.markdown(found["at equal questions"], found["best possible"])
    parts += ["\n## Who diagnoses best after as many questions\n", *climbed]
    if plot:
        parts += ["\n## Reward while training\n", "![mean reward of rollouts by step](rewards.png)"]
    parts += ["\n## Cost\n", "| stage | seconds |\n|---|---|"]
    parts += [f"| {stage} | {seconds:.0f} |" for stage, seconds in cost.items()]
    return "\n".join(parts) + "\n"


def claimed(orderings: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Orderings as a table."""
    yield row_of(["claim", "rows", "gain", "of each seed", "here it"])
    yield row_of(["---"] * 5)
    for claim in orderings:
        rows = f"{claim['better']} over {claim['worse']}"
        seeds = ", ".join("–" if value is None else f"{value:+.3f}" for value in claim["by seed"])
        yield row_of([claim["claim"], rows, cell(claim["gain"]), seeds, verdict(claim["gain"])])


def plain_mean(figure: Mapping[str, Any]) -> str:
    """A mean without its interval, for a table with many columns; report.json has them."""
    return "–" if figure["value"] is None else f"{figure['value']:.3f}"
