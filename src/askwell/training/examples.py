"""Records to training sequences: token ids, and for each the label that carries the loss or IGNORED.

A turn's sequence is its context and its response, with the loss on the response. Where one turn's sequence is the
beginning of the next one's, as in a dialogue that goes on after a question, both share one sequence with the loss on
both responses: the same loss for a fraction of the tokens. The ids decide it, so it holds for any chat template.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from askwell import rendering
from askwell.records import Conversation, Message, Turn

IGNORED = -100


class Example(NamedTuple):
    """One sequence; labels[i] is ids[i] where the prediction of ids[i] carries loss, else IGNORED."""

    ids: list[int]
    labels: list[int]


def response_of(turn: Turn, stop_marker: str) -> str:
    """What a policy should say at a turn whose target is known."""
    assert turn.target is not None
    return turn.expert_reply if turn.target.decision == "continue" else stop_marker


def texts(messages: Iterable[Message]) -> Iterator[str]:
    """What a scratch tokenizer is trained on."""
    return (message.content for message in messages)


def of_turns(
    turns: Iterable[Turn],
    tokenizer: rendering.PreTrainedTokenizerBase,
    *,
    stop_marker: str,
    prompt: str,
    max_tokens: int,
    counts: Counter[str],
) -> list[Example]:
    """One example a turn, those of a conversation folded together where the ids allow. Counts what was cut."""
    examples: list[Example] = []
    for _, group in itertools.groupby(turns, key=lambda turn: turn.conversation_id):
        chain: list[Example] = []
        for turn in group:
            response = response_of(turn, stop_marker)
            fitted = rendering.fit(tokenizer, turn.context, response, prompt=prompt, room=max_tokens)
            if fitted is None:
                counts["turns_too_long"] += 1
                continue
            before, after, left_out = fitted
            counts["turns_cut"] += bool(left_out)
            counts["messages_left_out"] += left_out
            counts["tokens_unfolded"] += len(before) + len(after)
            fold(chain, Example(before + after, [IGNORED] * len(before) + after))
        examples += chain
    return examples


def fold(chain: list[Example], example: Example) -> None:
    """Add a turn's example to those of its conversation, into one whose sequence is the beginning of its own."""
    for place, earlier in enumerate(chain):
        size = len(earlier.ids)
        if example.ids[:size] == earlier.ids and all(label == IGNORED for label in example.labels[:size]):
            chain[place] = Example(example.ids, earlier.labels + example.labels[size:])
            return
    chain.append(example)


def of_conversations(
    conversations: Iterable[Conversation],
    tokenizer: rendering.PreTrainedTokenizerBase,
    *,
    prompt: str,
    max_tokens: int,
    counts: Counter[str],
) -> list[Example]:
    """One example a conversation, loss on every token but the first, which nothing predicts; the end is cut off."""
    examples = []
    for conversation in conversations:
        if not conversation.messages:
            counts["conversations_empty"] += 1
            continue
        ids = rendering.transcript(tokenizer, conversation.messages, prompt=prompt)
        counts["conversations_cut"] += len(ids) > max_tokens
        counts["tokens_cut"] += max(0, len(ids) - max_tokens)
        ids = ids[:max_tokens]
        examples.append(Example(ids, [IGNORED, *ids[1:]]))
    return examples
