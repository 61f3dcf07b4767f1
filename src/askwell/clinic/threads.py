"""`askwell clinic threads`: what a forum of the simulated clinic looks like on file.

Writes threads.jsonl in the form in which `askwell ingest --source askdocs` reads real threads, a follow-up question a
line, and with each question its truth: the findings that it asks for, how it is worded, and its information gain.
Somebody posts what troubles them; below stand one to three threads. In each, one person asks well or badly, in one to
four comments of one to four questions, and knows nothing but the post and the answers to them. The history in a line is
whole; the published one is not.

A post is a pure function of the world, the seed and its number. In the test split (that of `ingest` at its default
shares) every wording is one that the rest never uses, and a complaint may be one with which no other post of the same
condition begins.
"""

import json
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np

from askwell.clinic import language
from askwell.clinic.knowledge import FOLDER, Person, World, load
from askwell.clinic.logs import SKILLS, case
from askwell.clinic.reasoning import Belief, Floats, information_gain, joint_gain
from askwell.recipes import ClinicThreadsRecipe, Shares
from askwell.runs import Run
from askwell.sources.ingest import split_of

FICTION = "A simulated clinic, invented for tests. Not medical advice."
COMMENTS = 4
"""Most comments of a thread that ask."""
TRIED = 25
"""Findings that tell most, from which a bad question is drawn."""
THREADS = (1, 1, 1, 1, 1, 2, 2, 2, 3, 3)
"""How many there are below a post, each number as likely as it is frequent here."""
QUESTIONS = (1, 1, 1, 1, 1, 2, 2, 2, 3, 4)
"""How many a comment asks, likewise."""


class Manner(NamedTuple):
    """How people of a skill are on a forum, beside what `logs.Skill` says of them: the shares of questions that have
    nothing to do with it and of those for what was said already, and of threads with a conclusion and with thanks."""

    idle: float
    known: float
    concludes: float
    thanked: float


MANNERS = {
    "expert": Manner(idle=0.0, known=0.02, concludes=0.9, thanked=0.7),
    "average": Manner(idle=0.03, known=0.06, concludes=0.7, thanked=0.5),
    "novice": Manner(idle=0.12, known=0.15, concludes=0.4, thanked=0.3),
}


class Posed(NamedTuple):
    """A question and its truth: the findings asked for, the level of its wording, its information gain in nats."""

    text: str
    findings: tuple[str, ...]
    level: str
    gain: float


class Replies(NamedTuple):
    """What is said to a comment: a text or none to each question, the findings told, and those not understood."""

    texts: list[str | None]
    told: list[str]
    puzzling: list[str]


def inputs(recipe: ClinicThreadsRecipe) -> list[Path]:
    """The clinic's knowledge."""
    return [FOLDER]


def plan(recipe: ClinicThreadsRecipe) -> dict[str, object]:
    """What will be written."""
    world = load(systems=recipe.systems)
    return {"posts": recipe.posts, "findings": len(world.findings), "conditions": len(world.conditions)}


def run(recipe: ClinicThreadsRecipe, run: Run) -> dict[str, object]:
    """Write threads.jsonl."""
    world = load(systems=recipe.systems)
    seen: dict[str, set[str]] = {"id_post": set(), "thread_id": set(), "qid": set()}
    with (run.path / "threads.jsonl").open("w", encoding="utf-8") as file:
        for line in lines(world, recipe):
            for key, found in seen.items():
                found.add(line[key])
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    posts, threads, questions = map(len, seen.values())
    return {
        "posts": posts,
        "posts without a question": recipe.posts - posts,
        "threads": threads,
        "questions": questions,
    }


def lines(world: World, recipe: ClinicThreadsRecipe) -> Iterator[dict[str, Any]]:
    """The questions as JSON, in order."""
    skills = [*SKILLS] if recipe.skill == "mixed" else [recipe.skill]
    beliefs: dict[Person, Belief] = {}
    for number in range(recipe.posts):
        post = Post(world, recipe.seed, number, beliefs)
        for place in range(post.draw.choice(THREADS)):
            yield from Responder(post, place, post.draw.choice(skills)).lines()


class Post:
    """What somebody posts, and how they answer. `beliefs` keeps what holds of all of an age and sex."""

    def __init__(self, world: World, seed: int, number: int, beliefs: dict[Person, Belief]) -> None:
        self.world, self.name = world, f"forum-{seed}-{number}"
        self.unseen = split_of(self.name, Shares()) == "test"
        self.draw = Random(f"forum {seed} {number}")
        self.truth, complaints = case(world, np.random.default_rng([seed, number, 2]), self.draw, test=self.unseen)
        person = self.truth.person
        self.belief = beliefs[person] if person in beliefs else beliefs.setdefault(person, Belief.of(world, person))
        self.title, self.text = self.written(complaints)

    @cached_property
    def gains(self) -> Floats:
        """The information gain of each finding for one who has read the post, (F,), in nats."""
        return information_gain(self.belief)

    def present(self, finding: str) -> bool:
        """Whether the author has it."""
        return bool(self.truth.present[self.world.place[finding]])

    def pick(self, texts: list[str]) -> str:
        """One of the wordings, of those that its split may use."""
        return language.pick(texts, self.draw, unseen=self.unseen)

    def maybe(self, share: float, texts: list[str]) -> list[str]:
        """One of the wordings, or none."""
        return [self.pick(texts)] if self.draw.random() < share else []

    def unasked(self, finding: str) -> str:
        """What the author says of a finding by themselves."""
        return language.told_unasked(self.world, finding, self.present(finding), self.draw, unseen=self.unseen)

    def other(self, told: Collection[str], *, present: bool, system: str = "") -> list[str]:
        """A finding that the author has or has not and has not told, of a body system or any; none if there is none."""
        places = np.flatnonzero(self.truth.present == present).tolist()
        names = [name for place in places if (name := self.world.finding_ids[place]) not in told]
        names = [name for name in names if self.world.system_of[name] == system] if system else names
        return [self.draw.choice(names)] if names else []

    def written(self, complaints: list[str]) -> tuple[str, str]:
        """Title and text."""
        draw, said = self.draw, language.forum()
        more = self.other(complaints, present=True) if draw.random() < 0.3 else []
        if draw.random() < 0.4:  # what people think worth a mention though they have it not
            more += self.other(complaints, present=False, system=self.world.system_of[complaints[0]])
        title = self.pick(said["titles"]).format(complaint=self.unasked(complaints[0]))
        who = language.introducing(self.truth.person, self.pick(said["introductions"]))
        body = [*map(self.unasked, complaints), *self.maybe(0.4, said["chatter"]), *map(self.unasked, more)]
        body = [*body, who] if draw.random() < 0.2 else [who, *body]
        for finding in (*complaints, *more):
            self.belief = self.belief.given(finding, self.present(finding))
        parts = [self.maybe(0.5, said["openings"]), body, self.maybe(0.7, said["asks"])]
        return title, ("\n\n" if draw.random() < 0.3 else " ").join(" ".join(part) for part in parts if part)

    def replies(self, posed: list[Posed], told: Collection[str]) -> Replies:
        """What the author says to a comment, having told some findings before; some comments go unanswered."""
        found = Replies([], [], [])
        silent = self.draw.random() < 0.08
        for question in posed:
            text = None if silent or self.draw.random() < 0.15 else self.reply(question, told, found)
            if text and not any(found.texts):
                text = " ".join([*self.maybe(0.3, language.forum()["replies"]), text])
            found.texts.append(text)
        return found

    def reply(self, question: Posed, told: Collection[str], found: Replies) -> str:
        """What the author says to one question; adds to `found` what that tells, or that it was not understood."""
        draw, said = self.draw, language.talk()
        if not question.findings:
            return self.pick(language.forum()["shrugs"])
        if question.level in ("vague", "jargon") and draw.random() < 0.5:
            found.puzzling.extend(question.findings)
            return self.pick(said["not_understood"])
        if draw.random() < 0.04:
            return self.pick(said["unsure"])
        unseen = self.unseen
        texts = [language.tell(self.world, name, self.present(name), draw, unseen=unseen) for name in question.findings]
        found.told.extend(question.findings)
        if draw.random() < 0.06:
            more = self.other({*told, *found.told}, present=True)
            found.told.extend(more)
            texts += map(self.unasked, more)
        return " ".join([*texts, *self.maybe(0.05, language.forum()["chatter"])])


class Responder:
    """Somebody who answers a post: how they ask, what they have asked, and what they know."""

    def __init__(self, post: Post, place: int, skill: str) -> None:
        self.post, self.world, self.draw = post, post.world, post.draw
        self.skill, self.manner = SKILLS[skill], MANNERS[skill]
        self.thread = f"t_{post.name}-{place}-0"
        self.flair = self.draw.choice(language.forum()[f"flairs_{skill}"]) or None
        self.belief, self.gains = post.belief, post.gains
        self.asked: set[str] = set()
        self.left: list[str] = []

    def lines(self) -> list[dict[str, Any]]:
        """The thread's questions as JSON."""
        found: list[dict[str, Any]] = []
        history: list[dict[str, str | None]] = []
        puzzling: list[str] = []
        for comment in range(0, 2 * COMMENTS, 2):
            posed = self.comment(puzzling)
            if not posed:
                break
            replies = self.post.replies(posed, self.belief.answers)
            both = list(zip(posed, replies.texts, strict=True))
            name, body = f"{self.thread}-c{comment}", self.body(posed)
            for place, (question, answer) in enumerate(both):
                found.append(
                    {
                        "qid": f"{name}-q{place}",
                        "question": question.text,
                        "patient_answer": answer,
                        "prev_additional_contexts": history,
                        "hypotheses": self.suspected(question),
                        "comment_id": name,
                        "comment_body": body,
                        "comment_turn_level": comment,
                        "truth": self.truth(question),
                    }
                )
            history = history + [{"question": question.text, "patient_answer": answer} for question, answer in both]
            for finding in replies.told:
                self.belief = self.belief.given(finding, self.post.present(finding))
            puzzling = replies.puzzling
            if not any(replies.texts) or self.draw.random() < 0.3:
                break
        whole = self.whole()
        return [whole | line for line in found]

    def whole(self) -> dict[str, Any]:
        """What holds of all questions of the thread."""
        draw, post = self.draw, self.post
        condition = self.world.conditions[self.world.condition_ids.index(post.truth.condition)]
        concluded = draw.random() < self.manner.concludes
        closing = post.pick(language.talk()["closings"])
        told = closing.format(condition=condition.name, recommendation=condition.recommendation)
        return {
            "fiction": FICTION,
            "id_post": post.name,
            "thread_id": self.thread,
            "title": post.title,
            "post": post.text,
            "comment_author_flair_text": self.flair,
            "final_diagnosis": condition.name if concluded else None,
            "conclusion": told if concluded else None,
            "pos_post_author_feedback": float(draw.random() < self.manner.thanked),
        }

    def truth(self, question: Posed) -> dict[str, Any]:
        """A question's truth as a line has it. Rounded, as the last digits of a logarithm are a machine's own."""
        return {
            "findings": question.findings,
            "level": question.level,
            "gain": round(question.gain, 6),
            "condition": self.post.truth.condition,
        }

    def body(self, posed: list[Posed]) -> str:
        """A comment with these questions."""
        said = language.forum()
        verified = self.flair is not None and "not" not in self.flair.lower()
        before = self.post.maybe(0.0 if verified else 0.4, said["disclaimers"]) + self.post.maybe(0.3, said["openers"])
        after = self.post.maybe(0.2, said["remarks"])
        return " ".join([*before, *(question.text for question in posed), *after])

    def suspected(self, question: Posed) -> list[str]:
        """The conditions that a yes would speak for, as far as the responder lets on."""
        found = []
        for finding in question.findings if self.draw.random() < 0.6 else ():
            weights = self.belief.posterior * self.belief.tables.chances[1, :, self.world.place[finding]]
            condition = self.world.conditions[int(weights.argmax())]
            found += [condition.name] if finding in condition.findings else []
        return list(dict.fromkeys(found))

    def comment(self, puzzling: list[str]) -> list[Posed]:
        """The next comment's questions, none where enough is known. What puzzled may be asked again, in plain words."""
        self.gains = self.post.gains if self.belief is self.post.belief else information_gain(self.belief)
        names, done = self.world.finding_ids, {*self.asked, *self.belief.answers}
        order = np.argsort(-self.gains, kind="stable").tolist()
        self.left = [name for place in order if (name := names[place]) not in done][:TRIED]
        posed = [self.posed("good", name) for name in puzzling if self.draw.random() < 0.7]
        wanted = self.draw.choice(QUESTIONS)
        while len(posed) < wanted and (question := self.another()) is not None:
            posed.append(question)
        return posed

    def another(self) -> Posed | None:
        """One more question; None where no answer would tell enough."""
        draw, chance = self.draw, self.draw.random()
        if chance < self.manner.idle and (text := self.post.pick(language.talk()["irrelevant"])) not in self.asked:
            self.asked.add(text)
            return Posed(text, (), "irrelevant", 0.0)
        known = [name for name in self.belief.answers if name not in self.asked]
        if known and self.manner.idle <= chance < self.manner.idle + self.manner.known:
            return self.posed("good", draw.choice(known))
        left = self.left
        if not left or self.gain(left[0]) < self.skill.enough:
            return None
        first = left[0] if draw.random() < self.skill.best else draw.choice(left)
        second = next((name for name in left if name != first), first)
        if draw.random() < self.skill.double and first != second and self.gain(second) >= self.skill.enough:
            return self.posed("double", first, second)
        bad = draw.random() < self.skill.bad
        return self.posed(draw.choice(["vague", "jargon", "leading", "wrong"]) if bad else "good", first)

    def posed(self, level: str, *findings: str) -> Posed:
        """A question for findings, now."""
        self.asked |= set(findings)
        self.left = [name for name in self.left if name not in findings]
        world, unseen = self.world, self.post.unseen
        if level == "double":
            text = language.ask_both(world, findings[0], findings[1], self.draw, unseen=unseen)
        else:
            text = language.ask(world, findings[0], self.draw, level=level, unseen=unseen)
        return Posed(text, findings, level, self.gain(*findings))

    def gain(self, *findings: str) -> float:
        """What asking for findings is to tell, in nats."""
        if len(findings) == 1:
            return float(self.gains[self.world.place[findings[0]]])
        return joint_gain(self.belief, findings)
