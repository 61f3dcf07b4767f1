from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from askwell.errors import RecipeError
from askwell.training import batches

LENGTHS = st.lists(st.integers(1, 90), min_size=1, max_size=200)


@given(LENGTHS, st.integers(1, 17), st.integers(0, 3), st.integers(0, 5))
def test_an_epoch_uses_every_row_once_and_fills_up_with_blanks(lengths, batch, seed, epoch):
    groups = batches.epoch_batches(lengths, batch=batch, seed=seed, epoch=epoch)
    assert len(groups) == batches.steps_per_epoch(len(lengths), batch=batch)
    assert all(len(group) == batch for group in groups)
    used = Counter(row for group in groups for row in group)
    blanks = used.pop(batches.BLANK, 0)
    assert used == Counter(range(len(lengths)))
    assert blanks == len(groups) * batch - len(lengths)


@given(LENGTHS, st.integers(1, 17), st.integers(1, 40), st.integers(0, 3))
def test_a_shorter_training_is_the_beginning_of_a_longer_one(lengths, batch, steps, seed):
    short = batches.order(lengths, batch=batch, steps=steps, seed=seed)
    assert len(short) == steps * batch
    assert batches.order(lengths, batch=batch, steps=steps + 3, seed=seed)[: len(short)] == short


def test_seed_and_epoch_change_the_order():
    lengths = [1] * 40
    first = batches.epoch_batches(lengths, batch=4, seed=0, epoch=0)
    assert first != batches.epoch_batches(lengths, batch=4, seed=0, epoch=1)
    assert first != batches.epoch_batches(lengths, batch=4, seed=1, epoch=0)


def test_rows_of_like_length_share_a_batch():
    lengths = [10, 1000] * 100
    rows = batches.order(lengths, batch=10, steps=20, seed=0)
    assert batches.padding(rows, lengths, micro=10) == 0
    assert batches.padding(list(range(200)), lengths, micro=10) == pytest.approx(1 - 1010 / 2000)


@pytest.mark.parametrize(
    ("rows", "batch", "epochs", "steps"), [(10, 4, 1, 3), (10, 4, 2, 6), (10, 4, 0.5, 2), (1, 32, 0.1, 1), (8, 4, 1, 2)]
)
def test_the_number_of_steps_is_known_in_advance(rows, batch, epochs, steps):
    assert batches.total_steps(rows, batch=batch, epochs=epochs) == steps


@pytest.mark.parametrize(
    ("batch", "at_most", "processes", "micro"), [(32, 32, 1, 32), (32, 32, 2, 16), (32, 5, 1, 4), (6, 32, 2, 3)]
)
def test_processes_share_a_batch(batch, at_most, processes, micro):
    assert batches.micro_batch(batch, at_most=at_most, processes=processes) == micro


def test_a_batch_that_processes_cannot_share_is_refused():
    with pytest.raises(RecipeError, match="batch 32 cannot be shared by 3 processes; make it a multiple of 3"):
        batches.micro_batch(32, at_most=32, processes=3)
