"""Bradley-Terry: by hand for two, by brute force for more, and where there is no common scale."""

import math
import random

import numpy as np
import pytest

from askwell.evaluation.strengths import bradley_terry, strengths
from askwell.records import Comparison


def game(id, first, second, score):
    return Comparison(
        reply_set_id=str(id), group=f"post {id // 2}", attribute="overall", first=first, second=second, score=score
    )


def test_two_systems_by_hand():
    """Three wins and a tie of four, and the tie that every two are given: 4 of 5."""
    found = strengths([game(i, "a", "b", score) for i, score in enumerate([1, 1, 1, 0.5])], reference="b")
    assert found["b"].value == 1000 and found["b"].low == 1000
    assert found["a"].value == pytest.approx(1000 + 400 * math.log10(4 / 1), abs=1e-6)
    assert list(found) == ["a", "b"] and found["a"].scored == 4


def test_the_likelihood_is_at_its_maximum():
    draw = np.random.default_rng(0)
    wins = draw.integers(0, 9, size=(1, 4, 4)).astype(float)
    wins[:, range(4), range(4)] = 0
    (theta,) = bradley_terry(wins, prior=0)

    def likelihood(theta):
        return sum(
            wins[0, i, j] * (theta[i] - np.logaddexp(theta[i], theta[j])) for i in range(4) for j in range(4) if i != j
        )

    best = likelihood(theta)
    assert all(likelihood(theta + 1e-3 * sign * np.eye(4)[i]) < best for i in range(4) for sign in (1, -1))


def test_strengths_are_recovered_and_know_how_sure_they_are():
    draw, true = random.Random(0), {"a": 0, "b": 100, "c": 250}
    rows = [
        game(i, x, y, float(draw.random() < 1 / (1 + 10 ** ((true[y] - true[x]) / 400))))
        for i in range(1500)
        for x, y in (("a", "b"), ("a", "c"), ("b", "c"))
    ]
    found = strengths(rows, reference="a", draws=200)
    assert list(found) == ["c", "b", "a"]
    for name, points in true.items():
        assert found[name].low <= 1000 + points <= found[name].high
    draw.shuffle(rows)
    assert strengths(rows, reference="a", draws=200) == found


def test_a_circle_is_a_draw_and_who_wins_all_stays_finite():
    circle = [game(i, *pair, 1.0) for i, pair in enumerate([("a", "b"), ("b", "c"), ("c", "a")])]
    assert {round(estimate.value, 6) for estimate in strengths(circle).values()} == {1000}
    sweep = strengths([game(i, "a", "b", 1.0) for i in range(10)], reference="b")
    assert sweep["a"].value == pytest.approx(1000 + 400 * math.log10(10.5 / 0.5))


def test_who_never_met_has_no_common_scale():
    found = strengths([game(0, "a", "b", 1.0), game(2, "c", "d", 1.0)], reference="a")
    assert found["a"].value == 1000 and found["c"].value is found["d"].value is None
    assert strengths([game(0, "a", "b", None)])["a"].value is None


def test_one_post_says_nothing_of_others_so_there_is_no_interval():
    found = strengths([game(0, "a", "b", 1.0), game(1, "a", "b", 0.0)])
    assert {(estimate.value, estimate.low, estimate.high) for estimate in found.values()} == {(1000, None, None)}
