"""ALFA's table in the clinic, much smaller: every kind of row, each stage once, and the paper's orderings."""

import json
import math

import pytest

from askwell import cli
from askwell.clinic.knowledge import load
from askwell.clinic.language import oracle_of
from askwell.clinic.quality import Quality
from askwell.recipes import ScratchModel, StudyAlfaRecipe
from askwell.studies import alfa, alfa_steps, clinic


@pytest.fixture
def tiny(monkeypatch):
    scratch = ScratchModel(vocabulary=600, hidden=16, layers=1, heads=2)
    size = clinic.Size(60, scratch, 0.2, 0.2, 0.2, 0.3, 6)
    monkeypatch.setitem(alfa_steps.SIZES, "small", alfa_steps.Size(8, 60, size, 6, 6))
    monkeypatch.setattr(clinic, "LONGEST", 8)  # of a rollout: a policy that has learned nothing never ends of itself


def test_the_table_has_every_kind_of_row_and_says_which_orderings_hold(tmp_path, tiny):
    out = tmp_path / "study"
    rows = ["sft_real", "clinical", "ppo_reward_fusion", "learn_attributes"]
    call = ["study", "alfa", "--budget", "small", "--workers", "1", "--output", str(out)]
    assert cli.main([*call, "--rows", ",".join(rows)]) == 0
    found = json.loads((out / "report.json").read_text())
    assert list(found["rows"]) == ["human", "base", *rows]
    for name, figures in found["rows"].items():
        assert ("win_rate" in figures, "interviews" in figures) == (name != "base", name != "human")
        assert set(figures["attributes"]) == {*alfa.ALFA, "overall"}
    assert [(each["better"], each["worse"]) for each in found["orderings"]] == [("sft_real", "base")]
    assert found["union"] == []
    equal = found["at equal questions"]
    assert set(equal["after"]) == {"random", "base", *rows} and len(equal["after"]["random"]) == alfa_steps.FIXED
    assert [(each["better"], each["worse"]) for each in equal["steps"]] == [
        ("sft_real", "random"),
        ("ppo_reward_fusion", "random"),
        ("ppo_reward_fusion", "sft_real"),
    ]
    # What is not base's own is compared with base: a tie everywhere is a win-rate of one half, whoever sits first.
    assert math.isclose(0.5 + found["orderings"][0]["gain"]["value"], found["rows"]["sft_real"]["win_rate"]["value"])
    assert found["orderings"][0]["by seed"] == [found["orderings"][0]["gain"]["value"]]
    asked = alfa.asking(out, Quality(oracle_of(load(systems=("respiratory",)))), seed=0)
    where = found["rows"]["human"]["win_rate_where_base_asks"]
    assert where["scored"] + where["unscored"] == len(asked) <= found["rows"]["human"]["win_rate"]["scored"]
    page = (out / "report.md").read_text()
    for text in ("| learn_attributes |", "| reference asker |", "Everything known", "The paper's orderings"):
        assert text in page


def test_rows_are_compared_where_both_are_scored():
    one = alfa.Scores([1.0, None, 0.5, 1.0], ["a", "a", "b", "b"])
    other = alfa.Scores([0.0, 0.0, None, 0.5], ["a", "a", "b", "b"])
    found = alfa.gain([one], [other], seed=0)
    assert (found.value, found.scored, found.unscored) == (0.75, 4, 4)  # both sides'
    twice = [
        {"better": "x", "worse": "y", "claim": "c", "gain": alfa.gain([one, other], [other, other], seed=0)._asdict()}
    ]
    found = list(alfa.claims({"x": [one, other], "y": [other, other]}, [("x", "y", "c"), ("x", "z", "d")], seed=0))
    assert found == [{**twice[0], "by seed": [0.75, 0.0]}]
    with pytest.raises(AssertionError, match="at the same contexts"):
        alfa.gain([one], [alfa.Scores([1.0], ["a"])], seed=0)


def test_all_rows_are_planned_and_each_stage_once(tmp_path):
    recipe = StudyAlfaRecipe(output=tmp_path / "study")
    chain = alfa.steps(recipe, recipe.output)
    outputs = [step.output for step in chain]
    assert len(set(outputs)) == len(outputs)
    for place, step in enumerate(chain):
        text = json.dumps(step.recipe.model_dump(mode="json", exclude={"output"}))
        for other in outputs:
            if f'"{other}' in text and other != step.output:
                assert any(str(path).startswith(str(other)) for path in outputs[:place]), (step.output, other)
    compared = [step.recipe for step in chain if step.command == "evaluate questions"]
    assert len(compared) == 26 * 3 + 1 and {each.seed for each in compared} == {0}
