"""Small label and ingest runs, made by hand, and a recipe for a model that trains in a second."""

import json
from pathlib import Path
from typing import Any

from askwell import jsonl
from askwell.recipes import TrainRecipe
from askwell.records import Conversation, Message, Record, Target, Thread, Turn

TOWNS = ("Oslo", "Lima", "Rome", "Bergen", "a small town by the sea", "Santiago de Compostela")
FOODS = ("soup", "noodles", "rice with beans and a little salad", "bread")


def user(text: str) -> Message:
    return Message(role="user", content=text)


def expert(text: str) -> Message:
    return Message(role="assistant", content=text)


def messages(number: int) -> tuple[Message, ...]:
    """A dialogue of two questions, after which the expert asks nothing more."""
    return (
        user("I am hungry."),
        expert("Which city?"),
        user(f"In {TOWNS[number % len(TOWNS)]}."),
        expert("What would you like to eat?"),
        user(f"Some {FOODS[number % len(FOODS)]}, please, number {number}."),
        expert("Here is a place."),
        user("Thanks."),
    )


def conversation(number: int) -> Conversation:
    return Conversation(id=f"c{number}", group=f"c{number}", split="train", source="test", messages=messages(number))


def turns(number: int) -> list[Turn]:
    """Two turns with a question and one stop."""
    said = messages(number)
    return [
        Turn(
            id=f"c{number}#{index}",
            conversation_id=f"c{number}",
            group=f"c{number}",
            split="train",
            index=index,
            context=said[:place],
            expert_reply=said[place].content,
            future=said[place + 1 :],
            target=Target(decision="stop" if place == 5 else "continue"),
        )
        for index, place in enumerate((1, 3, 5))
    ]


def finished_run(path: Path, command: str, records: list[Any]) -> Path:
    """A run directory such as `askwell COMMAND` leaves."""
    path.mkdir(parents=True)
    kinds: list[Record] = records
    jsonl.write(path / "records.jsonl", kinds)
    (path / "recipe.json").write_text(json.dumps({"command": command}))
    (path / "manifest.json").write_text('{"counts": {}}')
    return path


def labelled(path: Path, count: int = 11) -> Path:
    return finished_run(path, "label", [turn for number in range(count) for turn in turns(number)])


def ingested(path: Path, count: int = 11) -> Path:
    return finished_run(path, "ingest", [conversation(number) for number in range(count)])


def threads(path: Path, count: int = 6) -> Path:
    """Questions below posts, two a post."""
    found = [
        Thread(
            id=f"t{number}",
            conversation_id=f"p{number // 2}",
            group=f"p{number // 2}",
            split="train",
            source="askdocs",
            context=(user(f"I am hungry, number {number}."), expert("Which city?"), user("In Oslo.")),
            question="What would you like to eat?",
        )
        for number in range(count)
    ]
    source = finished_run(path, "ingest", found)
    (source / "recipe.json").write_text('{"command": "ingest", "source": "askdocs"}')
    return source


def recipe(source: Path, output: Path, **fields: Any) -> TrainRecipe:
    values: dict[str, Any] = {
        "input": source,
        "output": output,
        "scratch": {"vocabulary": 300, "hidden": 16, "layers": 1, "heads": 2},
        "optimizer": {"learning_rate": 0.01},
        "batch": 4,
        "epochs": 3,
        "checkpoint_every": 2,
    }
    return TrainRecipe.model_validate({**values, **fields})


def metrics(path: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl, less the wall clock."""
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]
