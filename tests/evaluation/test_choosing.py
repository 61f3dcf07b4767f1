"""Best of n by a reward model: the reply that `transformers` alone would give the largest reward."""

import json

import pytest
import torch

from askwell import rendering, weights
from askwell.evaluation.choosing import best_by_reward
from askwell.records import Message, ReplySet
from local_examples import babbler

TEXTS = ["a b c", "c b", "b", "a a a c", ""]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A run directory with a reward model whose head was drawn at random."""
    folder = tmp_path_factory.mktemp("reward")
    policy = babbler()
    policy.model.save_pretrained(folder / "policy")
    policy.tokenizer.save_pretrained(folder / "policy")
    drawn = weights.load_reward(str(folder / "policy"), seed=3)
    drawn.model.save_pretrained(folder / "run" / "checkpoint")
    drawn.tokenizer.save_pretrained(folder / "run" / "checkpoint")
    (folder / "run" / "recipe.json").write_text(json.dumps({"command": "train"}))
    (folder / "run" / "manifest.json").write_text("{}")
    return folder / "run"


def test_the_largest_reward_wins_at_each_context(model):
    contexts = [(Message(role="user", content=text),) for text in ("a b", "c c a", "b")]
    sets = [ReplySet(id=f"c{i}", group="g", context=context, replies={}) for i, context in enumerate(contexts)]
    samples = [TEXTS[:4], TEXTS[1:4], ["b", "b"]]
    loaded = weights.load_reward(str(model))
    expected = []
    for context, texts in zip(contexts, samples, strict=True):
        rewards = []
        for text in texts:
            before, after = rendering.render(loaded.tokenizer, context, text, prompt="")
            with torch.no_grad():
                rewards.append(float(loaded.model(input_ids=torch.tensor([[*before, *after]])).logits))
        expected.append(rewards.index(max(rewards)))
    assert best_by_reward(model, sets, samples) == expected
    assert len(set(expected)) > 1 and expected[2] == 0


def test_what_does_not_fit_has_no_best(model):
    room = weights.load_reward(str(model)).model.config.max_position_embeddings
    sets = [ReplySet(id=id, group="g", context=(Message(role="user", content="a"),), replies={}) for id in "xy"]
    assert best_by_reward(model, sets, [["a", "b " * 3 * room], ["a"]]) == [None, 0]
