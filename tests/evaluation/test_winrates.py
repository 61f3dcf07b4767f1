"""Win-rates by hand, by brute force (goal J6) and from the other side."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from askwell import attributes
from askwell.evaluation import comparing
from askwell.evaluation.comparing import Pair
from askwell.evaluation.winrates import figures, judges, regression, swapped, unscored
from askwell.records import Comparison, ReplySet

OVERALL = attributes.load("overall")

WORTH = {"first": Fraction(1), "tie": Fraction(1, 2), "second": Fraction(0)}


def compared(id, *verdicts, words=(5, 5), group=None):
    """A comparison by its verdicts; without any, unscored."""
    score = float(sum(WORTH[verdict] for verdict in verdicts) / 2) if verdicts else None
    return Comparison(
        reply_set_id=str(id),
        group=group or str(id),
        attribute="overall",
        first="a",
        second="b",
        words=words,
        verdicts=verdicts,
        reasons=("",) * len(verdicts),
        score=score,
        unscored=None if verdicts else "the judge: throttled",
    )


ROWS = [
    compared(0, "first", "first"),
    compared(1, "second", "second"),
    compared(2, "second", "second"),
    compared(3, "first", "second"),  # the one shown first, both times
    compared(4, "tie", "first"),
    compared(5, "tie", "tie"),
    compared(6),
]


def test_figures_by_hand():
    found = figures(ROWS, dropped=True)
    assert found.win_rate.value == pytest.approx((1 + 0 + 0 + 0.5 + 0.75 + 0.5) / 6)
    assert (found.win_rate.scored, found.win_rate.unscored) == (6, 1)
    assert found.consistency.value == pytest.approx(4 / 6)
    # Shown first, the questions of `a` get 1 0 0 1 .5 .5 and those of `b` 0 1 1 1 0 .5: both orders of six pairs.
    assert found.shown_first.value == pytest.approx((3 + 3.5) / 12)
    assert found.ties.value == pytest.approx(2 / 6)
    assert found.losses_dropped.value == pytest.approx(2.75 / 4)
    assert unscored(ROWS) == {"the judge: throttled": 1}
    assert figures(ROWS).losses_dropped is None


def test_dropped_losses_make_forty_per_cent_a_hundred():
    rows = [compared(i, *(("first",) * 2 if i < 4 else ("second",) * 2)) for i in range(10)]
    found = figures(rows, dropped=True)
    assert (found.win_rate.value, found.losses_dropped.value) == (pytest.approx(0.4), 1.0)


def test_questions_below_one_post_are_not_independent():
    verdicts = ["first" if i % 2 else "second" for i in range(40)]
    alone = figures([compared(i, v, v) for i, v in enumerate(verdicts)]).win_rate
    # Below a post all have the same outcome: ten posts know as much as ten questions, not forty.
    posts = figures([compared(i, v, v, group=f"{v}{i // 8}") for i, v in enumerate(verdicts)]).win_rate
    assert posts.high - posts.low > 1.6 * (alone.high - alone.low)


VERDICTS = st.lists(
    st.one_of(st.just(()), st.tuples(*[st.sampled_from(["first", "second", "tie"])] * 2)),
    min_size=1,
    max_size=12,
)
LENGTHS = st.tuples(st.integers(1, 30), st.integers(1, 30))


@given(VERDICTS, st.data())
def test_j6_by_brute_force_and_from_the_other_side(verdicts, data):
    rows = [compared(i, *v, words=data.draw(LENGTHS)) for i, v in enumerate(verdicts)]
    found, other = (figures(side, dropped=True, draws=20) for side in (rows, [swapped(row) for row in reversed(rows)]))
    scores = [sum(WORTH[v] for v in pair) / 2 for pair in verdicts if pair]
    assert found.win_rate.unscored == other.win_rate.unscored == len(rows) - len(scores)
    if not scores:
        assert found.win_rate.value is found.length_controlled.value is None
        return
    assert found.win_rate.value == pytest.approx(float(sum(scores) / len(scores)))
    assert other.win_rate.value == pytest.approx(1 - found.win_rate.value)
    assert other.length_controlled.value == pytest.approx(1 - found.length_controlled.value, abs=1e-6)
    assert other.shown_first.value == pytest.approx(found.shown_first.value)
    assert other.consistency.value == found.consistency.value
    kept = [score for score in scores if score]
    assert found.losses_dropped.value == (pytest.approx(float(sum(kept) / len(kept))) if kept else None)


TEXTS = ("Since when?", "Since  when? ", "How bad is it?", "...", "Enough.\n<stop />", None)
WORDS = st.sampled_from(["first", "second", "tie"])
ENTRY = st.tuples(st.sampled_from(TEXTS), st.sampled_from(TEXTS), WORDS, WORDS, st.sampled_from(["ok", "ok", "length"]))


@given(st.lists(ENTRY, min_size=1, max_size=10))
def test_j6_from_what_systems_and_judge_say_to_the_win_rate(entries):
    """Zeros, ties, what is missing, and both orders: against a reading of the rules that shares no code with it.

    A verdict names a place: in the second order the second system stands first.
    """

    def rows(turned):
        found = []
        for number, (one, other, forth, back, state) in enumerate(entries):
            said = {name: text for name, text in (("a", one), ("b", other)) if text is not None}
            replies = ReplySet(id=str(number), group=str(number), context=(), replies=said)
            pair = Pair(replies, OVERALL, *("ba" if turned else "ab"))
            words = (back, forth) if turned else (forth, back)
            verdicts = [comparing.winner(word, turned=place == 1) for place, word in enumerate(words)]
            value = {"verdicts": verdicts, "reasons": ["", ""]} if state == "ok" else {}
            found.append(comparing.settled(pair, "<stop />") or comparing.judged(pair, state, value))
        return found

    expected, kept, same = [], [], []
    for one, other, forth, back, state in entries:
        if not {one, other} <= set(TEXTS[:3]):  # the others say nothing, stop or are missing
            continue
        if one.split() == other.split():
            expected.append(Fraction(1, 2))
            continue
        if state != "ok":
            continue
        points = {"first": 2, "tie": 1, "second": 0}[forth] + {"first": 0, "tie": 1, "second": 2}[back]
        expected.append(Fraction(points, 4))
        same.append({"first": "second", "second": "first", "tie": "tie"}[back] == forth)
    kept = [share for share in expected if share > 0]
    found, other = (figures(rows(turned), dropped=True, draws=10) for turned in (False, True))
    assert (found.win_rate.scored, found.win_rate.unscored) == (len(expected), len(entries) - len(expected))
    for estimate, values in ((found.win_rate, expected), (found.losses_dropped, kept), (found.consistency, same)):
        assert estimate.value == (pytest.approx(float(sum(map(Fraction, values)) / len(values))) if values else None)
    assert found.ties.value == (pytest.approx(expected.count(Fraction(1, 2)) / len(expected)) if expected else None)
    if expected:
        assert other.win_rate.value == pytest.approx(1 - found.win_rate.value)


def test_swapping_twice_is_the_same_comparison():
    row = compared(0, "tie", "first", words=(3, 9))
    assert swapped(swapped(row)) == row and swapped(row).score == 0.25 and swapped(row).words == (9, 3)


def test_length_control_takes_out_what_length_alone_decides():
    """`a` is as good as `b` and longer two times in three; the judge goes by length alone, but for a mistake in ten."""
    draw = np.random.default_rng(0)
    rows = []
    for i in range(900):
        words = (12, 8) if i % 3 else (8, 12)
        right = words[0] > words[1] if draw.random() > 0.1 else draw.random() < 0.5
        rows.append(compared(i, *["first" if right else "second"] * 2, words=words))
    found = figures(rows, draws=200)
    assert found.win_rate.low > 0.6
    assert found.length_controlled.low < 0.5 < found.length_controlled.high
    assert found.longer.value == pytest.approx(2 / 3)


def test_the_regression_is_at_its_maximum():
    draw = np.random.default_rng(1)
    lengths, scores = draw.normal(size=50) * 5, draw.choice([0, 0.25, 0.5, 0.75, 1], size=50)
    weights = draw.integers(0, 3, size=50).astype(float)
    ((theta, phi),) = regression(scores, lengths, weights[None])
    factor = np.tanh(lengths / math.sqrt((lengths**2).mean()))

    def loss(theta, phi):
        odds = theta + phi * factor
        fit = weights * (scores * np.log1p(np.exp(-odds)) + (1 - scores) * np.log1p(np.exp(odds)))
        return fit.sum() + 0.005 * (theta**2 + phi**2)

    best = loss(theta, phi)
    for step in ((1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3)):
        assert loss(theta + step[0], phi + step[1]) > best


def test_two_judges_agree_on_who_wins_beyond_chance():
    first = [compared(i, *["first" if i % 2 else "second"] * 2) for i in range(40)]
    same = [
        row if i % 10 else swapped(row).model_copy(update={"first": "a", "second": "b"}) for i, row in enumerate(first)
    ]
    same[1] = compared(1)  # the second judge had nothing to say here
    found = judges(first, list(reversed(same)))
    assert found.equal.value == pytest.approx(35 / 39) and found.equal.unscored == 1
    assert found.kappa.value == pytest.approx(1 - (4 / 39) / (1 - (19 * 23 + 20 * 16) / 39**2))
