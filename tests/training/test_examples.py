from collections import Counter

import pytest
from training_examples import conversation, expert, user

from askwell import weights
from askwell.recipes import ScratchModel
from askwell.records import Target, Turn
from askwell.training import examples
from askwell.training.trees import Piece, nodes

STOP = "<stop />"


@pytest.fixture(scope="module")
def policy():
    sizes = ScratchModel(vocabulary=300, hidden=16, layers=2, heads=2)
    return weights.create(sizes, ["a"], stop_marker=STOP, seed=1)


def spelled(policy, piece):
    """Each token with whether it carries loss."""
    tokens = policy.tokenizer.convert_ids_to_tokens(piece.ids)
    return [(token, place in piece.scored) for place, token in enumerate(tokens)]


def build(policy, rows, **fields):
    values = {"stop_marker": STOP, "prompt": "", "max_tokens": 500, "counts": Counter(), **fields}
    return examples.of_turns(rows, policy.tokenizer, **values)


def turn(context, reply, *, decision="continue", conversation_id="c"):
    common = {"id": f"{conversation_id}{len(context)}", "group": "g", "split": "train", "index": 0, "future": ()}
    target = Target(decision=decision)
    return Turn(**common, conversation_id=conversation_id, context=tuple(context), expert_reply=reply, target=target)


def test_loss_of_a_question_token_by_token(policy):
    [[piece]] = build(policy, [turn([user("no")], "yes")], prompt="yes")
    assert spelled(policy, piece) == [
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
    [[piece]] = build(policy, [turn([user("no")], "Goodbye.", decision="stop")])
    assert spelled(policy, piece) == [
        ("<|user|>", False),
        ("n", False),
        ("o", False),
        ("<|end|>", False),
        ("<|assistant|>", False),
        (STOP, True),
        ("<|end|>", True),
    ]


def test_a_row_is_a_conversation_whose_turns_share_their_prefixes(policy):
    first, second = user("no"), user("o")
    rows = [
        turn([first], "yes"),
        turn([first, expert("yes"), second], "e"),
        turn([first, expert("yes"), second, expert("e"), first], "Bye", decision="stop"),
        turn([first], "s", conversation_id="another"),
    ]
    dialogue, other = build(policy, rows)
    assert [len(dialogue), len(other)] == [3, 1]
    assert [token for token, _ in spelled(policy, dialogue[2])] == [
        *("<|user|>", "n", "o", "<|end|>", "<|assistant|>", "y", "e", "s", "<|end|>"),
        *("<|user|>", "o", "<|end|>", "<|assistant|>", "e", "<|end|>"),
        *("<|user|>", "n", "o", "<|end|>", "<|assistant|>", STOP, "<|end|>"),
    ]
    with_loss = [[token for token, counted in spelled(policy, piece) if counted] for piece in dialogue]
    assert with_loss == [["y", "e", "s", "<|end|>"], ["e", "<|end|>"], [STOP, "<|end|>"]]
    assert nodes(dialogue) == len(dialogue[2].ids)


def test_whole_conversations_carry_loss_on_every_token(policy):
    counts = Counter()
    common = {"prompt": "", "counts": counts}
    [[piece]] = examples.of_conversations([conversation(0)], policy.tokenizer, max_tokens=500, **common)
    assert list(piece.scored) == list(range(1, len(piece.ids)))
    tokens = policy.tokenizer.convert_ids_to_tokens(piece.ids)
    assert tokens.count("<|user|>") == 4
    assert tokens.count("<|assistant|>") == 3
    assert STOP not in tokens
    [[cut]] = examples.of_conversations([conversation(0)], policy.tokenizer, max_tokens=20, **common)
    assert cut == Piece(piece.ids[:20], range(1, 20))
    assert counts == {"conversations_cut": 1, "tokens_cut": len(piece.ids) - 20}


def test_what_does_not_fit_is_cut_and_counted(policy):
    counts = Counter()
    rows = [turn([user("n" * 50), expert("o"), user("s")], "yes"), turn([user("n" * 50)], "yes")]
    [[piece]] = build(policy, rows, max_tokens=16, counts=counts)
    assert policy.tokenizer.decode(piece.ids) == "<|user|>s<|end|><|assistant|>yes<|end|>"
    assert (counts["turns_cut"], counts["messages_left_out"], counts["turns_too_long"]) == (1, 2, 1)


def test_a_conversation_without_messages_is_counted_not_trained_on(policy):
    counts = Counter()
    empty = conversation(0).model_copy(update={"messages": ()})
    assert examples.of_conversations([empty], policy.tokenizer, prompt="", max_tokens=50, counts=counts) == []
    assert counts == {"conversations_empty": 1}
