"""The expert's choice against utterances irrelevant to the dialogue."""

import json
import random

import pytest

from askwell import jsonl, runs
from askwell.errors import DataError
from askwell.labelling import contrast
from askwell.recipes import ContrastRecipe
from askwell.records import Message, QuestionSet, Target, Turn

STOP = "<stop />"


def turn(name, service, *, decision="continue", split="train", reply=None):
    conversation, _, index = name.partition("#")
    return Turn(
        id=name,
        conversation_id=conversation,
        group=conversation,
        split=split,
        index=int(index),
        context=(Message(role="user", content="Hello."),),
        expert_reply=reply or f"Question {name}?",
        future=(),
        target=Target(decision=decision),
        service=service,
    )


TURNS = [
    *(turn(f"food{number}#0", "Food") for number in range(4)),
    *(turn(f"food{number}#1", "Food", decision="stop", reply="Bye.") for number in range(4)),
    *(turn(f"bus{number}#0", "Bus") for number in range(4)),
    *(turn(f"train{number}#0", "Train", split="test") for number in range(3)),
    *(turn(f"taxi{number}#0", "Taxi", split="test") for number in range(3)),
]


def labelled(path, turns):
    path.mkdir(parents=True)
    jsonl.write(path / "records.jsonl", turns)
    (path / "recipe.json").write_text(json.dumps({"command": "label"}))
    (path / "manifest.json").write_text('{"counts": {}}')
    return path


def made(tmp_path, turns=TURNS, **fields):
    wanted = ContrastRecipe(input=labelled(tmp_path / "label", turns), output=tmp_path / "out", **fields)
    counts = runs.carry_out(contrast, wanted, "contrast")
    assert contrast.plan(wanted) == counts
    return list(jsonl.read(tmp_path / "out" / "records.jsonl", QuestionSet)), counts


def test_a_rival_is_a_question_of_another_service_in_the_same_split(tmp_path):
    sets, counts = made(tmp_path)
    assert counts == {"question_sets": len(TURNS)}
    services = {turn.expert_reply: (turn.service, turn.split) for turn in TURNS}
    for record, turn in zip(sets, TURNS, strict=True):
        better, worse = record.candidates
        assert better.text == (turn.expert_reply if turn.target.decision == "continue" else STOP)
        service, split = services[worse.text]
        assert (service != turn.service, split) == (True, turn.split)
        assert worse.text != "Bye."  # what is said at a stop is no question
        [preference] = record.preferences
        assert (preference.attribute, preference.better, preference.worse) == ("relevance", 0, 1)


def test_the_rivals_of_a_turn_are_drawn_by_its_id(tmp_path):
    sets, _ = made(tmp_path / "a")
    again, _ = made(tmp_path / "b")
    assert sets == again
    other, _ = made(tmp_path / "c", seed=1)
    assert sets != other


def test_several_rivals_are_distinct_and_as_many_as_there_are(tmp_path):
    sets, _ = made(tmp_path, rivals=6)
    rivals = [[each.text for each in record.candidates[1:]] for record in sets]
    assert all(len(set(each)) == len(each) for each in rivals)
    assert [len(each) for each in rivals[:4]] == [4] * 4  # there are four questions about buses
    assert len(sets[0].preferences) == 4


def test_without_services_another_dialogue_is_enough(tmp_path):
    sets, _ = made(tmp_path, [turn("a#0", None), turn("b#0", None)])
    assert [record.candidates[1].text for record in sets] == ["Question b#0?", "Question a#0?"]


def test_what_has_no_target_or_no_rival_is_counted(tmp_path):
    rows = [turn("a#0", "Food"), turn("b#0", "Bus"), turn("c#0", "Food").model_copy(update={"target": None})]
    rows.append(turn("d#0", "Food", split="dev"))
    random.Random(0).shuffle(rows)
    _, counts = made(tmp_path, rows)
    assert counts == {"question_sets": 2, "turns_without_target": 1, "turns_without_rival": 1}
    with pytest.raises(DataError, match="no turn has a target and a rival"):
        made(tmp_path / "alone", [turn("a#0", "Food")])
