"""`askwell evaluate interviews`: a policy in conversation with patients of the simulated clinic.

The policy asks and stops by its own marker; what its questions brought to light is weighed by exact reasoning, so that
accuracy says how well was asked, not how well was guessed. Writes records.jsonl (Episode), report.json and report.md
with accuracy over the number of questions. Beside it stand, on the same patients: no question at all, everything known,
random questions, and the reference asker. Every figure is one of a small invented world: it shows which way methods
move, never how a large model would score.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from askwell import jsonl, runs
from askwell.clinic import knowledge
from askwell.clinic.knowledge import FOLDER, World
from askwell.clinic.language import Oracle
from askwell.clinic.logs import SKILLS, Expert
from askwell.clinic.reasoning import Asker as Reasoner
from askwell.clinic.reasoning import Myopic, Random, Reference
from askwell.errors import RecipeError
from askwell.interview.clinic import ClinicPatient, ExactDecisionMaker, SpeakingAsker, Visitor, answers_in, visitors
from askwell.interview.loop import Asker, interviews
from askwell.recipes import EvaluateInterviewsRecipe
from askwell.records import Episode, Message
from askwell.statistics import Estimate, mean_interval

log = logging.getLogger(__name__)
OWN = ("reference", "myopic", "random", *SKILLS)


def inputs(recipe: EvaluateInterviewsRecipe) -> list[Path]:
    """The clinic's knowledge, and the policy where it is a folder."""
    name = recipe.policy.removeprefix("clinic:")
    if recipe.policy.startswith("clinic:") and name not in OWN:
        raise RecipeError(f"policy: the clinic has no asker {name!r}; known: {', '.join(OWN)}")
    policy = Path(recipe.policy)
    return [FOLDER, *([policy] if policy.exists() else [])]


def plan(recipe: EvaluateInterviewsRecipe) -> dict[str, object]:
    """How many interviews will take place."""
    inputs(recipe)
    return {"interviews": recipe.cases, "questions at most": recipe.cases * recipe.most}


def run(recipe: EvaluateInterviewsRecipe, run: runs.Run) -> dict[str, object]:
    """Interview, then the same patients for the bounds."""
    world = knowledge.load(systems=recipe.systems)
    oracle = Oracle(world)
    people = visitors(world, recipe.cases, seed=recipe.seed, split=recipe.split)
    maker = ExactDecisionMaker(world, oracle)

    def held(asker: Asker) -> list[Episode]:
        patients = [ClinicPatient(world, oracle, visitor) for visitor in people]
        cases = [visitor.case for visitor in people]
        return interviews(cases, patients, asker, maker, most=recipe.most, stop_marker=recipe.stop_marker)

    episodes = held(asker_of(recipe, world, oracle))
    jsonl.write(run.records, episodes)
    found = figures(episodes, people, most=recipe.most, seed=recipe.seed)
    log.info("%d interviews%s", len(episodes), "; bounds on the same patients" if recipe.bounds else "")
    bounds = {
        name: figures(held(speaking(name, recipe, world, oracle)), people, most=recipe.most, seed=recipe.seed)
        for name in ("reference", "random")
        if recipe.bounds and recipe.policy != f"clinic:{name}"
    }
    everything = [maker.choose(visitor.case, visitor.case.facts)[0] == visitor.case.answer for visitor in people]
    full = mean_interval([float(right) for right in everything], [visitor.case.group for visitor in people])
    report = {
        "figures": as_json(found),
        "bounds": {name: as_json(bound) for name, bound in bounds.items()},
        "everything known": full._asdict(),
    }
    runs.write_json(run.report, report)
    runs.write_text(run.path / "report.md", markdown(report, episodes, people, recipe))
    return {
        "interviews": len(episodes),
        "questions": sum(len(episode.exchanges) for episode in episodes),
        "accuracy": round(found.accuracy.value or 0, 4),
        "mean questions": round(found.questions.value or 0, 3),
    }


def load(directory: Path) -> dict[str, Any]:
    """report.json of a finished run."""
    runs.require(directory, made_by="askwell evaluate interviews")
    return json.loads((directory / "report.json").read_text(encoding="utf-8"))


def asker_of(recipe: EvaluateInterviewsRecipe, world: World, oracle: Oracle) -> Asker:
    """Who asks."""
    if recipe.policy.startswith("clinic:"):
        return speaking(recipe.policy.removeprefix("clinic:"), recipe, world, oracle)
    return PolicyAsker(recipe)


def speaking(name: str, recipe: EvaluateInterviewsRecipe, world: World, oracle: Oracle) -> SpeakingAsker:
    """An asker of the clinic."""
    askers: dict[str, Reasoner] = {
        "reference": Reference(cost=recipe.cost),
        "myopic": Myopic(cost=0.05),
        "random": Random(recipe.seed),
        **{name: Expert(skill, recipe.seed) for name, skill in SKILLS.items()},
    }
    return SpeakingAsker(world, oracle, askers[name], stop_marker=recipe.stop_marker, seed=recipe.seed)


class PolicyAsker:
    """A local checkpoint."""

    def __init__(self, recipe: EvaluateInterviewsRecipe) -> None:
        from askwell.generation import LocalPolicy

        self.recipe, self._round = recipe, 0
        self._policy = LocalPolicy.load(recipe.policy, prompt=recipe.prompt, stop_marker=recipe.stop_marker)

    def replies(self, conversations: Sequence[Sequence[Message]]) -> list[str]:
        """A reply to each."""
        self._round += 1
        return self._policy.replies(
            conversations,
            temperature=self.recipe.temperature,
            top_p=1.0,
            max_new_tokens=self.recipe.max_new_tokens,
            seed=self.recipe.seed + self._round,
        )


class Figures(NamedTuple):
    """What interviews came to. `curve` is accuracy after 0, 1, ... questions; who has stopped keeps its decision."""

    accuracy: Estimate
    questions: Estimate
    timeouts: Estimate
    unanswered: Estimate
    repeated: Estimate
    facts: Estimate
    curve: list[Estimate]


def figures(episodes: Sequence[Episode], people: Sequence[Visitor], *, most: int, seed: int = 0) -> Figures:
    """Means over interviews (shares of questions: over questions), with intervals by bootstrap over patients."""
    groups = [visitor.case.group for visitor in people]
    answers = [visitor.case.answer for visitor in people]

    def mean(values: Sequence[float | None], clusters: Sequence[str] = groups) -> Estimate:
        return mean_interval(list(values), list(clusters), seed=seed)

    asked, whose, again = [], [], []
    for group, episode in zip(groups, episodes, strict=True):
        known: set[str] = set()
        for exchange in episode.exchanges:
            names = set(answers_in(exchange.revealed))
            asked.append(exchange)
            whose.append(group)
            again.append(float(bool(names) and names <= known))
            known |= names
    return Figures(
        accuracy=mean([float(e.decision == answer) for e, answer in zip(episodes, answers, strict=True)]),
        questions=mean([float(len(episode.exchanges)) for episode in episodes]),
        timeouts=mean([float(episode.end != "stopped") for episode in episodes]),
        unanswered=mean([float(not exchange.revealed) for exchange in asked], whose),
        repeated=mean(again, whose),
        facts=mean([float(len(exchange.revealed)) for exchange in asked], whose),
        curve=[
            mean([float(choice_after(e, count) == answer) for e, answer in zip(episodes, answers, strict=True)])
            for count in range(most + 1)
        ],
    )


def choice_after(episode: Episode, count: int) -> str:
    """What would be chosen after `count` questions, or after the last where there were fewer."""
    made = episode.exchanges[:count]
    return made[-1].choice if made else episode.first_choice


def as_json(found: Figures) -> dict[str, Any]:
    """For report.json."""
    plain = {name: value._asdict() for name, value in found._asdict().items() if name != "curve"}
    return {**plain, "curve": [estimate._asdict() for estimate in found.curve]}


def cell(figure: dict[str, Any]) -> str:
    """`0.61 [0.58, 0.64]`."""
    if figure["value"] is None:
        return "–"
    return f"{figure['value']:.3f}" + ("" if figure["low"] is None else f" [{figure['low']:.3f}, {figure['high']:.3f}]")


def markdown(
    report: dict[str, Any], episodes: Sequence[Episode], people: Sequence[Visitor], recipe: EvaluateInterviewsRecipe
) -> str:
    """report.md."""
    rows = {recipe.policy: report["figures"], **{f"clinic:{name}": bound for name, bound in report["bounds"].items()}}
    names = ("accuracy", "questions", "timeouts", "unanswered", "repeated", "facts")
    parts = [
        "# Interviews in the simulated clinic\n",
        "A small invented world with known truth: it shows which way methods move, never how a large model would "
        f"score. {len(episodes)} patients, at most {recipe.most} questions; what was brought to light is weighed by "
        "exact reasoning. Intervals: 95 %, bootstrap over patients.\n",
        f"| | {' | '.join(names)} |",
        f"|---|{'---|' * len(names)}",
        *(f"| {title} | {' | '.join(cell(found[name]) for name in names)} |" for title, found in rows.items()),
        "",
        f"Everything known: accuracy {cell(report['everything known'])}.\n",
        "## Accuracy over the number of questions\n",
        f"| questions | {' | '.join(rows)} |",
        f"|---|{'---|' * len(rows)}",
    ]
    for count in range(recipe.most + 1):
        parts.append(f"| {count} | {' | '.join(cell(found['curve'][count]) for found in rows.values())} |")
    parts.append("\n## Interviews\n")
    for episode, visitor in list(zip(episodes, people, strict=True))[: recipe.shown]:
        parts += [f"**{visitor.case.options[visitor.case.answer]}**\n", f"> {visitor.case.initial_information}\n"]
        for exchange in episode.exchanges:
            choice = visitor.case.options[exchange.choice]
            parts.append(f"* {exchange.question}\n  {exchange.answer} ({choice}, {exchange.confidence:.2f})")
        parts.append(f"\nDecision: {visitor.case.options[episode.decision]}; {episode.end}.\n")
    return "\n".join(parts)
