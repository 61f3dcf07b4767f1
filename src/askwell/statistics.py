"""How sure a figure is: means, ratios and whatever takes weights, with 95 % intervals by a bootstrap over clusters.

Turns of one dialogue are not independent, so whole clusters (dialogues, posts, people) are drawn with replacement and
the ratio of sums is taken anew for each draw. A value of None is unscored: counted, and left out of the mean. No I/O.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

INDICES_AT_ONCE = 1 << 21
ROUNDING = 1e-12
"""What vary less than this, relative to the largest where that is more than 1, do not vary."""


class Estimate(NamedTuple):
    """A figure and its 95 % percentile interval. None where nothing is scored; one cluster has no interval."""

    value: float | None
    low: float | None
    high: float | None
    scored: int
    unscored: int


def mean_interval(
    values: Sequence[float | None], clusters: Sequence[str], *, draws: int = 2000, seed: int = 0
) -> Estimate:
    """The mean of the scored `values`; `clusters` names the cluster of each."""
    numerators = [0.0 if value is None else float(value) for value in values]
    denominators = [0.0 if value is None else 1.0 for value in values]
    estimate = ratio_interval(numerators, denominators, clusters, draws=draws, seed=seed)
    scored = int(sum(denominators))
    return estimate._replace(scored=scored, unscored=len(values) - scored)


def ratio_interval(
    numerators: Sequence[float],
    denominators: Sequence[float],
    clusters: Sequence[str],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> Estimate:
    """sum(numerators) / sum(denominators), e.g. micro F1 from 2 TP and 2 TP + FP + FN of each item.

    An item whose denominator is 0 has no say in the ratio; it is counted as unscored. Order does not matter.
    """
    if not len(numerators) == len(denominators) == len(clusters):
        raise ValueError(f"{len(numerators)} numerators, {len(denominators)} denominators, {len(clusters)} clusters")
    weights = np.asarray(denominators, dtype=np.float64)
    scored = int(np.count_nonzero(weights))
    unscored = len(denominators) - scored
    if not scored:
        return Estimate(None, None, None, 0, unscored)
    names, place = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    above, below = np.zeros(len(names)), np.zeros(len(names))
    np.add.at(above, place, np.asarray(numerators, dtype=np.float64))
    np.add.at(below, place, weights)
    value = float(above.sum() / below.sum())
    if np.count_nonzero(below) < 2:
        return Estimate(value, None, None, scored, unscored)
    low, high = np.quantile(resampled(above, below, draws=draws, seed=seed), (0.025, 0.975))
    return Estimate(value, float(low), float(high), scored, unscored)


def resampled(above: NDArray[np.float64], below: NDArray[np.float64], *, draws: int, seed: int) -> NDArray[np.float64]:
    """The ratio in each of `draws` resamples of the clusters, (draws,) less those that hit no scored cluster."""
    random = np.random.default_rng(seed)
    count = len(above)
    ratios = []
    rows = max(1, INDICES_AT_ONCE // count)
    for start in range(0, draws, rows):
        drawn = random.integers(count, size=(min(rows, draws - start), count))
        sums = below[drawn].sum(axis=1)
        ratios.append(above[drawn].sum(axis=1)[sums > 0] / sums[sums > 0])
    return np.concatenate(ratios)


def weighted_interval(
    figure: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    clusters: Sequence[str],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Any figure of n items that can be taken with weights: `figure` maps weights (B, n) to values (B,), nan where it
    has none. A resample of the clusters is a weight an item: how often its cluster was drawn."""
    count = len(clusters)
    whole = float(figure(np.ones((1, count)))[0]) if count else np.nan
    if np.isnan(whole):
        return Estimate(None, None, None, 0, count)
    names, place = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    if len(names) < 2:
        return Estimate(whole, None, None, count, 0)
    found = [figure(times[:, place]) for times in resamples(len(names), draws=draws, seed=seed, width=count)]
    values = np.concatenate(found)
    low, high = np.quantile(values[~np.isnan(values)], (0.025, 0.975))
    return Estimate(whole, float(low), float(high), count, 0)


def resamples(count: int, *, draws: int, seed: int, width: int = 0) -> Iterator[NDArray[np.float64]]:
    """How often each of `count` clusters was drawn, (B, count), until there are `draws` resamples; `width` is how many
    numbers a resample will be made into, where that is more."""
    random = np.random.default_rng(seed)
    rows = max(1, INDICES_AT_ONCE // max(count, width))
    for start in range(0, draws, rows):
        size = min(rows, draws - start)
        drawn = random.integers(count, size=(size, count))
        places = drawn + np.arange(0, size * count, count)[:, None]
        yield np.bincount(places.ravel(), minlength=size * count).reshape(size, count).astype(np.float64)


def difference_interval(
    first: Sequence[float | None],
    first_clusters: Sequence[str],
    second: Sequence[float | None],
    second_clusters: Sequence[str],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Mean of the scored `first` less that of `second`, paired by cluster: each resample takes the same clusters of
    both, so that what makes a dialogue hard for both does not blur their difference."""
    names, place = np.unique(np.asarray([*first_clusters, *second_clusters], dtype=str), return_inverse=True)
    sides = []
    for values, places in ((first, place[: len(first)]), (second, place[len(first) :])):
        above, below = np.zeros(len(names)), np.zeros(len(names))
        for value, at in zip(values, places, strict=True):
            if value is not None:
                above[at] += value
                below[at] += 1
        sides.append((above, below))
    (a, m), (b, n) = sides
    scored = int(m.sum() + n.sum())
    unscored = len(first) + len(second) - scored
    if not m.sum() or not n.sum():
        return Estimate(None, None, None, scored, unscored)
    value = float(a.sum() / m.sum() - b.sum() / n.sum())
    if len(names) < 2:
        return Estimate(value, None, None, scored, unscored)
    found = []
    for times in resamples(len(names), draws=draws, seed=seed):
        of_first, of_second = times @ m, times @ n
        hit = (of_first > 0) & (of_second > 0)
        found.append((times @ a)[hit] / of_first[hit] - (times @ b)[hit] / of_second[hit])
    low, high = np.quantile(np.concatenate(found), (0.025, 0.975))
    return Estimate(value, float(low), float(high), scored, unscored)


def correlation_interval(
    first: Sequence[float], second: Sequence[float], clusters: Sequence[str], *, draws: int = 2000, seed: int = 0
) -> Estimate:
    """Pearson's correlation of paired values, whatever their units; None where either side does not vary."""
    x, y = standing(first), standing(second)
    names, place = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    sums = np.zeros((len(names), 6))
    np.add.at(sums, place, np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1))
    [value] = correlations(sums.sum(axis=0, keepdims=True))
    if np.isnan(value):
        return Estimate(None, None, None, len(x), 0)
    if len(names) < 2:
        return Estimate(float(value), None, None, len(x), 0)
    random = np.random.default_rng(seed)
    weights = random.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    found = correlations(weights @ sums)
    low, high = np.quantile(found[~np.isnan(found)], (0.025, 0.975))
    return Estimate(float(value), float(low), float(high), len(x), 0)


def standing(values: Sequence[float]) -> NDArray[np.float64]:
    """Values less their mean, over their deviation; all 0 where they differ by no more than rounding does."""
    found = np.asarray(values, dtype=np.float64)
    if not len(found):
        return found
    least = ROUNDING * max(1.0, float(np.abs(found).max()))
    found = found - found.mean()
    deviation = float(found.std())
    return found / deviation if deviation > least else np.zeros_like(found)


def correlations(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson's correlation from rows of (n, x, y, xx, yy, xy) summed; NaN where a side does not vary."""
    n, x, y, xx, yy, xy = sums.T
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = (n * xx - x * x) * (n * yy - y * y)
        return np.where(spread > 1e-12 * n**4, (n * xy - x * y) / np.sqrt(spread), np.nan)
