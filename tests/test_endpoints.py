"""Where an endpoint is, and a checkpoint in the roles that a recipe gives to a model behind one."""

import json
import subprocess
import sys

import pytest

from askwell import endpoints, local_endpoint, recipes, runs, weights
from askwell.cli import main
from askwell.errors import RecipeError
from askwell.grading.judge import Judge
from askwell.labelling import extraction
from askwell.llm.client import local, permit
from askwell.llm.transport import InProcess
from askwell.recipes import CLINIC, LOCAL, Endpoint, LabelRecipe
from askwell.records import Conversation, Message, Reply, Target, Turn
from local_examples import STOP, babbler, pupil

PAIN = [
    ("user", "It hurts."),
    ("assistant", "Since when?"),
    ("user", "Since two days."),
    ("assistant", "Rest."),
]
FEVER = [
    ("user", "I am hot."),
    ("assistant", "How high is the fever?"),
    ("user", "It is 39."),
    ("assistant", "Drink."),
]
FACTS = {"It hurts.": "Since two days", "I am hot.": "It is 39"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("babbler")
    weights.save(babbler(), path)
    return path


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Three conversations, two of which say the same."""
    path = tmp_path_factory.mktemp("logs")
    with (path / "logs.jsonl").open("w") as file:
        for number, said in enumerate([PAIN, FEVER, PAIN]):
            messages = [{"role": role, "content": content} for role, content in said]
            file.write(json.dumps({"id": f"d{number}", "messages": messages}) + "\n")
    assert main(["ingest", "--source", "chat", "--input", str(path / "logs.jsonl"), "--output", str(path / "in")]) == 0
    return path / "in"


def call(logs, model, output, *more):
    flags = {"truth": "llm", "input": logs, "output": output, "endpoint.base_url": LOCAL, "endpoint.model": model}
    pairs = {**flags, "endpoint.max_tokens": 80}
    return ["label", *(text for name, value in pairs.items() for text in (f"--{name}", str(value))), *more]


@pytest.fixture(scope="module")
def annotator(logs, tmp_path_factory):
    """A checkpoint that reads these conversations as a careful annotator would."""
    recipe = LabelRecipe(input=logs, output=logs.parent / "x", truth="llm", endpoint=Endpoint(model="m"))
    lessons = {}
    for conversation in runs.records_of(logs, Conversation, made_by="askwell ingest"):
        fact = FACTS[conversation.messages[0].content]
        answer = json.dumps({"facts": [{"quote": fact, "fact": fact, "asked": 2, "told": 3}]})
        (messages,) = extraction.questions(conversation, recipe).values()
        lessons[answer] = messages
    path = tmp_path_factory.mktemp("annotator")
    weights.save(pupil([(messages, answer) for answer, messages in lessons.items()]), path)
    return path


def test_logs_are_labelled_by_a_checkpoint_without_any_server(logs, annotator, tmp_path):
    assert main(call(logs, annotator, tmp_path / "turns")) == 0
    found = {turn.id: turn.target for turn in runs.records_of(tmp_path / "turns", Turn, made_by="askwell label")}
    pain, fever = ((FACTS[said[0][1]],) for said in (PAIN, FEVER))
    assert {name: target.facts for name, target in found.items()} == {
        **{"d0#0": pain, "d0#1": (), "d1#0": fever, "d1#1": (), "d2#0": pain, "d2#1": ()}
    }
    counts = runs.counts_of(tmp_path / "turns")
    assert counts["conversations"] == {"ok": 3} and counts["answers"]["ok"] == 2
    provenance = json.loads((tmp_path / "turns" / "provenance.json").read_text())
    assert str(annotator) in provenance["inputs"]


def test_a_dry_run_loads_no_weights_and_knows_what_is_stored(logs, annotator, tmp_path, monkeypatch, capsys):
    assert main(call(logs, annotator, tmp_path / "turns")) == 0

    def load(name, **_):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(weights, "load", load)
    capsys.readouterr()
    assert main([*call(logs, annotator, tmp_path / "again"), "--dry-run"]) == 0
    assert "answers stored already: 3" in capsys.readouterr().out


def test_babble_is_unscored_and_too_much_of_it_ends_the_stage(logs, folder, tmp_path, capsys):
    assert main(call(logs, folder, tmp_path / "turns")) == 2
    error = capsys.readouterr().err
    assert "3 of 3 conversations have no usable answer" in error and "Traceback" not in error
    assert main(call(logs, folder, tmp_path / "lax", "--endpoint.max_unscored", "1.0")) == 2
    assert "found no fact in any conversation" in capsys.readouterr().err
    unscored = [json.loads(line) for line in (tmp_path / "lax" / "unscored.jsonl").read_text().splitlines()]
    assert len(unscored) == 3 and {line["reason"] for line in unscored} <= {"unreadable", "length"}


def test_a_missing_checkpoint_is_one_line_before_anything_is_made(logs, tmp_path, capsys):
    for more in ((), ("--dry-run",)):
        assert main(call(logs, tmp_path / "none", tmp_path / "turns", *more)) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("askwell: error: endpoint.model") and f"{tmp_path / 'none'}" in error
        assert "name a checkpoint directory" in error
    assert not (tmp_path / "turns").exists()


def test_a_checkpoint_judges_where_a_policy_is_evaluated_or_trained(logs, annotator, folder, tmp_path, capsys):
    turns = tmp_path / "turns"
    assert main(call(logs, annotator, turns)) == 0
    policy = ["--input", str(turns), "--split", "train", "--output", str(tmp_path / "out")]
    evaluate = ["evaluate", "turns", *policy, "--policy", str(folder), "--max_new_tokens", "8"]
    train = ["train", "--method", "grpo", *policy, "--model", str(folder)]
    for command, name in ((evaluate, "judge"), (train, "rollouts.judge")):
        judge = [f"--{name}.base_url", LOCAL, f"--{name}.model"]
        for more in ((), ("--dry-run",)):
            assert main([*command, *judge, str(tmp_path / "none"), *more]) == 2
            assert "endpoint.model" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    lax = ["--max_unscored", "1", "--judge.max_unscored", "1", "--judge.max_tokens", "16"]
    assert main([*evaluate, "--judge.base_url", LOCAL, "--judge.model", str(annotator), *lax]) == 0
    provenance = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert str(annotator) in provenance["inputs"]


def test_other_weights_of_the_same_name_answer_for_themselves(folder, tmp_path):
    policy = babbler()
    weights.save(policy, tmp_path)
    endpoint = Endpoint(base_url=LOCAL, model=str(tmp_path), extra_body={"seed": 3})
    first = endpoints.pinned(endpoint)
    assert endpoints.pinned(endpoint) == first and first.extra_body["seed"] == 3
    policy.model.model.norm.weight.data.mul_(2)
    weights.save(policy, tmp_path)
    assert endpoints.pinned(endpoint).extra_body != first.extra_body
    assert first.concurrency == endpoints.IN_FLIGHT == 2 * local_endpoint.MOST
    plain = Endpoint(model="m")
    assert endpoints.pinned(plain) is plain


def test_a_judge_may_be_a_checkpoint(folder, tmp_path):
    turn = Turn(
        id="a",
        conversation_id="a",
        group="a",
        split="train",
        index=0,
        context=(Message(role="user", content="It hurts."),),
        expert_reply="Since when?",
        future=(),
        target=Target(decision="continue", facts=("since two days",)),
    )
    endpoint = Endpoint(base_url=LOCAL, model=str(folder), max_tokens=16)
    judge = Judge(endpoint, tmp_path / "answers.sqlite", run="r", stop_marker=STOP, most=1.0)
    try:
        replies = [Reply(turn_id="a", sample=number, text=f"Since {number} days?") for number in range(3)]
        grades = judge.graded([turn], replies)
    finally:
        judge.close()
    assert [grade.reward for grade in grades] == [None] * 3
    assert all(grade.reason.startswith("unscored: the judge: ") for grade in grades)
    with pytest.raises(RecipeError, match="cannot answer"):
        Judge(
            endpoint.model_copy(update={"model": str(tmp_path / "none")}),
            tmp_path / "none.sqlite",
            run="r",
            stop_marker=STOP,
        )
    assert not (tmp_path / "none.sqlite").exists()


def test_each_address_has_its_way(tmp_path):
    assert endpoints.transport_of(Endpoint(model="m")) is None
    assert isinstance(endpoints.transport_of(Endpoint(model="clinic", base_url=CLINIC)), InProcess)
    part = endpoints.world_of(Endpoint(model="respiratory+skin", base_url=CLINIC))
    assert 0 < len(part.conditions) < len(endpoints.world_of(Endpoint(model="clinic", base_url=CLINIC)).conditions)
    with pytest.raises(RecipeError, match="is `clinic`, or the body systems"):
        endpoints.inputs(Endpoint(model="gpt", base_url=CLINIC))
    assert local(LOCAL)
    permit(Endpoint(model="m", base_url=LOCAL), redacted=False, what=tmp_path)  # nothing leaves the machine


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"structured": "json_schema"}, "samples freely"),
        ({"extra_body": {"top_k": 5}}, "knows `seed` alone"),
        ({"extra_body": {"seed": "one"}}, "knows `seed` alone"),
        ({"base_url": "local:models/x"}, "must be http"),
    ],
)
def test_what_a_checkpoint_cannot_do_is_refused_in_the_recipe(fields, says):
    with pytest.raises(RecipeError, match=says):
        recipes.resolve(Endpoint, {"model": "m", "base_url": LOCAL, **fields})


def test_labelling_by_a_server_needs_no_torch():
    code = "import sys, askwell.labelling.extraction as stage; assert stage and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
