"""Several attributes from one start: as each by itself, in folders that others load, after a kill too."""

import json

import pytest
import torch
from preference_examples import SETS, question_set
from pydantic import ValidationError
from safetensors.torch import load_file
from training_examples import finished_run, metrics, recipe

from askwell import cli, runs, weights
from askwell.errors import DataError
from askwell.training import dpo, each, reward


def tensors(path):
    [file] = path.glob("checkpoint/*model.safetensors")
    return load_file(file)


@pytest.mark.parametrize(
    ("stage", "fields"), [(dpo, {}), (dpo, {"lora": {"rank": 2}}), (reward, {})], ids=["dpo", "lora", "reward"]
)
def test_every_attribute_is_trained_as_it_would_be_by_itself(base, source, tmp_path, stage, fields):
    method = stage.__name__.rpartition(".")[2]
    fields = {"method": method, "model": str(base), "epochs": 1, **fields}
    together = recipe(source, tmp_path / "together", each="attribute", **fields)
    counts = runs.carry_out(each, together, "train")
    assert cli.stage_of("train", together) == each.__name__
    assert {path.name for path in together.output.iterdir() if path.is_dir()} == {"clarity", "focus"}
    assert counts["clarity preferences"] == each.plan(together)["clarity preferences"] == 27
    for attribute in ("clarity", "focus"):
        alone = recipe(source, tmp_path / attribute, preferences={"attributes": (attribute,)}, **fields)
        runs.carry_out(stage, alone, "train")
        for one, other in zip(metrics(together.output / attribute), metrics(alone.output), strict=True):
            # Before anything has moved, which margin is above 0 is a matter of rounding.
            assert abs(other["margin"]) < 1e-4 or one["accuracy"] == pytest.approx(other["accuracy"])
            assert {**one, "accuracy": 0} == pytest.approx({**other, "accuracy": 0}, rel=1e-4, abs=1e-5)
        for name, weight in tensors(alone.output).items():
            torch.testing.assert_close(tensors(together.output / attribute)[name], weight, rtol=1e-3, atol=1e-4)
        recorded = json.loads((together.output / attribute / "recipe.json").read_text())
        assert (recorded["each"], recorded["preferences"]["attributes"]) == (None, [attribute])
    (weights.load_reward if stage is reward else weights.load)(str(together.output / "focus"))
    one, other = (tensors(together.output / attribute) for attribute in ("clarity", "focus"))
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_what_is_finished_is_not_trained_again_after_a_cut(base, source, tmp_path, monkeypatch):
    again = recipe(source, tmp_path / "run", method="dpo", model=str(base), epochs=1, each="attribute")
    log, lines = runs.Run.log, []

    def cut(run, **line):
        log(run, **line)
        lines.append(line)
        if len(lines) == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(runs.Run, "log", cut)
        runs.carry_out(each, again, "train")
    first = (again.output / "clarity" / "manifest.json").read_bytes()
    runs.carry_out(each, again, "train")
    assert (again.output / "clarity" / "manifest.json").read_bytes() == first
    assert len(metrics(again.output / "focus")) == len(metrics(again.output / "clarity")) == 3


@pytest.mark.parametrize("stage", [dpo, reward], ids=["dpo", "reward"])
def test_what_is_too_long_in_one_attribute_is_nothing_to_the_others(base, tmp_path, stage):
    """A wording in focus leaves one set no room for its whole context, and another none for itself."""

    def longer(number, count, **fields):
        record = question_set(number, **fields)
        said = record.candidates[4].model_copy(update={"text": "why " * count})
        return record.model_copy(update={"candidates": (*record.candidates[:4], said)})

    sets = [*SETS[:2], longer(2, 34), longer(3, 400), longer(9, 400, split="dev")]
    source = finished_run(tmp_path / "sets", "synthesize", sets)
    method = stage.__name__.rpartition(".")[2]
    fields = {"method": method, "model": str(base), "epochs": 1, "max_tokens": 120}
    together = recipe(source, tmp_path / "together", each="attribute", **fields)
    counts = runs.carry_out(each, together, "train")
    for attribute in ("clarity", "focus"):
        alone = recipe(source, tmp_path / attribute, preferences={"attributes": (attribute,)}, **fields)
        found = runs.carry_out(stage, alone, "train")
        assert {name: counts[f"{attribute} {name}"] for name in found} == found
        assert counts[f"{attribute} sets_too_long"] == found.get("sets_too_long", 0) == (attribute == "focus")
        assert found["sets_cut"] == (attribute == "focus")
        if stage is reward:
            report, expected = (
                json.loads((path / "report.json").read_text()) for path in (together.output / attribute, alone.output)
            )
            assert report["preferences"] == expected["preferences"]
    nothing = finished_run(tmp_path / "none", "synthesize", [longer(2, 400)])
    fields["max_tokens"] = 100
    with pytest.raises(DataError, match=r"nothing to train on in split 'train' \(.*'sets_too_long': 1"):
        runs.carry_out(each, recipe(nothing, tmp_path / "n", each="attribute", **fields), "train")
    assert not (tmp_path / "n" / "clarity").exists()


def test_refusals(base, source, tmp_path):
    with pytest.raises(ValidationError, match="is for methods dpo and reward, not 'sft'"):
        recipe(source, tmp_path / "run", each="attribute")
    bad = SETS[0].preferences[0].model_copy(update={"attribute": "../focus"})
    outside = finished_run(tmp_path / "sets", "synthesize", [SETS[0].model_copy(update={"preferences": (bad,)})])
    with pytest.raises(DataError, match="attribute '../focus' cannot name a folder"):
        each.plan(recipe(outside, tmp_path / "run", each="attribute", method="dpo", model=str(base)))
