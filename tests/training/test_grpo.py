"""Reinforcement learning: what a rollout is worth, which are left out, and a cut run that ends as one that was not."""

import itertools
import json
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from training_examples import finished_run, metrics, recipe, turns
from trl.trainer.grpo_trainer import GRPOTrainer

from askwell import runs, weights
from askwell.errors import DataError, EndpointError, RecipeError
from askwell.grading.grades import graded
from askwell.grading.slots import SlotGrader
from askwell.mock_endpoint import MockEndpoint
from askwell.recipes import Lora, Reward
from askwell.records import Target
from askwell.training import draws, grpo, loop, panel, rollouts, scoring, sft
from served import served

METHODS = ("grpo", "gspo", "cispo", "rloo")


class Reader:
    """Reads a slot where its word occurs, and abstains on words with an x."""

    def asked(self, questions):
        return [
            None if "x" in text else frozenset(slot for slot in ("city", "eat") if slot in text.lower())
            for _, text in questions
        ]

    def slots(self, service):
        return frozenset({"city", "eat"})


def graded_turns(count):
    """The toy turns with facts and a service: first the city, then the food, then a stop."""
    facts = (("city", "eat"), ("eat",), ())
    return [
        turn.model_copy(
            update={"service": "Food_1", "target": Target(decision=turn.target.decision, facts=facts[turn.index])}
        )
        for number in range(count)
        for turn in turns(number)
    ]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A policy that has seen the toy dialogues, the turns, and a grader's folder."""
    folder = tmp_path_factory.mktemp("start")
    source = finished_run(folder / "label", "label", graded_turns(9))
    wanted = recipe(source, folder / "sft", epochs=2)
    runs.carry_out(sft, wanted, "train")
    return source, wanted.output, finished_run(folder / "grader", "grader", [])


@pytest.fixture(autouse=True)
def reader(monkeypatch):
    monkeypatch.setattr(SlotGrader, "load", classmethod(lambda cls, path: Reader()))


def rolled(start, output: Path, *, method="grpo", epochs=2, **settings):
    source, policy, grader = start
    values = {"grader": grader, "turns": 6, "group": 4, "max_new_tokens": 8, **settings}
    fields = {"method": method, "model": str(policy), "rollouts": values, "epochs": epochs, "micro_batch": 3}
    return recipe(source, output, **fields, optimizer={"learning_rate": 1e-3})


def test_a_run_leaves_a_policy_and_what_its_rollouts_were_worth(start, tmp_path):
    wanted = rolled(start, tmp_path / "run", updates=2, iterations=2)
    counts = runs.carry_out(grpo, wanted, "train")
    # 27 turns, twice, six at a draw: nine draws of two updates gone through twice.
    assert (counts["turns_trained_on"], counts["steps"], counts["rollouts"]) == (27, 36, 9 * 6 * 4)
    plan = grpo.plan(wanted.model_copy(update={"output": tmp_path / "other"}))
    assert {key: plan[key] for key in ("turns_trained_on", "steps", "rollouts")} == {
        key: counts[key] for key in ("turns_trained_on", "steps", "rollouts")
    }
    lines = metrics(wanted.output)
    assert [line["step"] for line in lines] == list(range(1, 37))
    drawn = [line for line in lines if "reward" in line]
    assert [line["step"] for line in drawn] == list(range(1, 37, 4))
    assert all(0 <= line["reward"] <= 4 and 0 <= line["unscored"] < 1 for line in drawn)
    assert sum(line["tokens"] for line in lines) == counts["tokens_seen"]
    assert weights.load(str(wanted.output))


def test_adapters_that_are_trained_further_diverge_from_what_they_were(start, tmp_path, monkeypatch):
    """The starting policy is the one with its adapters as they were, not the base below them; after a cut too."""
    policy = weights.load(str(start[1]), lora=Lora(rank=2), trainable=True)
    with torch.no_grad():
        for name, weight in policy.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.3, generator=torch.Generator().manual_seed(len(name)))
    weights.save(policy, tmp_path / "adapters")
    begun = start[0], tmp_path / "adapters", start[2]
    whole = rolled(begun, tmp_path / "whole", epochs=0.9, kl=0.1)
    counts = runs.carry_out(grpo, whole, "train")
    divergences = [line["kl"] for line in metrics(whole.output)]
    assert divergences[0] == pytest.approx(0, abs=1e-6) and divergences[-1] > 0
    assert counts["parameters"] == sum(weight.numel() for weight in policy.model.parameters())
    assert not [path for path in (whole.output / "checkpoint").iterdir() if path.is_dir()]
    again = rolled(begun, tmp_path / "cut", epochs=0.9, kl=0.1)
    log, lines = runs.Run.log, []

    def cut(run, **line):
        log(run, **line)
        lines.append(line)
        if len(lines) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(runs.Run, "log", cut)
        runs.carry_out(grpo, again, "train")
    runs.carry_out(grpo, again, "train")
    assert metrics(again.output) == metrics(whole.output)


def trainers(start, output, **fields):
    """Ours, and TRL's own with the same arguments and model."""
    wanted = rolled(start, output, **fields)
    policy = weights.load(wanted.model)
    args = rollouts.arguments(wanted, runs.Run(output, resumed=False), steps=1)
    common = {
        "model": policy.model,
        "args": args,
        "reward_funcs": lambda prompts, **_: [0.0] * len(prompts),
        "train_dataset": rollouts.Dataset.from_dict({"prompt": ["a"] * 24}),
        "processing_class": policy.tokenizer,
    }
    ours = rollouts.TreeTrainer([], wanted, scoring.Layout(), [0], **common)
    theirs = GRPOTrainer(**common)
    for trainer in (ours, theirs):
        trainer.current_gradient_accumulation_steps = 1
    return ours, theirs


@pytest.mark.parametrize("method", METHODS)
def test_loss_and_gradients_are_those_of_the_trainer_on_padded_rollouts(start, tmp_path, method):
    ours, theirs = trainers(start, tmp_path, method=method)
    draw = torch.Generator().manual_seed(0)
    prompts = [[7, 8, 9, 10], [7, 8], [11, 12, 13]]
    replies = [torch.randint(7, 200, (1 + n % 5,), generator=draw).tolist() for n in range(12)]
    contexts = [prompt for prompt in prompts for _ in range(4)]
    inputs = {
        "prompt_ids": weights.padded(contexts, fill=0, left=True),
        "prompt_mask": weights.padded([[1] * len(ids) for ids in contexts], fill=0, left=True),
        "completion_ids": weights.padded(replies, fill=0),
        "completion_mask": weights.padded([[1] * len(ids) for ids in replies], fill=0),
        "advantages": torch.randn(12, generator=draw),
        "num_items_in_batch": torch.tensor(float(sum(map(len, replies)))),
    }
    # Old log-probabilities of a policy that has moved since, so that ratios are not 1.
    size = inputs["completion_ids"].shape
    with torch.no_grad():
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
        mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
        now, _, _ = ours._get_per_token_logps_and_entropies(ours.model, ids, mask, size[1])
    inputs["old_per_token_logps"] = (now + 0.1 * torch.randn(size, generator=draw)) * inputs["completion_mask"]
    found = []
    for trainer in (ours, theirs):
        trainer.model.zero_grad()
        loss = trainer._compute_loss(trainer.model, inputs)
        loss.backward()
        found.append((loss.detach(), torch.cat([weight.grad.flatten() for weight in trainer.model.parameters()])))
    (loss, gradients), (their_loss, their_gradients) = found
    assert float((gradients - their_gradients).norm() / their_gradients.norm()) < 1e-5
    torch.testing.assert_close(loss, their_loss, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("method", "expected"), [("grpo", [2.0, 0.0, -1.0, -1.0]), ("rloo", [3.0, 0.0, -1.5, -1.5])])
def test_an_unscored_rollout_is_left_out_of_its_groups_mean(start, tmp_path, monkeypatch, method, expected):
    """Rewards 3, none, 0, 0: a mean of 1 over three, and no advantage for the one without."""
    wanted = rolled(start, tmp_path / "run", method=method, scale="none", turns=1, epochs=0.01)
    monkeypatch.setattr(rollouts, "sample", lambda *a, **k: [[[7], [8], [9], [10]]])
    monkeypatch.setattr(grpo.Rewarder, "rewards", lambda self, grades: [3.0, None, 0.0, 0.0])
    seen = []
    made = rollouts.TreeTrainer._generate_and_score_completions

    def watched(self, inputs):
        found = made(self, inputs)
        seen.append(found["advantages"].tolist())
        return found

    monkeypatch.setattr(rollouts.TreeTrainer, "_generate_and_score_completions", watched)
    runs.carry_out(grpo, wanted.model_copy(update={"micro_batch": 1}), "train")
    assert seen[0] == pytest.approx(expected)


def test_groups_stay_whole_and_dialogues_together(start, tmp_path):
    wanted = rolled(start, tmp_path / "run")
    chosen = graded_turns(9)
    ids = draws.order(chosen, draws=9, recipe=wanted)
    assert len(ids) == 9 * wanted.rollouts.turns
    assert sorted(ids[:27]) == sorted(turn.id for turn in chosen)
    names = [id.partition("#")[0] for id in ids[:27]]
    assert [len(list(group)) for _, group in itertools.groupby(names)] == [3] * 9
    assert ids[:27] != ids[27:]
    assert ids == draws.order(chosen[::-1], draws=9, recipe=wanted) or ids[:3] != ids[2::-1]


def test_without_the_decisions_reward_only_turns_with_a_question_are_trained_on(start, tmp_path):
    wanted = rolled(start, tmp_path / "run", reward={"mode": "without_decision"})
    assert grpo.plan(wanted)["turns_trained_on"] == 18


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "scratch"}, "starts from a policy that can already ask; train one with `--method sft`"),
        ({"rollouts": {}}, "needs one grader to reward rollouts; name the output of `askwell grader`"),
        ({"rollouts": {"turns": 5, "updates": 2}}, "turns 5 cannot be shared by 2 updates; make it a multiple"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_made(start, tmp_path, change, message):
    source, policy, grader = start
    values = {"method": "grpo", "model": str(policy), **change}
    if values.get("rollouts"):
        values["rollouts"] = {"grader": grader, **values["rollouts"]}
    with pytest.raises(RecipeError, match=message):
        runs.carry_out(grpo, recipe(source, tmp_path / "run", **values), "train")
    assert not (tmp_path / "run").exists()


def test_nothing_to_train_on(start, tmp_path):
    wanted = rolled(start, tmp_path / "run").model_copy(update={"split": "dev"})
    with pytest.raises(DataError, match="nothing to train on in split 'dev'"):
        runs.carry_out(grpo, wanted, "train")


def test_a_checkpoint_is_never_made_in_the_middle_of_a_draw(start, tmp_path):
    wanted = rolled(start, tmp_path, updates=3, iterations=2).model_copy(update={"checkpoint_every": 4})
    args = rollouts.arguments(wanted, runs.Run(tmp_path, resumed=False), steps=12)
    assert args.save_steps == 6
    assert loop.COMPLETE


def judge_of_cities(body):
    """Direct where the reply names the city, as many questions as it has marks."""
    reply = re.findall(r"<data (\w+)>\n(.*?)\n</data \1>", body["messages"][1]["content"], re.DOTALL)[-1][1]
    match = "direct" if "city" in reply.lower() else "neither"
    return json.dumps({"reason": "read", "questions": "one" if "?" in reply else "none", "match": match})


def test_a_judge_behind_an_endpoint_rewards(start, tmp_path):
    source, policy, _ = start
    mock = MockEndpoint(judge_of_cities)
    with served(mock) as url:
        settings = {"judge": {"model": "mock", "base_url": url}, "turns": 6, "group": 4, "max_new_tokens": 12}
        wanted = recipe(source, tmp_path / "run", method="grpo", model=str(policy / "checkpoint"), rollouts=settings)
        runs.carry_out(grpo, wanted, "train")
    lines = metrics(tmp_path / "run")
    assert lines and all(0 <= line["unscored"] <= 1 for line in lines)
    assert mock.ledger.paid == len(mock.ledger.paid_by_body) > 0
    assert (tmp_path / "answers.sqlite").exists()


def test_j5_a_judge_that_fails_stops_the_training_and_rewards_nothing(start, tmp_path):
    source, policy, _ = start
    with served(MockEndpoint(lambda body: "I cannot say.")) as url:
        settings = {"judge": {"model": "mock", "base_url": url}, "turns": 6, "group": 4, "max_new_tokens": 12}
        wanted = recipe(source, tmp_path / "run", method="grpo", model=str(policy / "checkpoint"), rollouts=settings)
        with pytest.raises(EndpointError, match=r"--rollouts.judge.max_unscored 2%: .*; mend the prompt"):
            runs.carry_out(grpo, wanted, "train")
    assert not (tmp_path / "run" / "manifest.json").exists()


class Says:
    """A panel that gives a question 0.25 for each letter, and cannot read one with a q."""

    def worth(self, ids, replies, ended):
        scores = [
            None if "q" in reply else len(reply) / 4 - (not end) for reply, end in zip(replies, ended, strict=True)
        ]
        return draws.Worth(scores, {"letters": scores})


def test_reward_models_add_to_the_reward_of_questions_that_are_asked_where_one_should(start):
    chosen = graded_turns(1)
    rule = Reward.model_validate({"models": {"paths": ["m"], "weight": 2}})
    by_slots = partial(graded, grader=Reader(), stop_marker="<stop />")
    ids = [chosen[0].id, chosen[0].id, chosen[0].id, chosen[2].id, chosen[2].id, chosen[0].id, chosen[0].id]
    replies = ["Which city?", "Which city? q", "Which box?", "Which city?", "<stop />", "<stop />", "Which city"]
    plain = grpo.Rewarder(chosen, by_slots, rule.model_copy(update={"models": None})).worth(ids, replies, [True] * 7)
    found = grpo.Rewarder(chosen, by_slots, rule, Says()).worth(ids, replies, [True] * 6 + [False])
    assert plain.rewards[:6] == [4.0, 4.0, None, 0.0, 4.0, 0.0]
    # A panel that cannot read, and a grader that abstains, leave a reply unscored; where to stop nothing is added.
    assert found.rewards[:6] == [4.0 + 2 * 11 / 4, None, None, 0.0, 4.0, 0.0]
    assert found.rewards[6] == plain.rewards[6] + 2 * (10 / 4 - 1)
    assert found.figures["letters"][1] is None and found.figures["content"][3:6] == [None] * 3


def test_reward_models_alone_take_any_context_and_teach_what_they_like(start, tmp_path, monkeypatch):
    source, policy, _ = start
    monkeypatch.setattr(panel, "open_panel", lambda records, recipe, run: Says())
    models = {"reward": {"models": {"paths": [str(policy)]}}}
    settings = {"turns": 6, "group": 4, "max_new_tokens": 8, "scale": "none", **models}
    fields = {"method": "grpo", "model": str(policy), "rollouts": settings, "epochs": 6, "micro_batch": 6}
    wanted = recipe(source, tmp_path / "run", **fields, optimizer={"learning_rate": 2e-2, "warmup": 0})
    counts = runs.carry_out(grpo, wanted, "train")
    assert (counts["turns_trained_on"], counts["stops_left_out"]) == (18, 9)
    lines = metrics(wanted.output)
    assert all("total" not in line and 0 <= line["unscored"] < 1 for line in lines)
    first, last = (sum(line["letters"] for line in part) / 4 for part in (lines[:4], lines[-4:]))
    assert last > first + 0.3
    with pytest.raises(RecipeError, match="rollouts.group 1: method 'grpo' compares the rollouts of a group"):
        grpo.inputs(recipe(source, tmp_path / "one", **{**fields, "rollouts": {**settings, "group": 1}}))
