"""Replies are drawn in fixed batches; a run cut at any byte ends with the bytes of an undisturbed one."""

import logging
from pathlib import Path

import pytest
from evaluation_examples import TURNS, Chatter, recipe_of, turn
from hypothesis import given, settings
from hypothesis import strategies as st

from askwell import jsonl
from askwell.errors import DataError
from askwell.evaluation import sampling
from askwell.records import Reply

MANY = [turn(f"c{i // 3}#{i % 3}", "continue", ("city",)) for i in range(23)]


def draw(path, turns=MANY, policy=None, **fields):
    fields = {"batch": 4, "samples": 2} | fields
    return sampling.draw(turns, lambda: policy or Chatter(), path=path, how=recipe_of(path.parent, **fields))


def test_each_turn_gets_each_sample_once(tmp_path):
    replies = draw(tmp_path / "replies.jsonl")
    assert sorted((reply.turn_id, reply.sample) for reply in replies) == sorted(
        (t.id, sample) for t in MANY for sample in (0, 1)
    )
    assert replies == list(jsonl.read(tmp_path / "replies.jsonl", Reply))


def test_no_two_units_share_a_seed(tmp_path):
    policy = Chatter()
    draw(tmp_path / "replies.jsonl", policy=policy)
    assert len(set(policy.calls)) == len(policy.calls) == 6
    other = Chatter()
    draw(tmp_path / "other.jsonl", policy=other, seed=1)
    assert not set(policy.calls) & set(other.calls)


def whole(directory: Path) -> bytes:
    draw(directory / "whole.jsonl")
    return (directory / "whole.jsonl").read_bytes()


@settings(max_examples=40)
@given(share=st.floats(0, 1))
def test_cut_at_any_byte_and_resumed_is_as_if_undisturbed(tmp_path_factory, share):
    directory = tmp_path_factory.mktemp("cut")
    expected = whole(directory)
    path = directory / "replies.jsonl"
    path.write_bytes(expected[: int(share * len(expected))])
    policy = Chatter()
    replies = draw(path, policy=policy)
    assert path.read_bytes() == expected
    assert replies == list(jsonl.read(path, Reply))
    # Units that are whole are not drawn again.
    assert len(policy.calls) <= 6 - int(share * 6) + 1


def test_killed_between_batches_goes_on_from_there(tmp_path):
    path = tmp_path / "replies.jsonl"
    with pytest.raises(KeyboardInterrupt):
        draw(path, policy=Chatter(dies_after=2))
    assert len(path.read_bytes().splitlines()) == 16
    rest = Chatter()
    draw(path, policy=rest)
    assert (len(rest.calls), path.read_bytes()) == (4, whole(tmp_path))


def test_finished_replies_need_no_policy(tmp_path):
    path = tmp_path / "replies.jsonl"
    before = draw(path)

    def load():
        raise AssertionError("the policy was loaded")

    recipe = recipe_of(tmp_path, batch=4, samples=2)
    assert sampling.draw(MANY, load, path=path, how=recipe) == before


def test_replies_at_other_turns_are_refused(tmp_path):
    path = tmp_path / "replies.jsonl"
    draw(path)
    with pytest.raises(DataError, match=r"other turns than those of .*labelled.*; delete .* and start again"):
        draw(path, turns=MANY[1:])
    with pytest.raises(DataError, match="other turns"):
        draw(path, turns=TURNS)


def test_too_few_texts_from_a_policy_are_no_replies(tmp_path):
    class Short(Chatter):
        def replies(self, contexts, **settings):
            return super().replies(contexts, **settings)[1:]

    with pytest.raises(ValueError):
        draw(tmp_path / "replies.jsonl", policy=Short())
    assert (tmp_path / "replies.jsonl").read_bytes() == b""


@given(st.integers(1, 40), st.integers(1, 7))
def test_units_hold_every_turn_once_in_their_order_and_depend_on_nothing_behind_them(tmp_path_factory, count, size):
    recipe = recipe_of(tmp_path_factory.getbasetemp(), batch=size)
    found = list(sampling.units(MANY[:count], recipe))
    assert [t for unit in found for t in unit.turns] == MANY[:count]
    assert all(0 < len(unit.turns) <= size for unit in found)
    assert list(sampling.units(MANY[: size * 2], recipe))[:1] == found[:1] or len(MANY[:count]) < size


def test_messages_that_did_not_fit_are_reported(tmp_path, caplog):
    policy = Chatter()
    policy.messages_left_out = 7
    draw(tmp_path / "replies.jsonl", policy=policy)
    assert "7 messages were left out" in caplog.text


def test_progress_says_done_rate_and_rest(tmp_path, caplog):
    path = tmp_path / "replies.jsonl"
    with caplog.at_level(logging.INFO):
        draw(path)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("replies: 46 of 46, ")
    assert caplog.messages[0].endswith("/s, 0 s remain")
