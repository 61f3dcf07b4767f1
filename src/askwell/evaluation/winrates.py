"""Comparisons to figures: win-rates, what stands behind them, and what the published code made of them. Pure, no I/O.

The win-rate of a system is the mean of its scores: a tie is half a win, a loss is a loss, and what is unscored is left
out and counted. Intervals are 95 %, by bootstrap over groups (posts): the questions below one post are not independent.

Length-controlled: what would the win-rate be, were both questions equally long? As in length-controlled AlpacaEval
(Dubois et al., 2024, section 3) a logistic regression explains the scores, here of one pair of systems at a time:

    P(first is better) = sigmoid(theta + phi tanh(d / s)),    win rate at equal length = sigmoid(theta)

with d the difference in words and s its root mean square. Their term for how hard an instruction is needs many systems'
results and is left out. A slight pull of theta and phi towards 0 keeps both finite where one side always wins. Where
one side is nearly always longer (`longer` near 0 or 1), no pair of equal length was seen and the figure extrapolates.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from askwell.evaluation.raters import cohen_interval
from askwell.records import Comparison, Winner
from askwell.statistics import Estimate, mean_interval, weighted_interval

Floats = NDArray[np.float64]
PULL = 0.01
"""Weight of (theta^2 + phi^2) / 2 in the regression: that of a normal prior with a deviation of 10."""
STEPS = 25
"""Newton steps at most; about six are needed."""
MEANING = {
    "win_rate": "share of comparisons that the first wins, a tie counting half",
    "length_controlled": "the same at equal length, by regression",
    "consistency": "share of judged pairs with the same verdict in both orders",
    "shown_first": "share of verdicts for the question shown first, a tie counting half; 0.5 where order has no effect",
    "ties": "share of scored comparisons without a winner",
    "longer": "share of scored comparisons in which the question of the first has more words",
    "losses_dropped": "mean score where comparisons lost in both orders are left out, as in ALFA's published code",
}


class Figures(NamedTuple):
    """What MEANING says, of one pair of systems in one attribute; `losses_dropped` only on request."""

    win_rate: Estimate
    length_controlled: Estimate
    consistency: Estimate
    shown_first: Estimate
    ties: Estimate
    longer: Estimate
    losses_dropped: Estimate | None


def figures(comparisons: Sequence[Comparison], *, dropped: bool = False, draws: int = 2000, seed: int = 0) -> Figures:
    """Figures of the comparisons of one pair of systems in one attribute, in any order."""
    rows = sorted(comparisons, key=lambda row: row.reply_set_id)
    groups = [row.group for row in rows]
    scored = [row for row in rows if row.score is not None]

    def mean(values: Sequence[float | None], clusters: Sequence[str]) -> Estimate:
        return mean_interval(values, clusters, draws=draws, seed=seed)

    judged = [row for row in rows if len(row.verdicts) == 2]
    first = [share for row in judged for share in (worth(row.verdicts[0]), 1 - worth(row.verdicts[1]))]
    of_scored = [row.group for row in scored]
    return Figures(
        win_rate=mean([row.score for row in rows], groups),
        length_controlled=length_controlled(scored, draws=draws, seed=seed)._replace(unscored=len(rows) - len(scored)),
        consistency=mean([float(row.verdicts[0] == row.verdicts[1]) for row in judged], [row.group for row in judged]),
        shown_first=mean(first, [row.group for row in judged for _ in range(2)]),
        ties=mean([float(row.score == 0.5) for row in scored], of_scored),
        longer=mean([float(row.words[0] > row.words[1]) for row in scored], of_scored),
        losses_dropped=mean([row.score or None for row in rows], groups) if dropped else None,
    )


def worth(verdict: Winner) -> float:
    """What a verdict is worth to `first`."""
    return {"first": 1.0, "second": 0.0, "tie": 0.5}[verdict]


def category(score: float) -> Winner:
    """Who a score is for."""
    return "tie" if score == 0.5 else "first" if score > 0.5 else "second"


def swapped(row: Comparison) -> Comparison:
    """The same comparison from the other side."""
    other: dict[Winner, Winner] = {"first": "second", "second": "first", "tie": "tie"}
    return row.model_copy(
        update={
            "first": row.second,
            "second": row.first,
            "words": row.words[::-1],
            "verdicts": tuple(other[verdict] for verdict in row.verdicts[::-1]),
            "reasons": row.reasons[::-1],
            "score": None if row.score is None else 1 - row.score,
        }
    )


def length_controlled(scored: Sequence[Comparison], *, draws: int, seed: int) -> Estimate:
    """The win-rate at equal length, of scored comparisons."""
    scores = np.array([row.score for row in scored], dtype=np.float64)
    lengths = np.array([row.words[0] - row.words[1] for row in scored], dtype=np.float64)

    def figure(weights: Floats) -> Floats:
        return sigmoid(regression(scores, lengths, weights)[:, 0])

    return weighted_interval(figure, [row.group for row in scored], draws=draws, seed=seed)


def regression(scores: Floats, lengths: Floats, weights: Floats) -> Floats:
    """theta and phi, (B, 2), of scores (n,) in [0, 1] and differences in length (n,), for weights (B, n).

    Maximum likelihood by Newton's method, less PULL (theta^2 + phi^2) / 2.
    """
    spread = np.sqrt((lengths**2).mean())
    factors = np.stack([np.ones_like(lengths), np.tanh(lengths / spread) if spread else lengths])  # (2, n)
    found = np.zeros((len(weights), 2))
    squares = (factors[:, None] * factors[None]).reshape(4, -1)
    for _ in range(STEPS):
        expected = sigmoid(found @ factors)
        slope = (weights * (scores - expected)) @ factors.T - PULL * found
        bend = ((weights * expected * (1 - expected)) @ squares.T).reshape(-1, 2, 2) + PULL * np.eye(2)
        move = np.linalg.solve(bend, slope[..., None])[..., 0].clip(-2, 2)
        found = found + move
        if np.abs(move).max() < 1e-9:
            break
    return found


def sigmoid(values: Floats) -> Floats:
    """1 / (1 + exp(-x)), without overflow."""
    return 0.5 * (1 + np.tanh(values / 2))


def unscored(comparisons: Sequence[Comparison]) -> dict[str, int]:
    """How many have no score, by reason, the most frequent first."""
    return dict(Counter(row.unscored or "" for row in comparisons if row.score is None).most_common())


class Judges(NamedTuple):
    """How far two judges agree on the comparisons that both score: who wins, or a tie."""

    equal: Estimate
    kappa: Estimate


def judges(first: Sequence[Comparison], second: Sequence[Comparison], *, seed: int = 0) -> Judges:
    """The agreement of two judges of the same comparisons, in any order: the share of equal outcomes, Cohen's kappa."""
    others = {key(row): row.score for row in second}
    rows = sorted((row for row in first if row.score is not None and others.get(key(row)) is not None), key=key)
    one = [category(row.score) for row in rows if row.score is not None]
    other = [category(score) for row in rows if (score := others[key(row)]) is not None]
    groups = [row.group for row in rows]
    missing = len(first) - len(rows)
    return Judges(
        equal=mean_interval([float(a == b) for a, b in zip(one, other, strict=True)], groups, seed=seed)._replace(
            unscored=missing
        ),
        kappa=cohen_interval(one, other, groups, seed=seed)._replace(unscored=missing),
    )


def key(row: Comparison) -> tuple[str, str, str, str]:
    """What a comparison is about."""
    return row.reply_set_id, row.attribute, row.first, row.second
