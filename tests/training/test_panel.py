"""Reward models as a panel: standardised by hand, what is unscored or cut, and how far they agree."""

import json
from collections import Counter
from pathlib import Path

import pytest
from preference_examples import SETS
from training_examples import finished_run, labelled, metrics, recipe

from askwell import runs, weights
from askwell.errors import DataError, RecipeError
from askwell.recipes import MergeRecipe
from askwell.training import (
    draws,
    examples,
    grpo,
    merge,
    panel,
    ppo,
    reward,
    reward_agreement,
    reward_models,
    scoring,
    sft,
)

MEMBER = panel.Member


class Member:
    """Scores by a rule, and has no room for replies with a z."""

    def __init__(self, name, rule):
        self.name = name
        self.rule = rule

    def scores(self, contexts, replies):
        return [None if "z" in reply else float(self.rule(reply)) for reply in replies]


MEMBERS = {"long": Member("long", len), "short": Member("short", lambda text: -10 * len(text))}


@pytest.fixture(autouse=True)
def members(monkeypatch):
    monkeypatch.setattr(panel, "Member", lambda path, recipe: MEMBERS[path.name])


def opened(tmp_path, sets=SETS, **models):
    wanted = recipe(tmp_path, tmp_path / "run", method="ppo", rollouts={"reward": {"models": models}})
    (tmp_path / "run").mkdir(exist_ok=True)
    return panel.open_panel(sets, wanted, runs.Run(tmp_path / "run", resumed=False))


def test_scores_are_standardised_by_the_questions_of_the_training_data(tmp_path):
    lengths = [len(text) for record in SETS for text in draws.said(record)]
    mean = sum(lengths) / len(lengths)
    deviation = (sum((length - mean) ** 2 for length in lengths) / len(lengths)) ** 0.5
    judge = opened(tmp_path, paths=["long", "short"], weights=[3, 1], penalty=0.5)
    found = judge.worth(
        [SETS[0].id] * 4, ["Where is it?", "Where is it?", "A zoo?", "<stop />"], [True, False, True, True]
    )
    standing = (12 - mean) / deviation
    # The second model says the opposite, ten times as loudly: standardised, it weighs as its weight says.
    assert found.rewards == [pytest.approx(2 * standing), pytest.approx(2 * standing - 0.5), None, -0.5]
    # Whatever a model is called, its scores take no other figure's place.
    assert found.figures["score of long"] == [pytest.approx(standing)] * 2 + [None, None]
    assert found.figures["score of short"] == [pytest.approx(-standing)] * 2 + [None, None]
    assert found.figures["stops"] == [0, 0, 0, 1]


def test_bare_scores_where_that_is_asked_for(tmp_path):
    judge = opened(tmp_path, paths=["long", "short"], standardised=False)
    assert judge.worth([SETS[0].id], ["Where?"], [True]).rewards == [(6 - 60) / 2]


def test_the_report_says_how_far_they_agree_and_is_read_again(tmp_path):
    opened(tmp_path, paths=["long", "short"])
    told = json.loads((tmp_path / "run" / "report.json").read_text())["reward_models"]
    assert (told["questions"], told["contexts"], told["unscored"]) == (45, 9, 0)
    [pair] = told["correlations"]
    assert pair["all"]["value"] == pytest.approx(-1) and pair["within"]["value"] == pytest.approx(-1)
    assert "| long, short | -1.00 (-1.00 to -1.00) | -1.00" in (tmp_path / "run" / "report.md").read_text()
    told["models"][0].update(mean=6.0, deviation=2.0)
    (tmp_path / "run" / "report.json").write_text(json.dumps({"reward_models": told}))
    judge = opened(tmp_path, paths=["long", "short"], weights=[1, 0])
    assert judge.worth([SETS[0].id], ["Wherever?"], [True]).rewards == [pytest.approx(1.5)]


def test_agreement_within_contexts_is_another_thing_than_over_all():
    """Two models that both like the first context, and disagree on every question of either."""
    found = reward_agreement.figures(
        ["a", "b"],
        [0.5, 0.5],
        [[10.0, 11.0, 0.0, 1.0], [11.0, 10.0, 1.0, 0.0]],
        contexts=["one", "one", "two", "two"],
        groups=["one", "one", "two", "two"],
        unscored=3,
    )
    [pair] = found["correlations"]
    assert pair["all"]["value"] > 0.9 and pair["within"]["value"] == pytest.approx(-1)
    assert (found["unscored"], found["groups"]) == (3, 2)
    assert "3 unscored" in reward_agreement.headline(found)
    alone = reward_agreement.figures(
        ["a", "b"], [1, 1], [[1.0, 2.0], [1.0, 3.0]], contexts=["one", "two"], groups=["one", "two"], unscored=0
    )
    assert alone["correlations"][0]["within"] is None
    assert "| – |" in reward_agreement.markdown(alone)


def test_a_model_that_tells_nothing_apart_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(MEMBERS, "long", Member("long", lambda text: 3))
    with pytest.raises(DataError, match="'long': its scores of 45 of 45 questions .* do not vary"):
        opened(tmp_path, paths=["long"])


@pytest.mark.parametrize(
    ("models", "says"),
    [
        ({"paths": []}, "at least 1"),
        ({"paths": ["a", "b"], "weights": [1]}, "1 for 2 paths"),
        ({"paths": ["x/a", "y/a/checkpoint"]}, "a, a are to be told apart"),
    ],
)
def test_what_cannot_be_a_panel(models, says):
    with pytest.raises(ValueError, match=says):
        recipe(Path("in"), Path("out"), rollouts={"reward": {"models": models}})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A policy, question sets, and a reward model for each of two attributes."""
    folder = tmp_path_factory.mktemp("trained")
    wanted = recipe(labelled(folder / "label", 9), folder / "sft", epochs=4)
    runs.carry_out(sft, wanted, "train")
    sets = finished_run(folder / "sets", "contrast", SETS)
    for attribute in ("clarity", "focus"):
        fields = {"preferences": {"attributes": [attribute]}, "epochs": 3, "seed": 5, "max_tokens": 64}
        wanted = recipe(sets, folder / attribute, method="reward", model=str(folder / "sft"), **fields)
        runs.carry_out(reward, wanted, "train")
    return folder


def test_a_member_scores_as_its_training_did(trained):
    wanted = recipe(trained / "sets", trained / "none", method="ppo", max_tokens=999)
    member = MEMBER(trained / "clarity", wanted)
    assert (member.name, member.room) == ("clarity", 64)
    model = weights.load_reward(str(trained / "clarity"))
    rows = examples.of_question_sets(SETS[:2], model.tokenizer, prompt="", max_tokens=64, counts=Counter())
    expected = reward_models.rewards_of(model.model, rows, scoring.Layout())
    contexts = [record.context for record in SETS[:2] for _ in record.candidates]
    replies = [candidate.text for record in SETS[:2] for candidate in record.candidates]
    found = member.scores(contexts, replies)
    assert found == pytest.approx([score for row in expected for score in row], abs=1e-5)
    assert member.scores(contexts[:1], ["word " * 200]) == [None]


def test_ppo_on_reward_models_and_on_their_average(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(panel, "Member", MEMBER)
    both = [trained / "clarity", trained / "focus"]
    runs.carry_out(merge, MergeRecipe(parts=tuple(both), output=tmp_path / "fused"), "merge")
    for name, paths in (("sum", both), ("fusion", [tmp_path / "fused"])):
        settings = {"turns": 3, "group": 2, "max_new_tokens": 8, "reward": {"models": {"paths": paths}}}
        fields = {"method": "ppo", "model": str(trained / "sft"), "rollouts": settings}
        wanted = recipe(trained / "sets", tmp_path / name, epochs=1, **fields)
        assert runs.carry_out(ppo, wanted, "train")["contexts_trained_on"] == 9
        told = json.loads((tmp_path / name / "report.json").read_text())["reward_models"]
        assert [model["name"] for model in told["models"]] == [path.name for path in paths]
        assert len(told["correlations"]) == (name == "sum")


def test_grpo_on_reward_models_alone(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(panel, "Member", MEMBER)
    models = {"models": {"paths": [trained / "clarity", trained / "focus"], "weights": [2, 1]}}
    settings = {"turns": 3, "group": 2, "max_new_tokens": 8, "reward": models}
    fields = {"method": "grpo", "model": str(trained / "sft"), "rollouts": settings, "micro_batch": 3}
    wanted = recipe(trained / "sets", tmp_path / "run", epochs=1, **fields)
    assert runs.carry_out(grpo, wanted, "train")["turns_trained_on"] == 9
    for line in metrics(wanted.output):
        stops = line["stops"]
        if not stops and not line["cut"]:
            assert line["reward"] == pytest.approx(2 * line["score of clarity"] + line["score of focus"], rel=1e-4)
    assert (wanted.output / "report.md").exists()
    mixed = {**settings, "reward": {**models, "mode": "sum"}}
    with pytest.raises(RecipeError, match="rollouts.reward.mode 'sum' is of the reward of a grader or judge"):
        grpo.inputs(recipe(trained / "sets", tmp_path / "mixed", **{**fields, "rollouts": mixed}))
