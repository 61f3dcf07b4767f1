"""Records to training rows: the token sequences of a conversation, and which of their tokens carry the loss.

A row is all the turns of a conversation, each a sequence of context and response with the loss on the response.
They share their prefixes (`training.trees`), so a dialogue trains all its turns in one pass. A question set is a row as
well: its candidates after their one context.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from askwell import rendering
from askwell.errors import DataError
from askwell.recipes import TrainRecipe
from askwell.records import Conversation, QuestionSet, Turn
from askwell.training import reading
from askwell.training.draws import Ask
from askwell.training.trees import Piece

Row = list[Piece]


class Candidates(NamedTuple):
    """A question set: those of its candidates that its preferences name, as sequences, and a pair a preference.

    A pair is the places of better and worse among the sequences. `start` holds each candidate's log-probability under
    the starting policy, where a method needs it; `left_out` counts the oldest messages for which there was no room.
    """

    record: QuestionSet
    pieces: list[Piece]
    pairs: list[tuple[int, int]]
    start: tuple[float, ...] = ()
    left_out: int = 0


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


def of_question_sets(
    records: Iterable[QuestionSet],
    tokenizer: rendering.PreTrainedTokenizerBase,
    *,
    prompt: str,
    max_tokens: int,
    counts: Counter[str],
    divided: bool = False,
) -> list[Candidates]:
    """A row a question set. Counts what was cut, and what did not fit at all.

    `divided`: of a set that does not fit as it is a row for each attribute, for trainings in one attribute each: what
    is too long in one is nothing to the others.
    """
    limits = {"prompt": prompt, "max_tokens": max_tokens}
    rows: list[Candidates] = []
    for record in records:
        own: Counter[str] = Counter()
        row = of_question_set(record, tokenizer, counts=own, **limits)
        found = [row]
        if divided and (row is None or row.left_out):
            own.clear()
            attributes = sorted({each.attribute for each in record.preferences})
            found = [of_question_set(in_one(record, name), tokenizer, counts=own, **limits) for name in attributes]
        counts.update(own)
        rows += [row for row in found if row]
    return rows


def of_question_set(
    record: QuestionSet,
    tokenizer: rendering.PreTrainedTokenizerBase,
    *,
    prompt: str,
    max_tokens: int,
    counts: Counter[str],
) -> Candidates | None:
    """A question set's candidates that its preferences name, None where they do not fit."""
    places = sorted({place for each in record.preferences for place in (each.better, each.worse)})
    own: Counter[str] = Counter()
    pieces = after_one_context(record, places, tokenizer, prompt=prompt, max_tokens=max_tokens, counts=own)
    counts.update(own)
    if not pieces:
        return None
    at = {place: number for number, place in enumerate(places)}
    pairs = [(at[each.better], at[each.worse]) for each in record.preferences]
    return Candidates(record, pieces, pairs, left_out=own["messages_left_out"])


def in_one(record: QuestionSet, attribute: str) -> QuestionSet:
    """A question set with its preferences in one attribute."""
    chosen = tuple(each for each in record.preferences if each.attribute == attribute)
    return record.model_copy(update={"preferences": chosen})


def of_questions(
    chosen: Iterable[tuple[QuestionSet, list[int]]],
    tokenizer: rendering.PreTrainedTokenizerBase,
    *,
    prompt: str,
    max_tokens: int,
    counts: Counter[str],
) -> list[Row]:
    """A row a question set, its candidates at the places named. Counts what was cut, and what did not fit at all."""
    limits = {"prompt": prompt, "max_tokens": max_tokens, "counts": counts}
    rows = (after_one_context(record, places, tokenizer, **limits) for record, places in chosen)
    return [row for row in rows if row]


def only(row: Candidates, attribute: str) -> Candidates | None:
    """A question set with its preferences in one attribute and the candidates that they name, None without any."""
    chosen = [place for place, each in enumerate(row.record.preferences) if each.attribute == attribute]
    named = sorted({candidate for place in chosen for candidate in row.pairs[place]})
    at = {candidate: number for number, candidate in enumerate(named)}
    if not chosen:
        return None
    return Candidates(
        in_one(row.record, attribute),
        [row.pieces[candidate] for candidate in named],
        [(at[row.pairs[place][0]], at[row.pairs[place][1]]) for place in chosen],
        tuple(row.start[candidate] for candidate in named) if row.start else (),
        row.left_out,
    )


def counted(recipe: TrainRecipe, rows: Sequence[Candidates]) -> Counter[str]:
    """What a training on these rows reads and leaves out. Raises DataError where nothing is left."""
    counts: Counter[str] = Counter()
    sets = sum(1 for _ in reading.question_sets(recipe, counts))
    cut = [row.left_out for row in rows if row.left_out]
    counts.update(sets_too_long=sets - len(rows), sets_cut=len(cut), messages_left_out=sum(cut))
    if not rows:
        raise DataError(f"{recipe.input}: nothing to train on in split {recipe.split!r} ({dict(counts)})")
    return counts


def after_one_context(
    record: QuestionSet,
    places: Sequence[int],
    tokenizer: rendering.PreTrainedTokenizerBase,
    *,
    prompt: str,
    max_tokens: int,
    counts: Counter[str],
) -> list[Piece] | None:
    """Some candidates as sequences, loss on the candidate. None where they do not fit.

    A context that one of them has no room for is cut for all: candidates that saw different contexts could not be
    compared.
    """
    context, left_out = record.context, 0
    while True:
        fitted = [
            rendering.fit(tokenizer, context, record.candidates[place].text, prompt=prompt, room=max_tokens)
            for place in places
        ]
        if not all(fitted):
            counts["sets_too_long"] += 1
            return None
        cut = max(each[2] for each in fitted if each)
        if not cut:
            counts["sets_cut"] += bool(left_out)
            counts["messages_left_out"] += left_out
            return [Piece(each[0] + each[1], range(len(each[0]), len(each[0] + each[1]))) for each in fitted if each]
        context, left_out = context[cut:], left_out + cut


def to_ask(
    records: Iterable[Ask], tokenizer: rendering.PreTrainedTokenizerBase, *, recipe: TrainRecipe, counts: Counter[str]
) -> dict[str, tuple[Ask, list[int]]]:
    """Records by their ids with the tokens of their contexts, which leave room for a rollout; counts what was cut."""
    prompt = rendering.system_prompt(recipe.prompt, stop_marker=recipe.stop_marker)
    found: dict[str, tuple[Ask, list[int]]] = {}
    for record in records:
        room = recipe.max_tokens - recipe.rollouts.max_new_tokens
        fitted = rendering.fit(tokenizer, record.context, None, prompt=prompt, room=room)
        if fitted is None:
            counts["contexts_too_long"] += 1
            continue
        ids, _, left_out = fitted
        counts["contexts_cut"] += bool(left_out)
        counts["messages_left_out"] += left_out
        found[record.id] = record, ids
    return found
