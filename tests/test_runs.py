"""Run directories: created, resumed, refused; the manifest last."""

import json
import multiprocessing
from pathlib import Path

import pytest

from askwell import jsonl, runs
from askwell.errors import DataError, RunError
from askwell.labelling import hindsight
from askwell.recipes import LabelRecipe
from askwell.records import Conversation, Message


def recipe(path: Path, **changes) -> LabelRecipe:
    return LabelRecipe(output=path, input=Path("somewhere"), **changes)


def finish(path: Path) -> None:
    with runs.start(recipe(path), "label") as run:
        run.records.write_text('{"role":"user","content":"hello"}\n')
        run.finish({"turns": 1})


def test_a_run_leaves_recipe_provenance_and_manifest_last(tmp_path):
    out = tmp_path / "run"
    with runs.start(recipe(out, seed=7), "label", inputs=[Path(__file__)]) as run:
        assert not run.resumed
        assert not runs.finished(out)
        run.log(step=1, loss=0.5)
        run.records.write_text("")
        run.finish({"turns": 0})
    assert runs.finished(out)
    assert json.loads((out / "recipe.json").read_text())["command"] == "label"
    provenance = json.loads((out / "provenance.json").read_text())
    assert provenance["seed"] == 7
    assert provenance["inputs"] == {str(Path(__file__)): runs.sha256(Path(__file__))}
    manifest = json.loads((out / "manifest.json").read_text())
    assert set(manifest["files"]) >= {"recipe.json", "provenance.json", "metrics.jsonl", "records.jsonl"}
    assert manifest["files"]["records.jsonl"] == {"bytes": 0, "sha256": runs.sha256(out / "records.jsonl")}


def test_a_finished_run_is_never_written_to(tmp_path):
    finish(tmp_path / "run")
    with (
        pytest.raises(RunError, match="finished run.*another --output, or delete it"),
        runs.start(recipe(tmp_path / "run"), "label"),
    ):
        pass


def test_an_unfinished_run_of_the_same_recipe_is_resumed(tmp_path):
    with runs.start(recipe(tmp_path / "run"), "label"):
        pass
    with runs.start(recipe(tmp_path / "run"), "label") as run:
        assert run.resumed


def test_an_unfinished_run_of_another_recipe_is_refused_with_what_differs(tmp_path):
    with runs.start(recipe(tmp_path / "run"), "label"):
        pass
    with pytest.raises(RunError, match=r"seed 0 -> 1"), runs.start(recipe(tmp_path / "run", seed=1), "label"):
        pass


def test_the_same_directory_by_another_path_is_the_same_run(tmp_path, monkeypatch):
    with runs.start(recipe(tmp_path / "run"), "label"):
        pass
    monkeypatch.chdir(tmp_path)
    with runs.start(recipe(Path("run")), "label") as run:
        assert run.resumed


def test_a_directory_that_is_no_run_is_refused_untouched(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match="not a run directory"), runs.start(recipe(tmp_path), "label"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_no_output(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="must name a directory"), runs.start(recipe(tmp_path / "file"), "label"):
        pass


def _hold(path: Path, ready, release) -> None:
    with runs.start(recipe(path), "label"):
        ready.set()
        release.wait(20)


def test_two_processes_do_not_share_a_run(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path / "run", ready, release))
    process.start()
    try:
        assert ready.wait(20)
        with pytest.raises(RunError, match="another process"), runs.start(recipe(tmp_path / "run"), "label"):
            pass
    finally:
        release.set()
        process.join()


def test_the_next_stage_reads_only_finished_runs_of_the_right_command(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(DataError, match="no such directory; make it with `askwell label"):
        list(runs.records_of(out, Message, made_by="askwell label"))
    with runs.start(recipe(out), "label"):
        pass
    with pytest.raises(DataError, match="not a finished run"):
        list(runs.records_of(out, Message, made_by="askwell label"))
    finish(out)
    assert list(runs.records_of(out, Message, made_by="askwell label")) == [Message(role="user", content="hello")]
    with pytest.raises(DataError, match="the output of `askwell label`, where that of `askwell ingest` is needed"):
        list(runs.records_of(out, Message, made_by="askwell ingest"))


def conversations_run(path: Path, count: int) -> Path:
    with runs.start(recipe(path), "ingest") as run:
        jsonl.write(
            run.records,
            [
                Conversation(id=str(i), group=str(i), split="test" if i % 2 else "train", source="s", messages=())
                for i in range(count)
            ],
        )
        run.finish({})
    return path


def test_a_limit_draws_conversations_by_hash_and_a_larger_one_keeps_them(tmp_path):
    path = conversations_run(tmp_path / "run", 200)

    def drawn(limit):
        found = runs.sample_of(path, Conversation, made_by="askwell ingest", split="test", limit=limit)
        return [int(conversation.id) for conversation in found]

    assert drawn(None) == list(range(1, 200, 2))
    assert len(drawn(10)) == 10
    assert drawn(10) != drawn(None)[:10]
    assert set(drawn(10)) < set(drawn(20)) < set(drawn(None))
    assert drawn(20) == sorted(drawn(20))  # in the order of the file


def test_what_leaves_the_outcome_as_it_is_may_change_when_a_cut_run_is_resumed(tmp_path):
    def label(**endpoint):
        fields = {"model": "m", "budget": {"money": 1.0}, **endpoint}
        return LabelRecipe(input=tmp_path / "in", output=tmp_path / "out", truth="llm", endpoint=fields)

    with pytest.raises(KeyboardInterrupt), runs.start(label(), "label"):
        raise KeyboardInterrupt
    assert runs.check(label(budget={"money": 5.0}, concurrency=9, max_unscored=0.2), "label")
    with pytest.raises(RunError, match=r"another recipe \(endpoint.model 'm' -> 'n'\)"):
        runs.check(label(model="n"), "label")
    with pytest.raises(RunError, match="another recipe.*command"):
        runs.check(label(), "train")


def test_a_run_directory_is_the_same_however_it_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyboardInterrupt), runs.start(recipe(Path("run")), "label") as run:
        assert run.path == tmp_path / "run"
        raise KeyboardInterrupt
    assert runs.check(recipe(tmp_path / "run"), "label")


def test_a_finished_run_of_another_recipe_is_not_taken_for_this_one_and_the_difference_is_named(tmp_path):
    made = recipe(tmp_path / "run")
    with runs.start(made, "label") as run:
        run.finish({"records": 3})
    assert runs.ensure(hindsight, made, "label") == {"records": 3}
    with pytest.raises(RunError, match=r"another recipe \(seed 0 -> 7\)"):
        runs.ensure(hindsight, made.model_copy(update={"seed": 7}), "label")
