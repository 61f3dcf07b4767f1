"""`askwell clinic logs`: what experts' conversations in the simulated clinic look like on file.

Writes logs.jsonl, JSONL of OpenAI-style messages such as people have, with the acts that say what is asked and told, so
that `askwell ingest --source chat` and `askwell label` read it as any other log, once with the truth and once without.
A visit is a pure function of the world, the seed and its number: some are longer, some experts ask twice at once, greet
or thank, patients chat and say things unasked. In the test split (that of `ingest` at its default shares) every wording
is one that the rest never uses, and a complaint may be one with which no other visit of the same condition begins.
`Expert` is how these experts choose, as an asker that can interview anybody.
"""

import hashlib
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np

from askwell.clinic import language
from askwell.clinic.knowledge import FOLDER, World, load
from askwell.clinic.reasoning import Belief, Truth, information_gain, sample_case
from askwell.recipes import ClinicLogsRecipe, Shares
from askwell.runs import Run
from askwell.sources.ingest import split_of

SERVICE = "clinic"
SHARES = Shares()
"""Those of `ingest` where its recipe names none."""


class Skill(NamedTuple):
    """How an expert asks: the share of questions that are the most informative ones, the gain in nats below which it
    stops, the shares of questions worded badly and of two at once, and the most questions."""

    best: float
    enough: float
    bad: float
    double: float
    most: int


SKILLS = {
    "expert": Skill(best=0.95, enough=0.06, bad=0.02, double=0.08, most=12),
    "average": Skill(best=0.6, enough=0.1, bad=0.12, double=0.15, most=10),
    "novice": Skill(best=0.15, enough=0.2, bad=0.35, double=0.2, most=8),
}


def inputs(recipe: ClinicLogsRecipe) -> list[Path]:
    """The clinic's knowledge."""
    return [FOLDER]


def plan(recipe: ClinicLogsRecipe) -> dict[str, object]:
    """What will be written."""
    world = load(systems=recipe.systems)
    return {"conversations": recipe.conversations, "findings": len(world.findings), "conditions": len(world.conditions)}


def run(recipe: ClinicLogsRecipe, run: Run) -> dict[str, object]:
    """Write logs.jsonl."""
    world = load(systems=recipe.systems)
    messages = 0
    with (run.path / "logs.jsonl").open("w", encoding="utf-8") as file:
        for log in logs(world, recipe):
            messages += len(log["messages"])
            file.write(json.dumps(log, ensure_ascii=False) + "\n")
    return {"conversations": recipe.conversations, "messages": messages}


def logs(world: World, recipe: ClinicLogsRecipe) -> Iterator[dict[str, Any]]:
    """The conversations as JSON, in order."""
    names = [*SKILLS] if recipe.skill == "mixed" else [recipe.skill]
    for number in range(recipe.conversations):
        yield visit(world, recipe.seed, number, names[number % len(names)])


class Visit:
    """A conversation as it grows."""

    def __init__(self, world: World, truth: Truth, draw: Random, *, unseen: bool) -> None:
        self.world, self.truth, self.draw, self.unseen = world, truth, draw, unseen
        self.messages: list[dict[str, Any]] = []
        self.told: dict[str, bool] = {}

    def say(self, role: str, text: str, *acts: tuple[str, str]) -> None:
        """Add a message; `acts` are (act, finding)."""
        message: dict[str, Any] = {"role": role, "content": text}
        if acts:
            message["acts"] = [{"act": act, "slot": slot, "service": SERVICE} for act, slot in acts]
        self.messages.append(message)

    def tell(self, findings: list[str], *acts: tuple[str, str], before: str = "") -> None:
        """The patient says what is true of these findings."""
        said = [language.tell(self.world, name, self.present(name), self.draw, unseen=self.unseen) for name in findings]
        self.told |= {name: self.present(name) for name in findings}
        told = [("INFORM", name) for name in findings]
        if self.draw.random() < 0.15 and len(said) > 1:  # several messages in a row
            self.say("user", " ".join([before, said[0]]).strip(), *acts, told[0])
            self.say("user", " ".join(said[1:]), *told[1:])
        else:
            self.say("user", " ".join([before, *said]).strip(), *acts, *told)

    def present(self, finding: str) -> bool:
        """Whether the patient has it."""
        return bool(self.truth.present[self.world.place[finding]])


def visit(world: World, seed: int, number: int, skill_name: str) -> dict[str, Any]:
    """One conversation."""
    name = f"clinic-{seed}-{number}"
    split = split_of(name, SHARES)
    draw = Random(f"visit {seed} {number}")
    numbers = np.random.default_rng([seed, number])
    truth, complaints = case(world, numbers, draw, test=split == "test")
    log = Visit(world, truth, draw, unseen=split == "test")
    said, skill = language.talk(), SKILLS[skill_name]
    if draw.random() < 0.6:
        log.say("assistant", draw.choice(said["greetings"]))
    who = language.introduction(truth.person)
    greeting = f"{draw.choice(said['patient_greetings'])} " if draw.random() < 0.4 else ""
    log.tell(complaints, ("INFORM_INTENT", "complaint"), before=f"{greeting}{who}")
    interview(log, skill)
    condition = world.conditions[world.condition_ids.index(truth.condition)]
    log.say(
        "assistant",
        draw.choice(said["closings"]).format(condition=condition.name, recommendation=condition.recommendation),
    )
    if draw.random() < 0.7:
        log.say("user", draw.choice(said["goodbyes"]))
    return {
        "id": name,
        "goal": ", ".join(complaints),
        "outcome": condition.name,
        "messages": log.messages,
    }


def case(world: World, numbers: np.random.Generator, draw: Random, *, test: bool) -> tuple[Truth, list[str]]:
    """Somebody, and what they say unasked: at least one finding that they have."""
    while True:
        truth = sample_case(world, numbers)
        condition = world.conditions[world.condition_ids.index(truth.condition)]
        said = [
            name
            for name, chance in condition.volunteers.items()
            if truth.present[world.place[name]] and draw.random() < chance
        ]
        draw.shuffle(said)
        if said and (test or not kept_for_test(truth.condition, said[0])):
            return truth, said[: 2 if draw.random() < 0.2 else 1]


def kept_for_test(condition: str, complaint: str) -> bool:
    """Whether visits that begin with this complaint of this condition are in the test split alone: one in seven."""
    return hashlib.sha256(f"{condition} {complaint}".encode()).digest()[0] % 7 == 0


def interview(log: Visit, skill: Skill) -> None:
    """Questions and answers until the expert has heard enough."""
    world, draw, said = log.world, log.draw, language.talk()
    belief = Belief.of(world, log.truth.person, log.told)
    asked: set[str] = set()
    while len(asked) < skill.most:
        gains = information_gain(belief)
        for name in asked:
            gains[world.place[name]] = 0
        order = (-gains).argsort()
        if gains[order[0]] < skill.enough:
            return
        best = draw.random() < skill.best
        first = world.finding_ids[order[0] if best else order[draw.randrange(min(25, len(order)))]]
        if first in belief.answers:
            continue
        chosen = [first]
        if draw.random() < skill.double and gains[order[1]] >= skill.enough:
            second = world.finding_ids[order[1]]
            chosen += [second] if second not in (first, *belief.answers) else []
        asked |= set(chosen)
        question(log, chosen, skill)
        heard = list(chosen)
        if draw.random() < 0.03:
            log.say("user", draw.choice(said["unsure"]))
            continue
        if draw.random() < 0.06:
            more = [name for name in world.finding_ids if log.present(name) and name not in (*asked, *log.told)]
            heard += [draw.choice(more)] if more else []
        chat = f"{draw.choice(said['chatter'])}" if draw.random() < 0.05 else ""
        log.tell(heard, before=chat)
        for name in heard:
            belief = belief.given(name, log.present(name))


def choose(belief: Belief, asked: Collection[str], skill: Skill, draw: Random) -> list[str]:
    """What an expert asks for next: a finding, now and then two at once, and nothing where it has heard enough."""
    ids, gains = belief.world.finding_ids, information_gain(belief)
    for name in asked:
        gains[belief.world.place[name]] = 0
    order = (-gains).argsort()
    if gains[order[0]] < skill.enough:
        return []
    while True:
        best = draw.random() < skill.best
        first = ids[order[0] if best else order[draw.randrange(min(25, len(order)))]]
        if first not in belief.answers:  # what was asked and not answered may be asked again
            break
    if draw.random() < skill.double and gains[order[1]] >= skill.enough:
        second = ids[order[1]]
        return [first] if second in (first, *belief.answers) else [first, second]
    return [first]


class Expert:
    """An asker of `clinic.reasoning` that chooses as the experts of the logs do, one finding at a time."""

    def __init__(self, skill: Skill, seed: int) -> None:
        self.skill, self._draw = skill, Random(f"expert {seed}")

    def next(self, belief: Belief, asked: Collection[str]) -> str | None:
        """A finding's id, or None to stop."""
        while len(asked) < self.skill.most and (chosen := choose(belief, asked, self.skill, self._draw)):
            if chosen[0] not in asked:
                return chosen[0]
        return None


def question(log: Visit, chosen: list[str], skill: Skill) -> None:
    """The expert asks for one finding, or for two at once; a question worded badly may have to be asked again."""
    world, draw, said = log.world, log.draw, language.talk()
    acts = [("REQUEST", name) for name in chosen]
    if len(chosen) == 2:
        text = language.ask_both(world, chosen[0], chosen[1], draw, unseen=log.unseen)
    else:
        bad = draw.random() < skill.bad
        level = draw.choice(["vague", "jargon", "leading", "wrong"]) if bad else "good"
        text = language.ask(world, chosen[0], draw, level=level, unseen=log.unseen)
        if level in ("vague", "jargon") and draw.random() < 0.5:
            log.say("assistant", text, *acts)
            log.say("user", draw.choice(said["not_understood"]))
            text = language.ask(world, chosen[0], draw, unseen=log.unseen)
    if draw.random() < 0.3:
        thanks = draw.choice(said["thanks"])
        if draw.random() < 0.2:  # several messages in a row
            log.say("assistant", thanks)
        else:
            text = f"{thanks} {text}"
    log.say("assistant", text, *acts)
