"""Reward models: the loss by hand and TRL's, a checkpoint that others load, figures by hand, a cut run."""

import json
import math
from collections import Counter, defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from preference_examples import HELD_OUT, SETS, question_set
from safetensors.torch import load_file
from training_examples import metrics, recipe
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl.trainer.reward_trainer import RewardTrainer

from askwell import runs, weights
from askwell.errors import DataError, RecipeError
from askwell.recipes import BradleyTerry, Lora
from askwell.training import examples, reward, reward_figures, reward_models, scoring
from askwell.training.trees import Piece


@pytest.fixture(scope="module")
def trained(base, source, tmp_path_factory):
    wanted = rewarding(source, tmp_path_factory.mktemp("trained") / "run", base, epochs=8)
    return wanted, runs.carry_out(reward, wanted, "train")


def rewarding(source, output, base, **fields):
    return recipe(source, output, method="reward", model=str(base), **fields)


def test_the_loss_by_hand():
    rewards = torch.tensor([1.0, -2.0, 0.5])
    found = reward_models.reward_loss(rewards, torch.tensor([[0, 1], [2, 0]]), BradleyTerry(margin=0.5, centre=0.1))
    # Margins 3 and -0.5, less 0.5; sums -1 and 1.5.
    by_hand = math.log1p(math.exp(-2.5)) + math.log1p(math.exp(1)) + 0.1 * (1 + 2.25)
    assert float(found.total) == pytest.approx(by_hand)
    assert {name: float(value) for name, value in found.sums.items()} == pytest.approx(
        {"accuracy": 1, "margin": 2.5, "better": 1.5, "worse": -1}
    )


@pytest.mark.parametrize(("margin", "centre"), [(0.0, 0.0), (0.7, 0.3)])
def test_loss_and_gradients_are_those_of_trl(base, margin, centre):
    model = weights.load_reward(str(base), seed=3)
    rows = examples.of_question_sets(SETS[:3], model.tokenizer, prompt="", max_tokens=1024, counts=Counter())
    task = reward_models.task(model.model, rows, scoring.Layout(), BradleyTerry(margin=margin, centre=centre))
    batch = task.collate(task.rows)
    pairs = [(row.pieces[better].ids, row.pieces[worse].ids) for row in rows for better, worse in row.pairs]
    assert int((batch["labels"][1:] != -100).sum()) == len(pairs) == 18
    ids = [ids for side in zip(*pairs, strict=True) for ids in side]
    inputs = {
        "input_ids": weights.padded(ids, fill=model.tokenizer.pad_token_id),
        "attention_mask": weights.padded([[1] * len(each) for each in ids], fill=0),
        "margin": torch.full((18,), margin),
    }
    gradients = []
    for loss in (task.loss(model.model, batch).total / 18, trl_loss(model.model, inputs, centre)):
        model.model.zero_grad()
        loss.backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in model.model.parameters()]))
        gradients[-1] = torch.cat([gradients[-1], loss.detach().view(1)])
    assert float((gradients[0] - gradients[1]).norm() / gradients[1].norm()) < 1e-5
    assert float(gradients[0][-1]) == pytest.approx(float(gradients[1][-1]), rel=1e-5)


def trl_loss(model, inputs, centre):
    """TRL's own method, on as much of a trainer as it looks at."""

    trainer: Any = SimpleNamespace(
        args=SimpleNamespace(center_rewards_coefficient=centre),
        accelerator=SimpleNamespace(gather=lambda each: each, gather_for_metrics=lambda each: each),
        model=model,
        _total_train_tokens=0,
        _tp_size=1,
        _metrics={mode: defaultdict(list) for mode in ("train", "eval")},
    )
    return RewardTrainer.compute_loss(trainer, model, dict(inputs))


def test_a_run_learns_and_says_how_good_it_is_on_people_it_has_not_seen(trained):
    wanted, counts = trained
    assert {name: counts[name] for name in ("question_sets", "preferences", "rows", "steps")} == {
        "question_sets": 9,
        "preferences": 54,
        "rows": 9,
        "steps": 24,
    }
    plan = reward.plan(wanted)
    assert (plan["preferences"], plan["steps"], plan["preferences_held_out"]) == (54, 24, 30)
    lines = metrics(wanted.output)
    assert lines[0]["loss"] == pytest.approx(math.log(2), rel=0.2)
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    report = json.loads((wanted.output / "report.json").read_text())
    assert report["preferences"] == {"scored": 30, "unscored": 0}
    assert set(report["accuracy"]) == {"all", "clarity", "focus"}
    assert set(report["accuracy_by_direction"]) == {"E-C", "E-O", "O-C"}
    assert report["accuracy"]["all"]["value"] > 0.7
    assert "accuracy" in (wanted.output / "report.md").read_text()


def test_others_load_the_checkpoint_and_read_the_same_rewards(trained):
    wanted, _ = trained
    ours = weights.load_reward(str(wanted.output))
    theirs = AutoModelForSequenceClassification.from_pretrained(wanted.output / "checkpoint")
    tokenizer = AutoTokenizer.from_pretrained(wanted.output / "checkpoint")
    assert theirs.config.num_labels == 1
    rows = examples.of_question_sets(HELD_OUT, ours.tokenizer, prompt="", max_tokens=1024, counts=Counter())
    found = reward_models.rewards_of(ours.model, rows, scoring.Layout())
    ids = [piece.ids for row in rows for piece in row.pieces]
    mask = weights.padded([[1] * len(each) for each in ids], fill=0)
    with torch.no_grad():
        read = theirs(weights.padded(ids, fill=tokenizer.pad_token_id), attention_mask=mask).logits.squeeze(1)
    torch.testing.assert_close(torch.tensor([each for row in found for each in row]), read)


def test_adapters_keep_the_head(base, source, tmp_path):
    whole = rewarding(source, tmp_path / "whole", base, lora={"rank": 2})
    counts = runs.carry_out(reward, whole, "train")
    assert counts["parameters_trained"] < counts["parameters"] / 2
    assert any("score" in name for name in load_file(whole.output / "checkpoint" / "adapter_model.safetensors"))
    loaded = weights.load_reward(str(whole.output))
    plain = AutoModelForSequenceClassification.from_pretrained(whole.output / "checkpoint", num_labels=1)
    ids = torch.tensor([loaded.tokenizer("Which city?")["input_ids"]])
    torch.testing.assert_close(plain(ids).logits, loaded.model(ids).logits)
    rows = examples.of_question_sets(HELD_OUT, loaded.tokenizer, prompt="", max_tokens=1024, counts=Counter())
    found = reward_figures.figures(rows, reward_models.rewards_of(loaded.model, rows, scoring.Layout()), unscored=0)
    assert found == json.loads((whole.output / "report.json").read_text())


@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_the_report_is_of_the_model_that_others_load_whatever_the_training_computed_in(base, source, tmp_path, lora):
    """Rewards in bfloat16 have eight bits: margins of a hundredth would be ties."""
    wanted = rewarding(source, tmp_path / "run", base, epochs=0.5, precision="bfloat16", lora=lora)
    runs.carry_out(reward, wanted, "train")
    loaded = weights.load_reward(str(wanted.output))
    rows = examples.of_question_sets(HELD_OUT, loaded.tokenizer, prompt="", max_tokens=1024, counts=Counter())
    found = reward_figures.figures(rows, reward_models.rewards_of(loaded.model, rows, scoring.Layout()), unscored=0)
    told = json.loads((wanted.output / "report.json").read_text())
    assert told["margin"] == pytest.approx(found["margin"], rel=1e-5)
    assert told["accuracy"] == found["accuracy"]


def test_what_is_cut_before_its_report_is_not_trained_again(base, source, tmp_path, monkeypatch):
    wanted = rewarding(source, tmp_path / "run", base, epochs=1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(reward_figures, "figures", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        runs.carry_out(reward, wanted, "train")
    lines = (wanted.output / "metrics.jsonl").read_bytes()
    assert runs.carry_out(reward, wanted, "train")["steps"] == 3
    # With their wall clock: the same steps, not steps like them.
    assert (wanted.output / "metrics.jsonl").read_bytes() == lines
    assert not (wanted.output / "attempt").exists()


def test_a_lora_policy_becomes_a_reward_model_with_its_adapters_in_its_weights(base, tmp_path):
    policy = weights.load(str(base), lora=Lora(rank=2), seed=1)
    with torch.no_grad():
        for name, weight in policy.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.5)
    weights.save(policy, tmp_path / "policy")
    found = weights.load_reward(str(tmp_path / "policy"), seed=1)
    ids = torch.tensor([[5, 6, 7, 8]])
    hidden = policy.model(ids, output_hidden_states=True).hidden_states[-1][0, -1]
    torch.testing.assert_close(found.model(ids).logits[0], found.model.score(hidden))
    again = weights.load_reward(str(tmp_path / "policy"), seed=2)
    assert not torch.allclose(found.model.score.weight, again.model.score.weight)


def test_figures_by_hand():
    sets = [question_set(number, attributes=("clarity",)) for number in range(2)]
    pieces = [Piece([1] * 9, range(start, 9)) for start in (5, 4, 7)]  # lengths 4, 5, 2: original, enhanced, corrupted
    rows = [examples.Candidates(each, pieces, [(1, 2), (1, 0), (0, 2)]) for each in sets]
    found = reward_figures.figures(rows, [[0.0, 1.0, -1.0], [0.0, 0.0, 3.0]], unscored=2)
    assert found["preferences"] == {"scored": 6, "unscored": 2}
    # First set: all right. Second: wrong, equal, wrong.
    assert found["accuracy"]["all"]["value"] == pytest.approx(3.5 / 6)
    assert {name: each["value"] for name, each in found["accuracy_by_direction"].items()} == {
        "E-C": 0.5,
        "E-O": 0.75,
        "O-C": 0.5,
    }
    assert found["length"]["better_shorter"]["value"] is None
    assert found["length"]["better_longer"]["value"] == pytest.approx(3.5 / 6)
    # Margins 2, 1, 1 are right, -3 twice wrong, 0 neither: one bin each, for the two of 1 and of -3 are alike.
    one, two, three = (1 / (1 + math.exp(-margin)) for margin in (1, 2, 3))
    assert found["calibration"]["error"] == pytest.approx((2 * (1 - one) + (1 - two) + 2 * three) / 6)
    lengths = [4 - 11 / 3, 5 - 11 / 3, 2 - 11 / 3] * 2
    scores = [0, 1, -1, -1, -1, 2]
    wanted = sum(map(math.prod, zip(lengths, scores, strict=True))) / math.sqrt(
        sum(each**2 for each in lengths) * sum(each**2 for each in scores)
    )
    assert found["length"]["correlation"]["value"] == pytest.approx(wanted)


def test_refusals(base, source, trained, tmp_path):
    with pytest.raises(RecipeError, match="starts from a policy that can read"):
        reward.inputs(rewarding(source, tmp_path / "run", "scratch"))
    with pytest.raises(RecipeError, match="is the split to train on"):
        reward.inputs(rewarding(source, tmp_path / "run", base, reward={"held_out": "train"}))
    with pytest.raises(DataError, match="no reward model; train one with `askwell train --method reward`"):
        weights.load_reward(str(base))
    with pytest.raises(DataError, match="a reward model, which scores and cannot speak"):
        weights.load(str(trained[0].output))
