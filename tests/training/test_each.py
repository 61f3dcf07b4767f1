"""Several attributes from one start: as each by itself, in folders that others load, after a kill too."""

import json

import pytest
import torch
from preference_examples import SETS
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


def test_refusals(base, source, tmp_path):
    with pytest.raises(ValidationError, match="is for methods dpo and reward, not 'sft'"):
        recipe(source, tmp_path / "run", each="attribute")
    bad = SETS[0].preferences[0].model_copy(update={"attribute": "../focus"})
    outside = finished_run(tmp_path / "sets", "synthesize", [SETS[0].model_copy(update={"preferences": (bad,)})])
    with pytest.raises(DataError, match="attribute '../focus' cannot name a folder"):
        each.plan(recipe(outside, tmp_path / "run", each="attribute", method="dpo", model=str(base)))
