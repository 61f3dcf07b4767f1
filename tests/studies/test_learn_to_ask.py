"""The study end to end on small invented dialogues, cut and resumed."""

import json

import pytest

import toy_sgd
from askwell import cli, runs
from askwell.grading import convolution
from askwell.recipes import ScratchModel, StudyRecipe
from askwell.studies import learn_to_ask
from askwell.studies.learn_to_ask import Budget


@pytest.fixture
def data(tmp_path):
    toy_sgd.write(tmp_path / "sgd" / "train", 90, seed=0)
    toy_sgd.write(tmp_path / "sgd" / "dev", 70, seed=1)
    return tmp_path / "sgd"


@pytest.fixture
def tiny(monkeypatch):
    budget = Budget(None, ScratchModel(vocabulary=320, hidden=32, layers=1, heads=2), 2, 2, 0.5, 0.3, 5)
    monkeypatch.setitem(learn_to_ask.BUDGETS, "small", budget)
    monkeypatch.setattr(convolution, "STEPS_AT_LEAST", 40)


def test_the_study_goes_on_where_it_was_cut_and_leaves_one_table(data, tiny, tmp_path, monkeypatch, capsys):
    out = tmp_path / "study"
    call = ["study", "learn-to-ask", "--data", str(data), "--budget", "small", "--output", str(out)]
    call += ["--workers", "1", "--rows", "base,sft,dpo,grpo"]
    carry_out = runs.carry_out

    def cut_before_sft(stage, recipe, command):
        if recipe.output.parent.name == "sft":
            raise KeyboardInterrupt
        return carry_out(stage, recipe, command)

    with monkeypatch.context() as patch:
        patch.setattr(runs, "carry_out", lambda *a: carry_out(*a) if a[2].startswith("study") else cut_before_sft(*a))
        patch.setattr(cli.runs, "carry_out", runs.carry_out)
        assert cli.main(call) == 130
    assert not (out / "report.json").exists()
    stamp = (out / "base" / "0" / "manifest.json").stat().st_mtime_ns
    assert cli.main(call) == 0
    assert (out / "base" / "0" / "manifest.json").stat().st_mtime_ns == stamp  # what was finished is not done again

    report = json.loads((out / "report.json").read_text())
    assert set(report["tables"]) == {"test", "dev"}
    rows = report["tables"]["test"]
    trained = ("base", "sft", "dpo", "grpo")
    assert list(rows) == [
        *(f"{row}, sampled" for row in trained),
        *(f"{row}, greedy" for row in trained),
        "the expert, by this grader",
    ]
    assert rows["base, greedy"]["WS"]["value"] == 0  # it has never seen the stop marker
    assert rows["the expert, by this grader"]["AA"]["value"] == 1
    page = (out / "report.md").read_text()
    assert "| sft, greedy |" in page
    assert page.count("Sampled turns") == 1
    assert (out / "rewards.png").stat().st_size > 1000
    assert "(rewards.png)" in page
    capsys.readouterr()


def test_a_dry_run_lists_the_stages_and_writes_nothing(data, tmp_path, capsys):
    out = tmp_path / "study"
    assert cli.main(["study", "learn-to-ask", "--data", str(data), "--output", str(out), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    for command in ("ingest", "label", "grader", "train", "evaluate turns"):
        assert f"{command} --output" in shown
    assert not out.exists()


def test_rows_left_out_cost_nothing(tmp_path):
    recipe = StudyRecipe(data=tmp_path, output=tmp_path / "out", rows=("base",), seeds=2)
    outputs = [
        str(step.recipe.output.relative_to(tmp_path / "out")) for step in learn_to_ask.steps(recipe, recipe.output)
    ]
    assert not any(output.startswith("sft") for output in outputs)
    assert [output for output in outputs if output.startswith("base")] == ["base/0", "base/1"]
    assert not any(output.startswith(("contrast", "grpo")) for output in outputs)
    assert len(outputs) == len(set(outputs))


def test_rows_have_the_seeds_that_the_table_promises(tmp_path):
    recipe = StudyRecipe(data=tmp_path, output=tmp_path / "out")
    outputs = [str(step.output.relative_to(tmp_path / "out")) for step in learn_to_ask.steps(recipe, recipe.output)]
    assert {row: sum(output.startswith(f"{row}/") for output in outputs) for row in recipe.rows} == {
        **dict.fromkeys(("base", "sft", "grpo", "cispo"), 3),
        **dict.fromkeys(("dpo", "gspo", "no_content", "no_decision", "sum"), 1),
    }
    small = StudyRecipe(data=tmp_path, output=tmp_path / "out", budget="small")
    assert all(learn_to_ask.seeds_of(small, row) == [0] for row in small.rows)


def test_data_without_its_folders_is_named(tmp_path, capsys):
    arguments = ["study", "learn-to-ask", "--data", str(tmp_path), "--output", str(tmp_path / "out")]
    assert cli.main(arguments) == 2
    assert "no folder 'train' in it" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
