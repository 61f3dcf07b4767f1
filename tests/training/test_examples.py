from collections import Counter

import pytest
import torch
from training_examples import conversation, expert, turns, user

from askwell import weights
from askwell.recipes import ScratchModel
from askwell.records import Target, Turn
from askwell.training import examples, loop
from askwell.training.examples import IGNORED, Example

STOP = "<stop />"


@pytest.fixture(scope="module")
def policy():
    sizes = ScratchModel(vocabulary=300, hidden=16, layers=2, heads=2)
    return weights.create(sizes, ["a"], stop_marker=STOP, seed=1)


def spelled(policy, example):
    """Each token with whether it carries loss."""
    assert all(label in (IGNORED, token) for token, label in zip(example.ids, example.labels, strict=True))
    tokens = policy.tokenizer.convert_ids_to_tokens(example.ids)
    return [(token, label != IGNORED) for token, label in zip(tokens, example.labels, strict=True)]


def build(policy, rows, **fields):
    values = {"stop_marker": STOP, "prompt": "", "max_tokens": 500, "counts": Counter(), **fields}
    return examples.of_turns(rows, policy.tokenizer, **values)


def turn(context, reply, *, decision="continue", conversation_id="c"):
    common = {"id": f"{conversation_id}{len(context)}", "group": "g", "split": "train", "index": 0, "future": ()}
    target = Target(decision=decision)
    return Turn(**common, conversation_id=conversation_id, context=tuple(context), expert_reply=reply, target=target)


def test_loss_of_a_question_token_by_token(policy):
    [example] = build(policy, [turn([user("no")], "yes")], prompt="yes")
    assert spelled(policy, example) == [
        ("<|system|>", False),
        ("y", False),
        ("e", False),
        ("s", False),
        ("<|end|>", False),
        ("<|user|>", False),
        ("n", False),
        ("o", False),
        ("<|end|>", False),
        ("<|assistant|>", False),
        ("y", True),
        ("e", True),
        ("s", True),
        ("<|end|>", True),
    ]


def test_loss_of_a_stop_is_the_marker_alone_whatever_the_expert_said(policy):
    [example] = build(policy, [turn([user("no")], "Goodbye.", decision="stop")])
    assert spelled(policy, example) == [
        ("<|user|>", False),
        ("n", False),
        ("o", False),
        ("<|end|>", False),
        ("<|assistant|>", False),
        (STOP, True),
        ("<|end|>", True),
    ]


def test_turns_that_go_on_share_a_sequence_with_the_loss_on_each_response(policy):
    first, second = user("no"), user("o")
    rows = [
        turn([first], "yes"),
        turn([first, expert("yes"), second], "e"),
        turn([first, expert("yes"), second, expert("e"), first], "Bye", decision="stop"),
        turn([first], "s", conversation_id="another"),
    ]
    shared, other = build(policy, rows)
    assert [token for token, _ in spelled(policy, shared)] == [
        *("<|user|>", "n", "o", "<|end|>", "<|assistant|>", "y", "e", "s", "<|end|>"),
        *("<|user|>", "o", "<|end|>", "<|assistant|>", "e", "<|end|>"),
        *("<|user|>", "n", "o", "<|end|>", "<|assistant|>", STOP, "<|end|>"),
    ]
    with_loss = [token for token, counted in spelled(policy, shared) if counted]
    assert with_loss == ["y", "e", "s", "<|end|>", "e", "<|end|>", STOP, "<|end|>"]
    assert spelled(policy, other)[-1] == ("<|end|>", True)


def test_a_turn_that_does_not_go_on_keeps_its_own_sequence(policy):
    """After a stop the log goes on with other words than the marker."""
    said = [user("no")]
    rows = [turn(said, "Bye", decision="stop"), turn([*said, expert("Bye"), user("o")], "yes")]
    assert len(build(policy, rows)) == 2


def test_shared_sequences_have_the_loss_and_the_gradient_of_separate_ones(policy):
    rows = [row for number in range(3) for row in turns(number)]
    apart = [example for row in rows for example in build(policy, [row])]
    shared = build(policy, rows)
    assert (len(apart), len(shared)) == (9, 3)

    def loss_and_gradients(group):
        policy.model.zero_grad()
        batch = loop.collate(group)
        with weights.head_only_at(policy.model, loop.predicting(batch["labels"])):
            outputs = policy.model(input_ids=batch["input_ids"])
        loss = loop.token_loss(outputs, batch["labels"], torch.tensor(100.0))
        loss.backward()
        return [loss.detach(), *(weight.grad.clone() for weight in policy.model.parameters())]

    for one, other in zip(loss_and_gradients(apart), loss_and_gradients(shared), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_loss_is_that_of_the_model_itself(policy):
    """The head at the labelled places, without a mask, against all logits, with a mask, by transformers."""
    group = build(policy, [row for number in range(3) for row in turns(number)])
    batch = loop.collate(group)
    mask = torch.zeros_like(batch["input_ids"])
    for row, example in enumerate(group):
        mask[row, : len(example.ids)] = 1
    expected = policy.model(**batch, attention_mask=mask).loss
    with weights.head_only_at(policy.model, loop.predicting(batch["labels"])):
        outputs = policy.model(input_ids=batch["input_ids"])
    counted = (batch["labels"] != IGNORED).sum()
    torch.testing.assert_close(loop.token_loss(outputs, batch["labels"], counted), expected)


def test_whole_conversations_carry_loss_on_every_token(policy):
    counts = Counter()
    [example] = examples.of_conversations([conversation(0)], policy.tokenizer, prompt="", max_tokens=500, counts=counts)
    assert example.labels == [IGNORED, *example.ids[1:]]
    tokens = policy.tokenizer.convert_ids_to_tokens(example.ids)
    assert tokens.count("<|user|>") == 4
    assert tokens.count("<|assistant|>") == 3
    assert STOP not in tokens
    [cut] = examples.of_conversations([conversation(0)], policy.tokenizer, prompt="", max_tokens=20, counts=counts)
    assert cut == Example(example.ids[:20], example.labels[:20])
    assert counts == {"conversations_cut": 1, "tokens_cut": len(example.ids) - 20}


def test_what_does_not_fit_is_cut_and_counted(policy):
    counts = Counter()
    rows = [turn([user("n" * 50), expert("o"), user("s")], "yes"), turn([user("n" * 50)], "yes")]
    [example] = build(policy, rows, max_tokens=16, counts=counts)
    assert policy.tokenizer.decode(example.ids) == "<|user|>s<|end|><|assistant|>yes<|end|>"
    assert (counts["turns_cut"], counts["messages_left_out"], counts["turns_too_long"]) == (1, 2, 1)


def test_a_conversation_without_messages_is_counted_not_trained_on(policy):
    counts = Counter()
    empty = conversation(0).model_copy(update={"messages": ()})
    assert examples.of_conversations([empty], policy.tokenizer, prompt="", max_tokens=50, counts=counts) == []
    assert counts == {"conversations_empty": 1}
