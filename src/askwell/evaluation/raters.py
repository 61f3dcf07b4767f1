"""How far raters agree beyond chance: Fleiss' kappa, Gwet's AC1, Krippendorff's alpha, Cohen's kappa. Pure, no I/O.

All are (p_a - p_e) / (1 - p_e), with p_a the share of equal pairs of ratings and p_e what chance would make of it; they
differ in p_e, and in what they do with items that few have rated (Gwet, Handbook of Inter-Rater Reliability, 4th
edition, 2014, chapters 2 and 5). Ratings are categories without an order; any may be missing.

Every coefficient is taken with a weight an item. The derivative by the weights gives its standard error (the
infinitesimal jackknife, which is what Gwet's formulas for the variance over items come to), and drawn weights give an
interval by bootstrap over groups. Own code, as no kept library has all of this: `krippendorff` has alpha alone and no
standard error; `statsmodels` lacks AC1 and alpha and wants equally many ratings of every item; `irrCAC` has had no
release since 2024 and holds scipy at 1.12. Tested against all three and against published examples. ALFA's table 8
(Fleiss 0.59, AC1 0.66) has no published ratings behind it and cannot be made again; see docs/LOG.md.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from askwell.statistics import Estimate, weighted_interval

Floats = NDArray[np.float64]
STEP = 1e-5
"""By how much a weight is moved to take a derivative."""
ROWS = 1 << 22
"""Weights held at once."""
Figure = Callable[[Floats], Floats]
"""Weights (B, n) to values (B,); nan where a coefficient is not defined (nothing to compare, or one category alone)."""


class Coefficient(NamedTuple):
    """A coefficient of agreement over `items` with two ratings at least; None where it is not defined."""

    value: float | None
    standard_error: float | None
    items: int


def table(items: Sequence[Sequence[str]], categories: Sequence[str] | None = None) -> Floats:
    """How many raters put each item into each category, (n, q), from the ratings of each item.

    `categories` is the whole menu, where some of it may never have been chosen: AC1 depends on how long it is.
    """
    menu = sorted({rating for ratings in items for rating in ratings}) if categories is None else list(categories)
    counts = np.zeros((len(items), max(len(menu), 1)))
    for row, ratings in zip(counts, items, strict=True):
        for rating in ratings:
            row[menu.index(rating)] += 1
    return counts


def fleiss(counts: Floats) -> Figure:
    """Fleiss' kappa for counts (n, q): chance draws both ratings from the shares of the categories."""
    return _by_shares(counts, lambda shares: (shares**2).sum(axis=1))


def ac1(counts: Floats) -> Figure:
    """Gwet's AC1: chance agrees only on what is hard to rate, so that a rare category does not press it down."""
    menu = max(counts.shape[1], 2)
    return _by_shares(counts, lambda shares: (shares * (1 - shares)).sum(axis=1) / (menu - 1))


def _by_shares(counts: Floats, chance: Figure) -> Figure:
    raters = counts.sum(axis=1)
    rated, paired = (raters >= 1).astype(float), (raters >= 2).astype(float)
    shares = counts / np.maximum(raters, 1)[:, None]
    equal = (counts * (counts - 1)).sum(axis=1) / np.maximum(raters * (raters - 1), 1)

    def figure(weights: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            expected = chance(weights @ shares / (weights @ rated)[:, None])
            # The share of items with a pair of ratings is taken as given, as in Gwet's variance: all weights 1, this
            # is p_a - p_e.
            above = (weights @ equal - expected * (weights @ paired)) / (weights.sum(axis=1) * paired.mean())
        return above / room(expected)

    return figure


def krippendorff(counts: Floats) -> Figure:
    """Krippendorff's alpha for categories, (n, q) of items with two ratings at least; corrected for small samples."""
    raters = counts.sum(axis=1)
    equal = (counts * (counts - 1)).sum(axis=1) / (raters - 1)

    def figure(weights: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            total = weights @ raters
            expected = ((weights @ counts / total[:, None]) ** 2).sum(axis=1)
            observed = (1 - 1 / total) * (weights @ equal) / total + 1 / total
        return (observed - expected) / room(expected)

    return figure


def cohen(first: Sequence[str], second: Sequence[str]) -> Figure:
    """Cohen's kappa of two raters of the same items: chance draws from each one's own shares."""
    menu = sorted({*first, *second})
    one, other = (np.array([[float(rating == entry) for entry in menu] for rating in side]) for side in (first, second))
    equal = np.array([float(a == b) for a, b in zip(first, second, strict=True)])

    def figure(weights: Floats) -> Floats:
        total = weights.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            expected = ((weights @ one) * (weights @ other)).sum(axis=1) / total**2
            return (weights @ equal / total - expected) / room(expected)

    return figure


def room(expected: Floats) -> Floats:
    """1 - p_e, what there is to reach beyond chance; nan where chance alone always agrees."""
    return np.where(1 - expected > 1e-12, 1 - expected, np.nan)


def coefficient(figure: Figure, items: int, clusters: Sequence[str] | None = None) -> Coefficient:
    """A coefficient of `items` items and its standard error over them, or over the clusters that they belong to."""
    value = float(figure(np.ones((1, items)))[0]) if items else np.nan
    if np.isnan(value):
        return Coefficient(None, None, items)
    names, place = np.unique(np.asarray(range(items) if clusters is None else clusters), return_inverse=True)
    if len(names) < 2:
        return Coefficient(value, None, items)
    slopes = []
    rows = max(1, ROWS // items)
    for start in range(0, items, rows):
        moved = np.eye(items)[start : start + rows] * STEP
        slopes.append((figure(1 + moved) - figure(1 - moved)) / (2 * STEP))
    influence = np.bincount(place, weights=np.concatenate(slopes))
    return Coefficient(value, float(np.sqrt((influence**2).sum() * len(names) / (len(names) - 1))), items)


def agreement_of(
    items: Sequence[Sequence[str]], categories: Sequence[str] | None = None, clusters: Sequence[str] | None = None
) -> dict[str, Coefficient]:
    """The three coefficients that any number of raters an item may have; standard errors over `clusters` of items that
    are not independent, if given."""
    counts = table(items, categories)
    several = counts.sum(axis=1) >= 2
    of_paired = None if clusters is None else [name for name, two in zip(clusters, several, strict=True) if two]
    paired = counts[several]
    found = {
        "Fleiss' kappa": coefficient(fleiss(counts), len(counts), clusters),
        "Gwet's AC1": coefficient(ac1(counts), len(counts), clusters),
        "Krippendorff's alpha": coefficient(krippendorff(paired), len(paired), of_paired),
    }
    return {name: value._replace(items=len(paired)) for name, value in found.items()}


def cohen_interval(first: Sequence[str], second: Sequence[str], clusters: Sequence[str], *, seed: int = 0) -> Estimate:
    """Cohen's kappa with an interval by bootstrap over clusters."""
    return weighted_interval(cohen(first, second), clusters, seed=seed)


def majority(ratings: Sequence[str]) -> str | None:
    """What more raters say than anything else; None where nobody rated or the first place is shared."""
    (first, times), *rest = Counter(ratings).most_common() or [("", 0)]
    return None if not times or (rest and rest[0][1] == times) else first
