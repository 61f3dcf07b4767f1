import pytest
import torch

from askwell import generation, rendering, weights
from askwell.errors import DataError
from askwell.generation import LocalPolicy
from askwell.recipes import ScratchModel
from askwell.records import Message

STOP = "<stop />"
CHOICE = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 8, "seed": 1}
GREEDY = {**CHOICE, "temperature": 0.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    sizes = ScratchModel(vocabulary=300, hidden=32, layers=2, heads=2)
    policy = weights.create(sizes, ["a b c"], stop_marker=STOP, seed=5)
    with torch.no_grad():
        for weight in policy.model.parameters():
            # A fresh model is nearly uniform: its greedy choice would hang on the last digit.
            weight.mul_(8)
    path = tmp_path_factory.mktemp("policy")
    weights.save(policy, path)
    return path


@pytest.fixture(scope="module")
def policy(folder):
    return LocalPolicy.load(str(folder))


@pytest.fixture
def contexts():
    words = ["I am hungry.", "x", "In a small town by the sea, not far from here, where it rains.", "no", "12 of them"]
    return [[Message(role="user", content=word * (1 + place))] for place, word in enumerate(words)]


def test_a_greedy_reply_is_the_same_alone_and_in_a_padded_batch(policy, contexts):
    together = policy.replies(contexts, **GREEDY)
    assert together == [policy.replies([context], **GREEDY)[0] for context in contexts]
    assert len(set(together)) > 1


def test_samples_come_in_the_order_of_the_contexts(policy, contexts):
    alone = policy.replies(contexts, **GREEDY)
    assert policy.replies(contexts, **GREEDY, samples=2) == [reply for reply in alone for _ in range(2)]
    drawn = policy.replies(contexts, **CHOICE, samples=3)
    assert len(drawn) == len(set(drawn)) == 3 * len(contexts)


def test_likelihoods_come_in_the_order_of_the_replies(policy, contexts, monkeypatch):
    replies = ["yes", "no, not at all", "x", "Which city would you like?", "when"]
    together = policy.nll(contexts, replies)
    monkeypatch.setattr(generation, "FORWARD", 2)
    for (loss, count), (alone, tokens) in zip(policy.nll(contexts, replies), together, strict=True):
        assert (loss, count) == (pytest.approx(alone, rel=1e-4), tokens)


def test_replies_are_drawn_by_the_seed_alone(policy, contexts):
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    first = policy.replies(contexts, **CHOICE)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(8)
    assert policy.replies(contexts, **CHOICE) == first
    assert policy.replies(contexts, **{**CHOICE, "seed": 2}) != first


def test_samples_of_one_context_differ(policy, contexts):
    hot = {**CHOICE, "temperature": 5.0}
    assert len(set(policy.replies([contexts[0]] * 8, **hot))) > 4


def test_negative_log_likelihood_alone_batched_and_by_hand(policy, contexts):
    replies = ["yes", STOP, "Which city would you like?", "no", "when"]
    together = policy.nll(contexts, replies)
    for context, reply, (loss, tokens) in zip(contexts, replies, together, strict=True):
        [(alone, count)] = policy.nll([context], [reply])
        assert (alone, count) == (pytest.approx(loss, rel=1e-4), tokens)
        before, after = rendering.render(policy.tokenizer, context, reply, prompt="")
        odds = policy.model(torch.tensor([before + after])).logits[0].log_softmax(-1).detach()
        by_hand = -sum(float(odds[len(before) + place - 1, token]) for place, token in enumerate(after))
        assert (loss, tokens) == (pytest.approx(by_hand, rel=1e-4), len(after))
    assert together[1][1] == 2


def teach(policy, reply):
    """Make the policy say exactly `reply`."""
    optimizer = torch.optim.Adam(policy.model.parameters(), 3e-3)
    before, after = rendering.render(
        policy.tokenizer, [Message(role="user", content="go")], reply, prompt=policy.prompt
    )
    ids = torch.tensor([before + after])
    for _ in range(80):
        logits = policy.model(ids).logits[0, len(before) - 1 : -1]
        torch.nn.functional.cross_entropy(logits, torch.tensor(after)).backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("reply", [STOP, "Which?"])
def test_the_stop_marker_is_kept_and_the_end_of_the_turn_is_not(folder, reply):
    policy = LocalPolicy.load(str(folder), prompt="policy")
    assert STOP in policy.prompt
    teach(policy, reply)
    go = [Message(role="user", content="go")]
    assert policy.replies([go, go], **GREEDY) == [reply, reply]
    [(loss, _)] = policy.nll([go], [reply])
    assert loss < 1


def test_a_long_context_loses_its_oldest_messages_and_too_long_a_message_is_refused(folder):
    policy = LocalPolicy.load(str(folder))
    policy.room = 40
    last = Message(role="user", content="c")
    long = [Message(role="user", content="a" * 30), Message(role="assistant", content="b"), last]
    assert policy.replies([long], **GREEDY) == policy.replies([[last]], **GREEDY)
    assert policy.messages_left_out == 2
    with pytest.raises(DataError, match="does not fit the model's 40 positions"):
        policy.replies([[Message(role="user", content="a" * 50)]], **GREEDY)


def test_a_published_generation_config_does_not_change_a_reply(folder, contexts, tmp_path):
    policy = weights.load(str(folder))
    policy.model.generation_config.repetition_penalty = 5.0
    weights.save(policy, tmp_path)
    assert LocalPolicy.load(str(tmp_path)).replies(contexts, **GREEDY) == LocalPolicy.load(str(folder)).replies(
        contexts, **GREEDY
    )
