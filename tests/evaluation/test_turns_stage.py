"""`askwell evaluate turns` from labelled turns to report, with a policy and graders that need no weights."""

import json
from types import SimpleNamespace

import pytest
from evaluation_examples import STOP, TURNS, Chatter, WordGrader, finished_run, recipe_of, turn

from askwell import jsonl, runs
from askwell.errors import DataError, RecipeError
from askwell.evaluation import report, turns
from askwell.mock_endpoint import MockEndpoint
from askwell.records import Grade, Reply
from served import served

OTHERS = [
    turn("a#2", "continue", ("city",)).model_copy(update={"split": "train"}),
    turn("c#0", "continue").model_copy(update={"target": None}),
    turn("d#0", "stop", expert="Goodbye."),
]


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Labelled turns, two graders and a policy; `world.policies` holds the policies that were loaded."""
    finished_run(tmp_path / "labelled", "label", [*TURNS, *OTHERS])
    finished_run(tmp_path / "grader", "grader")
    finished_run(tmp_path / "other", "grader")
    found = SimpleNamespace(directory=tmp_path, policies=[], policy=Chatter, grader=WordGrader)

    def load_policy(name, *, prompt="", stop_marker=STOP):
        found.policies.append((name, prompt, stop_marker))
        return found.policy()

    def load_grader(directory):
        assert directory.name == "checkpoint"
        return found.grader() if directory.parent.name == "grader" else WordGrader(deaf_to="time")

    monkeypatch.setattr(turns, "LocalPolicy", SimpleNamespace(load=load_policy))
    monkeypatch.setattr(turns, "SlotGrader", SimpleNamespace(load=load_grader))
    return found


def evaluate(world, **fields):
    recipe = recipe_of(world.directory, **{"batch": 2, "samples": 3, "max_unscored": 1, **fields})
    with runs.start(recipe, "evaluate turns", inputs=turns.inputs(recipe)) as run:
        counts = turns.run(recipe, run)
        run.finish(counts)
    return recipe.output, counts


def test_a_run_leaves_grades_and_reports(world):
    output, counts = evaluate(world, prompt="policy")
    grades = list(jsonl.read(output / "records.jsonl", Grade))
    ids = [t.id for t in TURNS] + ["d#0"]
    assert [(grade.turn_id, grade.sample) for grade in grades] == [(name, i) for name in ids for i in range(3)]
    said = {(reply.turn_id, reply.sample): reply.text for reply in jsonl.read(output / "replies.jsonl", Reply)}
    assert {(grade.turn_id, grade.sample): grade.reply for grade in grades} == said
    assert world.policies == [("a/policy", "policy", STOP)]
    expected = {"turns": 6, "turns: continue": 3, "turns: stop": 3, "turns without target": 1, "conversations": 3}
    assert {name: counts[name] for name in expected} == expected
    assert (counts["replies"], counts["questions"]) == (18, sum(grade.decision == "continue" for grade in grades))
    assert counts["unscored: the truth names no facts"] == sum(
        grade.turn_id == "b#1" and grade.decision == "continue" for grade in grades
    )
    found = report.load(output)
    assert found["counts"] == counts
    assert (found["agreement"], found["reader"]) == (None, None)
    assert found["figures"]["AA"]["value"] == pytest.approx(sum(grade.decision_score for grade in grades) / 18)
    assert found["expert"]["AA"] == {"value": 1, "low": 1, "high": 1, "scored": 6, "unscored": 0}
    assert "| TR |" in (output / "report.md").read_text()
    page = (output / "report.html").read_text()
    assert page.count("<details>") == 1 + len(ids) and "a/policy at logged turns" in page


def files(output):
    return {
        name: (output / name).read_bytes() for name in ("replies.jsonl", "records.jsonl", "report.json", "report.md")
    }


def test_killed_and_repeated_is_as_if_undisturbed(world):
    whole = files(evaluate(world)[0])
    (world.directory / "out").rename(world.directory / "whole")
    world.policy = lambda: Chatter(dies_after=1)
    with pytest.raises(KeyboardInterrupt):
        evaluate(world)
    torn = world.directory / "out" / "replies.jsonl"
    torn.write_bytes(torn.read_bytes()[:-7])
    assert not runs.finished(world.directory / "out")
    world.policy = Chatter
    assert files(evaluate(world)[0]) == whole


def test_second_grader_and_reader_are_reported(world):
    output, _ = evaluate(world, second_grader="other", reader="a/reader")
    assert world.policies == [("a/policy", "", STOP), ("a/reader", "", STOP)]
    found = report.load(output)
    assert found["agreement"]["abstains"]["value"] > 0
    assert found["agreement"]["equal_sets"]["value"] == 1
    assert found["agreement"]["figures"]["WA"]["unscored"] > found["figures"]["WA"]["unscored"]
    assert found["agreement"]["expert"]["AA"]["value"] == 1
    assert found["reader"]["policy"]["value"] > 1
    text = (output / "report.md").read_text()
    assert "## The second grader" in text
    assert "policy, second grader" in text
    assert "perplexity of the experts' own questions" in text


def test_plan_counts_and_writes_nothing(world):
    before = sorted(world.directory.rglob("*"))
    assert turns.plan(recipe_of(world.directory, samples=3)) == {
        "turns": 6,
        "turns: continue": 3,
        "turns: stop": 3,
        "turns without target": 1,
        "conversations": 3,
        "replies": 18,
    }
    assert turns.plan(recipe_of(world.directory, limit=1))["conversations"] == 1
    assert turns.plan(recipe_of(world.directory, split="train"))["turns"] == 1
    assert (sorted(world.directory.rglob("*")), world.policies) == (before, [])


def test_inputs_are_what_lies_on_disk(world):
    policy = finished_run(world.directory / "policy", "train")
    recipe = recipe_of(world.directory, policy=str(policy), second_grader="other", reader="name/on-the-hub")
    assert turns.inputs(recipe) == [recipe.input, recipe.grader, recipe.second_grader, policy]


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"grader": "labelled"}, DataError, "output of `askwell label`, where that of `askwell grader` is needed"),
        ({"grader": "nowhere"}, DataError, "make it with `askwell grader"),
        ({"second_grader": "nowhere"}, DataError, "make it with `askwell grader"),
        ({"second_grader": "grader"}, RecipeError, "is the grader itself"),
        ({"reader": "a/policy"}, RecipeError, "is the policy itself"),
        ({"split": "dev"}, DataError, "no turn with a target in split 'dev'"),
        ({"input": "grader"}, DataError, "that of `askwell label` is needed"),
    ],
)
def test_what_would_fail_late_is_refused_before_a_policy_is_loaded(world, fields, error, message):
    with pytest.raises(error, match=message):
        turns.plan(recipe_of(world.directory, **fields))
    with pytest.raises(error, match=message):
        evaluate(world, **fields)
    assert world.policies == []
    # Only what the records themselves say is found out after the run directory was made.
    assert (world.directory / "out").exists() == (fields == {"split": "dev"})


def test_too_many_unscored_questions_stop_the_run_with_the_reasons(world):
    world.grader = lambda: WordGrader(deaf_to="")
    with pytest.raises(
        DataError, match=r"\d+ of \d+ questions \(100%\) are unscored, above max_unscored 50%: .*abstains"
    ):
        evaluate(world, max_unscored=0.5)
    assert not runs.finished(world.directory / "out")
    assert len(list(jsonl.read(world.directory / "out" / "records.jsonl", Grade))) == 18
    output, counts = evaluate(world, output="accepted")
    found = json.loads((output / "report.json").read_text())["figures"]
    assert (found["WA"]["value"], found["unscored"]["value"]) == (None, 1)
    assert found["AA"]["value"] is not None
    assert counts["unscored: the grader abstains"] > 0


def test_silent_policy_has_no_questions_to_score(world):
    world.policy = lambda: SimpleNamespace(
        replies=lambda contexts, samples, **_: [STOP] * (samples * len(contexts)), messages_left_out=0
    )
    output, counts = evaluate(world, max_unscored=0)
    found = report.load(output)["figures"]
    assert (counts["questions"], found["WA"]["value"], found["WA all"]["value"]) == (0, None, 0)
    assert (found["WS"]["value"], found["WC"]["value"]) == (1, 0)


def test_a_judge_behind_an_endpoint_evaluates(world):
    mock = MockEndpoint(lambda body: '{"reason": "read", "questions": "one", "match": "related"}')
    with served(mock) as url:
        output, counts = evaluate(world, grader=None, judge={"model": "mock", "base_url": url})
    grades = list(jsonl.read(output / "records.jsonl", Grade))
    asked = [grade for grade in grades if grade.reason == "read"]
    assert asked and all((grade.content_score, grade.reward) == (0.5, 3.0) for grade in asked)
    assert counts["replies"] == 18 and mock.ledger.paid == len(mock.ledger.paid_by_body)
    assert report.load(output)["expert"]["WA"]["value"] == 0.5


@pytest.mark.parametrize("fields", [{"grader": None}, {"judge": {"model": "mock"}}])
def test_one_grader_evaluates(world, fields):
    with pytest.raises(RecipeError, match="one grader evaluates"):
        evaluate(world, **fields)


def test_a_limit_on_unscored_may_be_raised_and_no_reply_is_drawn_again(world):
    with pytest.raises(DataError, match="the replies are kept"):
        evaluate(world, max_unscored=0)
    drawn = (world.directory / "out" / "replies.jsonl").read_bytes()
    world.policy = lambda: Chatter(dies_after=0)
    output, counts = evaluate(world, max_unscored=1)
    assert (output / "replies.jsonl").read_bytes() == drawn and counts["replies"] == 18
