from hypothesis import given
from hypothesis import strategies as st

from askwell.training.trees import Piece, nodes, prefix, rows_of

SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=12)


def pieces_of(sequences):
    return [Piece(ids, range(1, len(ids))) for ids in sequences]


def test_a_dialogue_and_two_rollouts_written_out():
    """A context, two replies to it, and a longer context that goes on from the first reply."""
    [row] = rows_of(pieces_of([[1, 2, 3], [1, 2, 4, 5], [1, 2, 3, 6]]), budget=100)
    assert row.ids == [1, 2, 3, 6, 4, 5]
    assert row.positions == [0, 1, 2, 3, 2, 3]
    assert row.ends == [6, 6, 4, 4, 6, 6]
    assert row.paths == {0: [0, 1, 2], 2: [0, 1, 2, 3], 1: [0, 1, 4, 5]}


@given(SEQUENCES, st.integers(1, 40))
def test_a_token_sees_its_own_prefix_and_nothing_else(sequences, budget):
    rows = rows_of(pieces_of(sequences), budget=budget)
    assert sorted(number for row in rows for number in row.paths) == list(range(len(sequences)))
    for row in rows:
        for number, path in row.paths.items():
            assert [row.ids[node] for node in path] == sequences[number]
            for place, node in enumerate(path):
                assert [j for j in range(len(row.ids)) if j <= node < row.ends[j]] == path[: place + 1]
                assert row.positions[node] == place


@given(SEQUENCES, st.integers(1, 40))
def test_rows_keep_to_the_budget(sequences, budget):
    rows = rows_of(pieces_of(sequences), budget=budget)
    assert all(len(row.ids) <= max(budget, 2 * max(map(len, sequences))) for row in rows)


@given(SEQUENCES)
def test_in_one_row_every_prefix_stands_once(sequences):
    rows = rows_of(pieces_of(sequences), budget=10_000)
    prefixes = {tuple(ids[:length]) for ids in sequences for length in range(1, len(ids) + 1)}
    assert len(prefixes) == nodes(pieces_of(sequences))
    assert len(rows) > 1 or len(rows[0].ids) == len(prefixes)
    # What shares nothing may have a row of its own; what is computed, padding included, is no more than in one row.
    assert len(rows) * max(len(row.ids) for row in rows) <= 1.1 * len(prefixes) + 1


def test_dialogues_of_unlike_length_are_put_together_so_that_little_is_padding():
    """Lengths of four real question sets of ten candidates: no order of them cut in three is as good as two pairs."""
    sizes = (211, 585, 305, 527)
    sequences = [[size, *range(1000, 988 + size), reply] for size in sizes for reply in range(11)]
    rows = rows_of(pieces_of(sequences), budget=512)
    assert sorted(len(row.ids) for row in rows) == [211 + 585, 305 + 527]


def test_rows_are_cut_between_dialogues_rather_than_within_one():
    """Six dialogues of 20 tokens and four replies each: a row takes whole ones."""
    sequences = [[d, *range(10, 29), reply] for d in range(6) for reply in range(4)]
    rows = rows_of(pieces_of(sequences), budget=60)
    assert sum(len(row.ids) for row in rows) == nodes(pieces_of(sequences))
    assert {len(row.ids) % 24 for row in rows} == {0}


def test_no_sequence_no_row():
    assert rows_of([], budget=10) == []
    assert nodes([]) == 0
    assert prefix([1, 2], [1, 2, 3]) == 2
