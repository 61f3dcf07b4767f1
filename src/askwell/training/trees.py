"""Question trees: many token sequences as packed rows in which every shared prefix stands once. No torch.

The turns of a dialogue, the rollouts of a group and the candidates of a question all continue the same context, and
the standard trainers copy it for every one of them. Here sequences are merged into a trie and laid out depth first:

* token i may attend to token j iff j <= i < end[j], where end[j] closes j's subtree;
* a token's position is its depth.

Log-probabilities are taken at the scored tokens alone, each at the node before it (`training.scoring`). It is the same
mathematics as padded sequences, in fewer tokens: equal losses and gradients, up to the order of summation.

Targets are not shared: a token that two sequences score counts twice, and a response that is also a later turn's
context keeps its loss in both roles.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple


class Piece(NamedTuple):
    """A sequence: its token ids, and the places (1 or more) of those whose log-probability is wanted."""

    ids: Sequence[int]
    scored: Sequence[int]


class Row(NamedTuple):
    """Sequences merged: ids, positions and ends have one entry a node, `paths` one a sequence (its nodes in order)."""

    ids: list[int]
    positions: list[int]
    ends: list[int]
    paths: dict[int, list[int]]


def rows_of(pieces: Sequence[Piece], *, budget: int) -> list[Row]:
    """Sequences merged into rows of at most `budget` nodes, or of twice the longest sequence, so that it can share.

    Neighbours in lexicographic order share the longest prefixes, so rows are stretches of that order. They are about
    equally long, for they are padded to the longest, and are cut where little is shared: what a cut divides is
    computed once on each side.
    """
    order, shared = sort(pieces)
    sizes = [len(pieces[number].ids) for number in order]
    budget = max(budget, 2 * max(sizes, default=0))
    return [
        grow({number: pieces[number].ids for number in order[first:last]}, shared[first:last])
        for first, last in stretches(sizes, shared, budget=budget)
    ]


def nodes(pieces: Sequence[Piece]) -> int:
    """Tokens of these sequences where every shared prefix stands once."""
    return sum(len(piece.ids) for piece in pieces) - sum(sort(pieces)[1])


def sort(pieces: Sequence[Piece]) -> tuple[list[int], list[int]]:
    """Their lexicographic order, and of each sequence in it how many tokens it shares with the one before."""
    order = sorted(range(len(pieces)), key=lambda number: list(pieces[number].ids))
    return order, [0, *(prefix(pieces[a].ids, pieces[b].ids) for a, b in itertools.pairwise(order))]


def stretches(sizes: Sequence[int], shared: Sequence[int], *, budget: int) -> list[tuple[int, int]]:
    """Where to cut sequences of these sizes, each of which shares so many tokens with the one before it."""
    nodes = sum(sizes) - sum(shared)
    target = min(budget, -(-nodes // -(-nodes // budget)) * 9 // 8) if nodes else budget
    found: list[tuple[int, int]] = []
    first = load = 0
    loads: list[int] = []
    place = 0
    while place < len(sizes):
        more = sizes[place] - (shared[place] if place > first else 0)
        if place > first and load + more > target:
            late = [at for at in range(first + 1, place + 1) if loads[at - first - 1] * 4 >= target * 3] or [place]
            last = min(late, key=lambda at: (shared[at], -at))
            found.append((first, last))
            first, load, loads, place = last, 0, [], last
            continue
        load += more
        loads.append(load)
        place += 1
    return [*found, (first, len(sizes))] if sizes else []


def grow(sequences: dict[int, Sequence[int]], shared: Sequence[int]) -> Row:
    """Merge sequences in lexicographic order: each shares with the one before exactly what the trie already holds."""
    ids: list[int] = []
    positions: list[int] = []
    ends: list[int] = []
    paths: dict[int, list[int]] = {}
    path: list[int] = []
    for (number, sequence), common in zip(sequences.items(), shared, strict=True):
        kept = common if path else 0
        for node in path[kept:]:
            ends[node] = len(ids)
        path = path[:kept] + list(range(len(ids), len(ids) + len(sequence) - kept))
        positions += range(kept, len(sequence))
        ids += sequence[kept:]
        ends += [0] * (len(sequence) - kept)
        paths[number] = path
    for node in path:
        ends[node] = len(ids)
    return Row(ids, positions, ends, paths)


def prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many leading tokens two sequences share."""
    return next((place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
