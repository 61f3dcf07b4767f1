"""The demo, much smaller: every stage runs, and the page shows what they found."""

import pytest

from askwell import recipes, runs
from askwell.recipes import ScratchModel
from askwell.studies import clinic, demo


@pytest.fixture
def small(monkeypatch):
    scratch = ScratchModel(vocabulary=600, hidden=16, layers=1, heads=2)
    monkeypatch.setattr(demo, "SIZE", clinic.Size(40, scratch, 0.2, 0.2, 0.2, 0.3, 4))
    # A policy that has learned nothing never ends of itself.
    monkeypatch.setattr(clinic, "LONGEST", 8)
    monkeypatch.setattr(clinic, "MOST", 3)


def test_every_stage_runs_and_the_page_holds_the_table_curves_and_interviews(tmp_path, small):
    recipe = recipes.StudyDemoRecipe(output=tmp_path / "demo", workers=1)
    counts = runs.carry_out(demo, recipe, "study demo")
    assert counts["stages"] == 12
    page = (tmp_path / "demo" / "index.html").read_text()
    for text in ("best possible asker", "diagnostic accuracy", "<svg", "data:image/png", "askwell label", "invented"):
        assert text in page
    assert "<script" not in page and "http://" not in page and "src='http" not in page


def test_the_plan_says_why_each_stage_is_there(tmp_path):
    plan = demo.plan(recipes.StudyDemoRecipe(output=tmp_path / "demo"))
    assert len(plan) == 12 and all(isinstance(why, str) and len(why) > 20 for why in plan.values())
