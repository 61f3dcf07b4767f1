"""Records to training rows: the token sequences of a conversation, and which of their tokens carry the loss.

A row is all the turns of a conversation, each a sequence of context and response with the loss on the response.
They share their prefixes (`training.trees`), so a dialogue trains all its turns in one pass.
"""

import itertools
from collections import Counter
from collections.abc import Iterable

from askwell import rendering
from askwell.records import Conversation, Turn
from askwell.training.trees import Piece

Row = list[Piece]


def response_of(turn: Turn, stop_marker: str) -> str:
    """What a policy should say at a turn whose target is known."""
    assert turn.target is not None
    return turn.expert_reply if turn.target.decision == "continue" else stop_marker


def of_turns(
    turns: Iterable[Turn],
    tokenizer: rendering.PreTrainedTokenizerBase,
    *,
    stop_marker: str,
    prompt: str,
    max_tokens: int,
    counts: Counter[str],
) -> list[Row]:
    """A row a conversation. Counts what was cut, and what did not fit at all."""
    rows: list[Row] = []
    for _, group in itertools.groupby(turns, key=lambda turn: turn.conversation_id):
        row: Row = []
        for turn in group:
            response = response_of(turn, stop_marker)
            fitted = rendering.fit(tokenizer, turn.context, response, prompt=prompt, room=max_tokens)
            if fitted is None:
                counts["turns_too_long"] += 1
                continue
            before, after, left_out = fitted
            counts["turns_cut"] += bool(left_out)
            counts["messages_left_out"] += left_out
            row.append(Piece(before + after, range(len(before), len(before) + len(after))))
        if row:
            rows.append(row)
    return rows


def of_conversations(
    conversations: Iterable[Conversation],
    tokenizer: rendering.PreTrainedTokenizerBase,
    *,
    prompt: str,
    max_tokens: int,
    counts: Counter[str],
) -> list[Row]:
    """A row a conversation, loss on every token but the first, which nothing predicts; the end is cut off."""
    rows = []
    for conversation in conversations:
        if not conversation.messages:
            counts["conversations_empty"] += 1
            continue
        ids = rendering.transcript(tokenizer, conversation.messages, prompt=prompt)
        counts["conversations_cut"] += len(ids) > max_tokens
        counts["tokens_cut"] += max(0, len(ids) - max_tokens)
        ids = ids[:max_tokens]
        rows.append([Piece(ids, range(1, len(ids)))])
    return rows
