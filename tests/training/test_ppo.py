"""PPO: it learns a toy task, its first step by hand, a cut run that ends as one that was not, and what is refused."""

import pytest
import torch
from safetensors.torch import load_file
from training_examples import labelled, metrics, recipe, threads

from askwell import runs, weights
from askwell.errors import DataError, RecipeError
from askwell.training import actor_critic, panel, ppo, sft
from askwell.training.draws import Worth


class Taste:
    """Likes questions about the city, cannot say of those with a z, and wants an end."""

    def worth(self, ids, replies, ended):
        rewards = [
            None if "z" in reply else 2.0 * ("city" in reply) - 1.0 - (not end)
            for reply, end in zip(replies, ended, strict=True)
        ]
        return Worth(rewards, {"city": [float("city" in reply) for reply in replies]})


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A policy that has seen the toy dialogues, and their turns."""
    folder = tmp_path_factory.mktemp("start")
    source = labelled(folder / "label", 9)
    wanted = recipe(source, folder / "sft", epochs=16, optimizer={"learning_rate": 0.03})
    runs.carry_out(sft, wanted, "train")
    return source, wanted.output


@pytest.fixture(autouse=True)
def taste(monkeypatch):
    monkeypatch.setattr(panel, "open_panel", lambda records, recipe, run: Taste())


def wanted(start, output, *, epochs=2, rollouts=None, rate=5e-3, ppo=None, **fields):
    source, policy = start
    models = {"reward": {"models": {"paths": [str(policy)]}}}
    settings = {"turns": 6, "group": 4, "max_new_tokens": 12, "iterations": 2, **models, **(rollouts or {})}
    values = {"method": "ppo", "model": str(policy), "rollouts": settings, "ppo": ppo or {}, "epochs": epochs, **fields}
    return recipe(source, output, **{"micro_batch": 3, **values}, optimizer={"learning_rate": rate, "warmup": 0})


def test_it_learns_to_ask_what_is_rewarded(start, tmp_path):
    run = wanted(start, tmp_path / "run", epochs=4, rollouts={"updates": 2}, ppo={"kl": 0.01})
    counts = runs.carry_out(ppo, run, "train")
    # 18 turns with a question, four times, six at a draw: 12 draws of two updates gone through twice.
    assert (counts["contexts_trained_on"], counts["stops_left_out"]) == (18, 9)
    assert (counts["steps"], counts["rollouts"]) == (48, 12 * 6 * 4)
    plan = ppo.plan(run.model_copy(update={"output": tmp_path / "other"}))
    assert all(plan[name] == counts[name] for name in plan)
    lines = metrics(run.output)
    assert [line["step"] for line in lines] == list(range(1, 49))
    drawn = [line for line in lines if "reward" in line]
    assert [line["step"] for line in drawn] == list(range(1, 49, 4))
    assert drawn[0]["city"] < 0.6 and sum(line["city"] for line in drawn[-3:]) / 3 > 0.9
    assert all(line["kl_coefficient"] == 0.01 for line in drawn)
    assert drawn[0]["kl"] == pytest.approx(0, abs=1e-4) and 0 < drawn[-1]["kl"] < 40
    assert sum(line["tokens"] for line in lines) == counts["tokens_seen"]
    names = set(load_file(run.output / "checkpoint" / "model.safetensors"))
    assert not any("critic" in name for name in names)
    assert weights.load(str(run.output))


def test_the_first_step_by_hand(start, tmp_path, monkeypatch):
    """Ratios are 1, values 0: the loss is that of whitened advantages and of squared returns."""
    run = wanted(start, tmp_path / "run", epochs=0.01, ppo={"trace": 1.0, "value_weight": 0.5})
    seen = []
    draw = actor_critic.ActorCritic.draw

    def watched(self):
        draw(self)
        seen.append([reply for place in sorted(self.replies) for reply in self.replies[place]])

    monkeypatch.setattr(actor_critic.ActorCritic, "draw", watched)
    runs.carry_out(ppo, run, "train")
    first = metrics(run.output)[0]
    replies = seen[0]
    tokens = sum(len(reply.values) for reply in replies)
    assert all(float(reply.values.abs().max()) == 0 for reply in replies)
    # With a whole trace and no divergence yet, every token's return is what the reply was worth.
    policy = weights.load(str(start[1]))
    for reply in replies:
        ids = actor_critic.spoken(reply.piece)
        text = policy.tokenizer.decode(ids, skip_special_tokens=True)
        [worth] = Taste().worth([], [text.strip()], [ids[-1] == policy.tokenizer.eos_token_id]).rewards
        torch.testing.assert_close(reply.returns, torch.full((len(ids),), float(worth)), rtol=0, atol=1e-4)
    returns = torch.cat([reply.returns for reply in replies]).double()
    gains = torch.cat([reply.advantages for reply in replies]).double()
    torch.testing.assert_close(gains, (returns - returns.mean()) / returns.std(correction=0), rtol=1e-4, atol=1e-4)
    assert first["policy_loss"] == pytest.approx(-float(gains.mean()), abs=1e-4)
    assert first["value_loss"] == pytest.approx(float((returns**2).sum()) / 2 / tokens, rel=1e-4)
    assert first["loss"] == pytest.approx(first["policy_loss"] + 0.5 * first["value_loss"], abs=1e-4)
    assert (first["clipped"], first["value_clipped"]) == (0, 0)
    assert first["moved"] == pytest.approx(0, abs=1e-6)
    moved = metrics(run.output)[1]
    assert moved["moved"] > 0


def test_what_is_unscored_is_left_out_and_counted(start, tmp_path, monkeypatch):
    monkeypatch.setattr(
        Taste, "worth", lambda self, ids, replies, ended: Worth([None] * len(replies), {"city": [None] * len(replies)})
    )
    run = wanted(start, tmp_path / "run", epochs=0.01)
    runs.carry_out(ppo, run, "train")
    line = metrics(run.output)[0]
    assert (line["unscored"], line["loss"], line["policy_loss"]) == (1.0, 0.0, 0.0)
    assert "reward" not in line and "city" not in line


def test_adapters_off_are_the_starting_policy(start, tmp_path):
    """One draw with fresh adapters and one with whole weights: no divergence, the same rewards, then both move."""
    for name, fields in (("whole", {}), ("lora", {"lora": {"rank": 4}})):
        runs.carry_out(ppo, wanted(start, tmp_path / name, rate=1e-2, epochs=0.7, **fields), "train")
    whole, lora = (metrics(tmp_path / name) for name in ("whole", "lora"))
    assert whole[0]["reward"] == lora[0]["reward"]
    for lines in (whole, lora):
        divergences = [line["kl"] for line in lines if "kl" in line]
        assert divergences[0] == pytest.approx(0, abs=1e-4)
        assert max(divergences) > 0.01


def test_micro_batches_do_not_change_the_curve(start, tmp_path):
    """Up to rounding: a draw is the same whatever shares a forward pass, and losses are means over its tokens."""
    curves = []
    for micro in (1, 6):
        run = wanted(start, tmp_path / str(micro), epochs=0.7, micro_batch=micro)
        runs.carry_out(ppo, run, "train")
        curves.append(metrics(run.output))
    for one, other in zip(*curves, strict=True):
        assert one.keys() == other.keys()
        assert all(one[name] == pytest.approx(other[name], rel=1e-3, abs=1e-4) for name in one if name != "tokens")


def test_padded_sequences_give_the_same_loss(start, tmp_path):
    curves = []
    for trees in (True, False):
        run = wanted(start, tmp_path / str(trees), epochs=0.35, trees=trees)
        runs.carry_out(ppo, run, "train")
        curves.append(metrics(run.output))
    assert curves[0][0]["tokens"] < 0.6 * curves[1][0]["tokens"]
    for name in ("loss", "grad_norm", "reward", "entropy"):
        assert curves[0][0][name] == pytest.approx(curves[1][0][name], rel=1e-4)


def test_threads_serve_as_contexts(start, tmp_path):
    source = threads(tmp_path / "threads")
    run = wanted((source, start[1]), tmp_path / "run", epochs=1)
    assert runs.carry_out(ppo, run, "train")["contexts_trained_on"] == 6
    (source / "recipe.json").write_text('{"command": "ingest", "source": "chat"}')
    with pytest.raises(DataError, match="whole conversations of source 'chat', not questions in their context"):
        ppo.inputs(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "scratch"}, "starts from a policy that can already ask"),
        ({"rollouts": {"reward": {}}}, "is rewarded by reward models and by nothing else; name those of"),
        ({"rollouts": {"grader": "g"}}, "or choose grpo, which takes a grader or a judge beside them"),
        ({"rollouts": {"turns": 5, "updates": 2}}, "turns 5 cannot be shared by 2 updates"),
        ({"rollouts": {"kl": 0.1}}, r"rollouts.kl 0.1 is for grpo and its kin, not for ppo \(ppo.kl is its price"),
        ({"rollouts": {"scale": "batch"}}, "rollouts.scale 'batch' is for grpo and its kin"),
        (
            {"rollouts": {"reward": {"models": {"paths": ["."]}, "question_cost": 1.0}}},
            "rollouts.reward.question_cost 1.0 is of the reward of a grader or judge",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_made(start, tmp_path, change, message):
    with pytest.raises(RecipeError, match=message):
        runs.carry_out(ppo, wanted(start, tmp_path / "run", **change), "train")
    assert not (tmp_path / "run").exists()


def test_a_reward_model_that_is_not_there_is_named(start, tmp_path):
    run = wanted(start, tmp_path / "run", rollouts={"reward": {"models": {"paths": ["nowhere/rm"]}}})
    with pytest.raises(DataError, match="nowhere/rm: no such directory; make it with `askwell train --method reward`"):
        ppo.inputs(run)
    with pytest.raises(DataError, match="nothing to train on in split 'dev'"):
        runs.carry_out(ppo, wanted(start, tmp_path / "run", split="dev"), "train")


def test_the_price_moves_only_with_a_target(start, tmp_path):
    with pytest.raises(ValueError, match="kl_target needs a price to begin with"):
        wanted(start, tmp_path / "run", ppo={"kl": 0, "kl_target": 1})
    with pytest.raises(ValueError, match="kl_rate"):
        # A fifth of it is 1: at a draw without divergence the price would be 0, and stay there.
        wanted(start, tmp_path / "run", ppo={"kl_target": 1, "kl_rate": 5})
    run = wanted(start, tmp_path / "run", epochs=0.35, ppo={"kl": 0})
    runs.carry_out(ppo, run, "train")
    assert not any("kl" in line or "kl_coefficient" in line for line in metrics(run.output))
    run = wanted(start, tmp_path / "held", epochs=1, ppo={"kl_target": 0.5, "kl_rate": 0.5})
    runs.carry_out(ppo, run, "train")
    prices = [line["kl_coefficient"] for line in metrics(run.output) if "kl" in line]
    # At first there is no divergence, so the price falls by most of what it may: 0.2 of the rate.
    assert prices[:2] == pytest.approx([0.05, 0.045]) and len(set(prices)) == 3
