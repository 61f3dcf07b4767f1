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

PARTING = (0.125, 0.5)
"""Neighbours that share less than this part of the shorter one may go to different rows."""
WIDTHS = 12
"""Widths of rows that are tried."""
ATTENTION = 4096
"""Nodes of a row in which attention costs about as much as all else."""


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

    Neighbours in lexicographic order share the longest prefixes, so parts are stretches of that order, cut where little
    is shared: what a cut divides is computed once on each side. Rows hold one part or several, and are padded to the
    longest. Of several ways to cut and to fill, the one that computes least is taken.
    """
    order, shared = sort(pieces)
    sizes = [len(pieces[number].ids) for number in order]
    budget = max(budget, 2 * max(sizes, default=0))
    ways = [stretches(sizes, shared, budget=budget)]
    ways += [parted(sizes, shared, budget=budget, least=least) for least in PARTING]
    rows = min((filled(parts, sizes, shared, budget=budget) for parts in ways), key=cost)
    return [
        grow(
            {number: pieces[number].ids for first, last, _ in row for number in order[first:last]},
            [0 if place == first else shared[place] for first, last, _ in row for place in range(first, last)],
        )
        for row in rows
    ]


Part = tuple[int, int, int]
"""First and last place (exclusive) of a stretch of sequences, and its nodes."""


def parted(sizes: Sequence[int], shared: Sequence[int], *, budget: int, least: float) -> list[tuple[int, int]]:
    """Stretches cut wherever neighbours share less than this part of the shorter, and where they outgrow the budget."""
    cuts = [at for at in range(1, len(sizes)) if shared[at] < least * min(sizes[at - 1], sizes[at])]
    bounds = [0, *cuts, len(sizes)] if sizes else [0]
    found = []
    for first, last in itertools.pairwise(bounds):
        inner = stretches(sizes[first:last], [0, *shared[first + 1 : last]], budget=budget)
        found += [(first + one, first + other) for one, other in inner]
    return found


def filled(
    parts: Sequence[tuple[int, int]], sizes: Sequence[int], shared: Sequence[int], *, budget: int
) -> list[list[Part]]:
    """Parts in rows, largest first, each in the first row with room; of several widths of rows the one that costs
    least."""
    counted = [(first, last, sum(sizes[first:last]) - sum(shared[first + 1 : last])) for first, last in parts]
    counted.sort(key=lambda part: (-part[2], part[0]))
    widest = counted[0][2] if counted else 0
    total = sum(part[2] for part in counted)
    fewest = max(1, total // budget)
    counts = range(fewest, min(len(counted), fewest + WIDTHS) + 1)
    widths = {widest, *(-(-total // count) * 33 // 32 for count in counts)}
    ways = []
    for width in sorted(width for width in widths if widest <= width <= max(widest, budget)):
        rows: list[list[Part]] = []
        room: list[int] = []
        for part in counted:
            place = next((place for place, left in enumerate(room) if left >= part[2]), None)
            if place is None:
                rows.append([])
                room.append(width)
                place = -1
            rows[place].append(part)
            room[place] -= part[2]
        ways.append(rows)
    return min(ways, key=cost, default=[])


def cost(rows: Sequence[Sequence[Part]]) -> float:
    """What rows cost to compute, in tokens: they are padded to the longest, and attention costs more in longer ones."""
    width = max((sum(part[2] for part in row) for row in rows), default=0)
    return len(rows) * width * (1 + width / ATTENTION)


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
