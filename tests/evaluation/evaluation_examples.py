"""A table of five turns and ten replies, small enough to grade by hand, and fakes for what needs weights."""

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path

from askwell import jsonl
from askwell.recipes import EvaluateTurnsRecipe
from askwell.records import Decision, Message, Reply, Target, Turn

SLOTS = frozenset({"city", "cuisine", "time"})
STOP = "<stop />"


def turn(
    name: str,
    decision: Decision,
    facts: tuple[str, ...] | None = (),
    *,
    known: tuple[str, ...] = (),
    service: str | None = "Restaurants_1",
    expert: str = "Which city?",
) -> Turn:
    """A turn named `conversation#index`."""
    conversation, _, index = name.partition("#")
    return Turn(
        id=name,
        conversation_id=conversation,
        group=conversation,
        split="test",
        index=int(index),
        context=(Message(role="user", content="I am hungry. " * (1 + int(index))),),
        expert_reply=expert,
        future=(),
        target=Target(decision=decision, facts=facts),
        service=service,
        known=known,
    )


TURNS = [
    turn("a#0", "continue", ("city",)),
    turn("a#1", "stop", known=("city",), expert="How about the Blue Door?"),
    turn("b#0", "continue", ("city", "time"), expert="What time, and which city?"),
    turn("b#1", "continue", None, known=("time",)),
    turn("b#2", "stop", known=("city", "time"), expert="Here is one."),
]
REPLIES = [
    Reply(turn_id=name, sample=sample, text=text)
    for name, samples in {
        "a#0": ("Which city?", "Which cuisine? What time?"),
        "a#1": (STOP, f"Goodbye.\n{STOP}"),
        "b#0": (STOP, "Mumble?"),
        "b#1": ("which  CITY?", "Hello."),
        "b#2": ("What time? Which city?", STOP),
    }.items()
    for sample, text in enumerate(samples)
]


class WordGrader:
    """Reads a slot wherever its name stands; abstains on mumbling. Remembers what it was shown."""

    def __init__(self, *, deaf_to: str = "mumble") -> None:
        self.deaf_to = deaf_to
        self.shown: list[tuple[str, str]] = []

    def asked(self, questions: Sequence[tuple[str, str]]) -> list[frozenset[str] | None]:
        self.shown += questions
        return [self.read(text.casefold()) for _, text in questions]

    def read(self, text: str) -> frozenset[str] | None:
        return None if self.deaf_to in text else SLOTS & frozenset(re.findall(r"\w+", text))

    def slots(self, service: str) -> frozenset[str]:
        return SLOTS


class Chatter:
    """A policy whose words depend on the whole batch and the seed, as a real one's do. Counts what it is asked."""

    def __init__(self, *, dies_after: int | None = None) -> None:
        self.dies_after = dies_after
        self.messages_left_out = 0
        self.calls: list[int] = []

    def replies(
        self,
        contexts: Sequence[Sequence[Message]],
        *,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        seed: int,
        samples: int = 1,
    ) -> list[str]:
        if len(self.calls) == self.dies_after:
            raise KeyboardInterrupt
        self.calls.append(seed)
        draw = random.Random(f"{seed} {contexts}")
        words = ["Which city?", "What time?", "Which cuisine? What time?", STOP]
        return [draw.choice(words) for _ in range(samples * len(contexts))]

    def nll(self, contexts: Sequence[Sequence[Message]], replies: Sequence[str]) -> list[tuple[float, int]]:
        """Each word costs as many nats as it has letters."""
        assert all(replies), "an empty reply has no perplexity"
        return [(float(len(reply.replace(" ", ""))), len(reply.split())) for reply in replies]


def recipe_of(directory: Path, **fields: object) -> EvaluateTurnsRecipe:
    """A recipe whose runs lie in `directory`."""
    given = {"output": "out", "input": "labelled", "grader": "grader", "policy": "a/policy"} | fields
    names = ("output", "input", "grader", "second_grader")
    paths = {name: directory / str(given[name]) for name in names if given.get(name) is not None}
    return EvaluateTurnsRecipe.model_validate({**given, **paths})


def finished_run(path: Path, command: str, records: Sequence[Turn] = ()) -> Path:
    """A finished run of `command` with `records` in it."""
    path.mkdir(parents=True)
    (path / "recipe.json").write_text(json.dumps({"command": command}))
    jsonl.write(path / "records.jsonl", records)
    (path / "manifest.json").write_text(json.dumps({"counts": {}}))
    return path
