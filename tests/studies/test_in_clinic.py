"""Learn-to-Ask's table in the clinic, much smaller: every row, and interviews as its test."""

import json

import pytest

from askwell import cli
from askwell.recipes import ScratchModel, StudyRecipe
from askwell.studies import clinic, learn_to_ask


@pytest.fixture
def tiny(monkeypatch):
    scratch = ScratchModel(vocabulary=600, hidden=16, layers=1, heads=2)
    monkeypatch.setitem(clinic.SIZES, "full", clinic.Size(40, scratch, 0.2, 0.2, 0.2, 0.3, 4))
    # A policy that has learned nothing never ends of itself.
    monkeypatch.setattr(clinic, "LONGEST", 8)
    monkeypatch.setattr(clinic, "MOST", 3)


def test_the_table_has_turns_and_interviews_of_all_seeds_and_what_each_has_over_sft(tmp_path, tiny):
    out = tmp_path / "study"
    call = ["study", "learn-to-ask", "--data", "clinic", "--output", str(out), "--workers", "1"]
    assert cli.main([*call, "--rows", "sft,dpo,cispo", "--seeds", "2"]) == 0
    found = json.loads((out / "report.json").read_text())
    names = [f"{row}, {decoding}" for decoding in ("sampled", "greedy") for row in ("sft", "dpo", "cispo")]
    assert list(found["turns"]) == list(found["interviews"]) == names
    asked = {name: found["interviews"][name]["accuracy"]["scored"] for name in names}
    assert asked == {name: 4 if name.startswith("dpo") else 8 for name in names}  # dpo has one seed
    assert set(found["interviews against sft"]) == {name for name in names if not name.startswith("sft")}
    assert set(found["bounds"]) == {"reference", "random"}
    assert set(found["at equal questions"]["greedy"]["after"]) == {"sft", "dpo", "cispo", "random"}
    page = (out / "report.md").read_text()
    for text in ("| cispo, greedy |", "Over SFT, paired", "| reference |", "Everything known", "(rewards.png)"):
        assert text in page


def test_all_rows_are_planned_with_the_same_people_for_each(tmp_path):
    recipe = StudyRecipe(data="clinic", output=tmp_path / "study")
    chain = list(learn_to_ask.steps(recipe, recipe.output))
    outputs = [step.output.relative_to(recipe.output) for step in chain]
    assert len(set(outputs)) == len(outputs)
    interviewed = [step.recipe for step in chain if step.command == "evaluate interviews"]
    assert {recipe.seed for recipe in interviewed} == {0} and len(interviewed) == 2 * (4 * 3 + 5) + 1
    trained = [str(output) for output in outputs if output.parts[0] in recipe.rows]
    assert len(trained) == 4 * 3 + 5
