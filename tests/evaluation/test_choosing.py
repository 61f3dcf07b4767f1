"""Best of n by a reward model: the reply that `transformers` alone would give the largest reward."""

import json

import pytest
import torch

from askwell import jsonl, rendering, runs, weights
from askwell.evaluation import questions
from askwell.evaluation.choosing import best_by_reward
from askwell.llm.transport import InProcess
from askwell.mock_endpoint import MockEndpoint
from askwell.recipes import EvaluateQuestionsRecipe
from askwell.records import Message, Reply, ReplySet, Thread
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


def test_a_checkpoint_of_this_machine_takes_part_with_the_best_of_its_samples(model, tmp_path):
    """Drawn in this process, chosen by the reward model; the judge sees one of them."""
    rows = [
        Thread(
            id=f"t{i}",
            conversation_id=f"t{i}",
            group=f"g{i}",
            split="test",
            source="askdocs",
            context=(Message(role="user", content=f"a b {i}"),),
            question="c?",
        )
        for i in range(5)
    ]
    (tmp_path / "threads").mkdir()
    jsonl.write(tmp_path / "threads" / "records.jsonl", rows)
    (tmp_path / "threads" / "recipe.json").write_text(json.dumps({"command": "ingest", "source": "askdocs"}))
    (tmp_path / "threads" / "manifest.json").write_text("{}")
    system = {"policy": str(model.parent / "policy"), "samples": 3, "temperature": 1, "max_new_tokens": 6}
    recipe = EvaluateQuestionsRecipe.model_validate(
        {
            "input": tmp_path / "threads",
            "output": tmp_path / "out",
            "systems": {"small": {**system, "reward_model": model}},
            "judge": {"model": "mock"},
            "batch": 2,
        }
    )
    tie = MockEndpoint(lambda body: json.dumps({"reason": "either", "verdict": "tie"}))
    with runs.start(recipe, "evaluate questions") as run:
        questions.run(recipe, run, {"judge": InProcess(tie.send)})
    sets = list(jsonl.read(tmp_path / "out" / "replies.jsonl", ReplySet))
    drawn = list(jsonl.read(tmp_path / "out" / "drawn" / "small.jsonl", Reply))
    assert [(reply.turn_id, reply.sample) for reply in drawn] == [(f"t{i}", k) for i in range(5) for k in range(3)]
    samples = [[reply.text for reply in drawn if reply.turn_id == row.id] for row in sets]
    best = best_by_reward(model, sets, samples)
    assert [row.replies["small"] for row in sets] == [texts[place] for texts, place in zip(samples, best, strict=True)]
    assert any(best) and {row.replies["human"] for row in sets} == {"c?"}
