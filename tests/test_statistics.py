"""The bootstrap: equal to a brute-force reference, wider where clusters are correlated, covering as promised."""

import math
import random
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from askwell.statistics import Estimate, correlation_interval, difference_interval, mean_interval, ratio_interval


def brute_force(values, clusters, *, draws, seed):
    """The same draws, with lists and loops: the reference for the vectorised code."""
    members = defaultdict(list)
    for value, cluster in zip(values, clusters, strict=True):
        members[cluster].append(value)
    names = sorted(members)
    picks = np.random.default_rng(seed).integers(len(names), size=(draws, len(names)))
    means = []
    for row in picks:
        drawn = [value for index in row for value in members[names[index]] if value is not None]
        if drawn:
            means.append(sum(drawn) / len(drawn))
    return np.quantile(means, 0.025), np.quantile(means, 0.975)


ITEMS = st.lists(
    st.tuples(st.none() | st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from("abcdef")), min_size=1, max_size=30
)


@settings(max_examples=60)
@given(ITEMS, st.integers(0, 5))
def test_equals_the_brute_force_reference(items, seed):
    values, clusters = [value for value, _ in items], [cluster for _, cluster in items]
    found = mean_interval(values, clusters, draws=50, seed=seed)
    scored = [value for value in values if value is not None]
    assert (found.scored, found.unscored) == (len(scored), len(values) - len(scored))
    if not scored:
        assert found[:3] == (None, None, None)
        return
    assert found.value == pytest.approx(sum(scored) / len(scored))
    if len({cluster for value, cluster in items if value is not None}) == 1:
        assert (found.low, found.high) == (None, None)
    else:
        assert (found.low, found.high) == pytest.approx(brute_force(values, clusters, draws=50, seed=seed))


@settings(max_examples=30)
@given(ITEMS, st.randoms(use_true_random=False))
def test_order_of_the_items_does_not_matter(items, shuffler):
    shuffled = list(items)
    shuffler.shuffle(shuffled)
    first = mean_interval(*zip(*items, strict=True), draws=40)
    again = mean_interval(*zip(*shuffled, strict=True), draws=40)
    assert first == pytest.approx(again)


def test_unscored_is_left_out_and_never_zero():
    found = mean_interval([1.0, None, 1.0, None], ["a", "a", "b", "c"])
    assert found == Estimate(1.0, 1.0, 1.0, scored=2, unscored=2)


def test_copies_of_an_item_in_one_cluster_do_not_narrow_the_interval():
    values = [float(index % 2) for index in range(40)]
    names = [str(index) for index in range(40)]
    once = mean_interval(values, names)
    copied = mean_interval(values * 10, names * 10)
    assert once[:3] == pytest.approx(copied[:3])
    apart = mean_interval(values * 10, [str(index) for index in range(400)])
    assert apart.high - apart.low < 0.5 * (once.high - once.low)


def test_the_interval_covers_the_true_mean_as_often_as_it_says():
    random_source = random.Random(3)
    covered = 0
    for trial in range(200):
        values, clusters = [], []
        for cluster in range(60):
            share = random_source.betavariate(2, 2)
            for _ in range(random_source.randint(1, 6)):
                values.append(float(random_source.random() < share))
                clusters.append(str(cluster))
        found = mean_interval(values, clusters, draws=300, seed=trial)
        covered += found.low <= 0.5 <= found.high
    assert 0.89 <= covered / 200 <= 0.99


def test_blocks_of_draws_cover_all_draws(monkeypatch):
    values, clusters = [0.0, 1.0, 1.0, 0.0, 1.0], list("aabcd")
    whole = mean_interval(values, clusters, draws=101)
    monkeypatch.setattr("askwell.statistics.INDICES_AT_ONCE", 8)
    assert mean_interval(values, clusters, draws=101) == whole


def test_a_ratio_is_of_sums_and_not_a_mean_of_ratios():
    found = ratio_interval([2, 0, 0], [2, 6, 0], ["a", "b", "c"])
    assert found.value == 0.25
    assert (found.scored, found.unscored) == (2, 1)


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="2 numerators, 2 denominators, 1 clusters"):
        mean_interval([1.0, 0.0], ["a"])


def test_a_difference_paired_by_cluster_is_surer_than_two_intervals():
    draw = np.random.default_rng(0)
    hard = draw.normal(0, 1, 200)
    first = [float(value) for value in hard + 0.2 + draw.normal(0, 0.1, 200)]
    second = [float(value) for value in hard]
    names = [f"d{i}" for i in range(200)]
    found = difference_interval(first, names, second, names)
    assert found.value == pytest.approx(0.2, abs=0.03) and 0.15 < found.low < found.high < 0.25
    apart = mean_interval(first, names).low - mean_interval(second, names).high
    assert apart < 0


def test_a_difference_leaves_out_what_is_unscored_and_needs_both_sides():
    found = difference_interval([1.0, None, 3.0], ["a", "a", "b"], [1.0], ["a"])
    assert (found.value, found.scored, found.unscored) == (1.0, 3, 1)
    assert difference_interval([None], ["a"], [1.0], ["a"]).value is None


def test_a_correlation_is_numpys_and_its_interval_covers_the_true_one():
    random = np.random.default_rng(0)
    covered = 0
    for seed in range(40):
        x = random.normal(size=120)
        y = 0.5 * x + math.sqrt(0.75) * random.normal(size=120)
        found = correlation_interval(list(x), list(y), [str(place // 2) for place in range(120)], draws=300, seed=seed)
        assert found.value == pytest.approx(np.corrcoef(x, y)[0, 1])
        covered += found.low <= 0.5 <= found.high
    assert 33 <= covered <= 40
    # Units do not matter: a young reward model's scores differ by thousandths, around any number.
    small = correlation_interval(
        [1e-5 * each for each in x], [7 + 1e-4 * each for each in y], list(map(str, range(120)))
    )
    whole = correlation_interval(list(x), list(y), list(map(str, range(120))))
    assert small == pytest.approx(whole, rel=1e-6)
    assert correlation_interval([1, 1], [0, 1], ["a", "b"]).value is None
    # Means of equal numbers are off by rounding.
    assert correlation_interval([1e-17, 0, -1e-17], [0, 1, 3], ["a", "b", "c"]).value is None
    assert correlation_interval([0.1] * 3, [0, 1, 3], ["a", "b", "c"]).value is None
    assert correlation_interval([], [], []).value is None
