"""attributes propose: drafts that `attributes.load` takes, and refusals of what is none."""

import json

import pytest

from askwell import attributes, recipes, runs
from askwell.cli import main
from askwell.errors import DataError
from askwell.labelling import proposal
from askwell.llm.transport import InProcess
from askwell.mock_endpoint import MockEndpoint

WHOLE = {
    "name": "Cost Awareness",
    "title": "Cost",
    "group": "repairs",
    "definition": "Whether it says what trying costs.",
    "scale": ["1", "2", "3", "4", "5"],
    "tips": ["Money and time."],
    "more": "Say it.",
    "less": "Hide it.",
}


def recipe_of(tmp_path, examples, **fields):
    (tmp_path / "questions.txt").write_text(examples)
    endpoint = {"model": "mock"}
    return recipes.ProposeRecipe(
        goal="mend routers", examples=tmp_path / "questions.txt", output=tmp_path / "run", endpoint=endpoint, **fields
    )


def propose(recipe, answer):
    mock = MockEndpoint(lambda body: answer(body) if callable(answer) else json.dumps({"attributes": answer}))
    with runs.start(recipe, "attributes propose") as run:
        counts = proposal.run(recipe, run, InProcess(mock.send))
        run.finish(counts)
    return counts


def test_drafts_are_files_that_are_read_wherever_a_name_is(tmp_path):
    broken = {**WHOLE, "name": "vague", "scale": ["bad", "good"]}
    counts = propose(recipe_of(tmp_path, "Is it on?\n"), [WHOLE, broken, WHOLE])
    assert counts["attributes"] == "cost_awareness" and counts["refused"] == 2
    draft = attributes.load(tmp_path / "run" / "attributes" / "cost_awareness.toml")
    assert draft.model_dump(exclude={"name", "scale", "tips"}) == {
        key: WHOLE[key] for key in ("title", "group", "definition", "more", "less")
    }
    refused = json.loads((tmp_path / "run" / "report.json").read_text())["refused"]
    assert "five sentences" in refused[0] and "proposed twice" in refused[1]


def test_goal_examples_and_count_are_what_the_model_sees(tmp_path):
    bodies = []

    def answer(body):
        bodies.append(body["messages"][1]["content"])
        return json.dumps({"attributes": [WHOLE]})

    lines = '{"question": "Is it on?"}\n\nDoes a light blink?\n{"text": "Since when?"}\n'
    propose(recipe_of(tmp_path, lines, shown=2, count=3), answer)
    (text,) = bodies
    assert "mend routers" in text and "at most 3 attributes" in text
    assert sum(example in text for example in ("Is it on?", "Does a light blink?", "Since when?")) == 2


@pytest.mark.parametrize(
    ("examples", "says"),
    [("\n \n", "holds no example"), ('{"q": 1}\n', "questions.txt:1: neither"), ("{x\n", "is none")],
)
def test_a_file_without_questions_is_refused(tmp_path, examples, says):
    with pytest.raises(DataError, match=says):
        proposal.inputs(recipe_of(tmp_path, examples))


def test_a_model_that_proposes_nothing_usable_is_named(tmp_path):
    with pytest.raises(DataError, match="mock: proposed no attribute that can be used"):
        propose(recipe_of(tmp_path, "Is it on?\n"), [{**WHOLE, "more": " "}])


def test_the_clinic_proposes_what_the_examples_lack(tmp_path, world, capsys):
    questions = world.findings[0].questions
    (tmp_path / "questions.txt").write_text(f"{questions.good[0]}\n{questions.leading[0]}\n{questions.jargon[0]}\n")
    call = ["attributes", "propose", "--goal", "find out what is behind it", "--output", str(tmp_path / "run")]
    call += ["--examples", str(tmp_path / "questions.txt"), "--endpoint.base_url", "clinic:", "--endpoint.model", "c"]
    assert main([*call, "--dry-run"]) == 0 and "calls: 1" in capsys.readouterr().out
    assert main(call) == 0
    assert {path.stem for path in (tmp_path / "run" / "attributes").iterdir()} == {"answerability", "avoid_bias"}
    assert attributes.load(tmp_path / "run" / "attributes" / "avoid_bias.toml") == attributes.load("avoid_bias")
