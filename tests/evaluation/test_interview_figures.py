"""Figures of interviews, goal J6: zeros, ties, what is missing and the order of the file, against brute force."""

from fractions import Fraction
from itertools import pairwise, permutations
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from askwell.evaluation.calibration import risk_coverage, worth
from askwell.evaluation.interview_figures import blind, distribution, figures, late, sweep, trust
from askwell.records import Case, Episode, Exchange

MOST = 4
OPTIONS = ("A", "B", "C")
CHOICE = st.none() | st.sampled_from(OPTIONS)
SURE = st.none() | st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
EXCHANGE = st.builds(
    Exchange,
    question=st.sampled_from(["Fever?", "fever", "Pain?"]),
    answer=st.just("Well."),
    revealed=st.lists(st.sampled_from("xyz"), max_size=2, unique=True).map(tuple),
    choice=CHOICE,
    confidence=SURE,
    sure=SURE,
)


def case_of(number, *, answer="A", group=None):
    return Case(
        id=str(number),
        group=group or str(number),
        split="test",
        initial_information="It hurts.",
        facts=("x", "y", "z"),
        inquiry="What is it?",
        options={"A": "a", "B": "longer", "C": "longest"},
        answer=answer,
    )


def episode_of(number, exchanges, first, first_sure, end):
    decision = exchanges[-1].choice if exchanges else first
    return Episode(
        case_id=str(number),
        exchanges=tuple(exchanges),
        first_choice=first,
        first_confidence=first_sure,
        decision=decision,
        end=end,
    )


@st.composite
def runs(draw):
    """Cases in a few groups, with an episode each or none."""
    cases, episodes = [], []
    for number in range(draw(st.integers(1, 6))):
        group = draw(st.sampled_from("pqr"))
        cases.append(case_of(number, answer=draw(st.sampled_from(OPTIONS)), group=group))
        made = episode_of(
            number,
            draw(st.lists(EXCHANGE, max_size=MOST)),
            draw(CHOICE),
            draw(SURE),
            draw(st.sampled_from(["stopped", "most questions", "no question"])),
        )
        episodes.append(draw(st.sampled_from([made, made, made, None])))
    return cases, episodes


def mean(values):
    known = [value for value in values if value is not None]
    return None if not known else float(sum(map(Fraction, known)) / len(known))


def close(estimate, values):
    """Whether an estimate is the mean of the values that there are, and counts the others."""
    expected = mean(values)
    same = estimate.value is None if expected is None else estimate.value == pytest.approx(expected)
    return same and estimate.unscored == sum(value is None for value in values)


@settings(max_examples=60, deadline=None)
@given(runs())
def test_j6_figures_are_those_of_a_brute_force_reading(run):
    cases, episodes = run
    full = [None if number % 3 == 0 else number % 2 == 0 for number in range(len(cases))]
    found = figures(episodes, cases, most=MOST, full=full)
    pairs = list(zip(episodes, cases, strict=True))

    def right(choice, case):
        return None if choice is None else int(choice == case.answer)

    assert close(found.accuracy, [None if e is None else right(e.decision, c) for e, c in pairs])
    assert close(found.questions, [None if e is None else len(e.exchanges) for e in episodes])
    assert close(found.timeouts, [None if e is None else int(e.end == "most questions") for e in episodes])
    for count in range(MOST + 1):
        said = [[e.first_choice, *(x.choice for x in e.exchanges)][: count + 1][-1] if e else None for e in episodes]
        assert close(found.curve[count], [right(choice, c) for choice, c in zip(said, cases, strict=True)])
    repeated, reworded, unanswered, facts = [], [], [], []
    for e in filter(None, episodes):
        for place, x in enumerate(e.exchanges):
            before = e.exchanges[:place]
            known = {fact for other in before for fact in other.revealed}
            repeated.append(int(bool(x.revealed) and all(fact in known for fact in x.revealed)))
            plain = [other.question.lower().rstrip("?") for other in before]
            reworded.append(int(x.question.lower().rstrip("?") in plain))
            unanswered.append(int(not x.revealed))
            facts.append(len(x.revealed))
    assert close(found.repeated, repeated) and close(found.reworded, reworded)
    assert close(found.unanswered, unanswered) and close(found.facts, facts)
    told = [None if e is None else len({f for x in e.exchanges for f in x.revealed}) for e in episodes]
    assert close(found.collected, [None if count is None else Fraction(count, 3) for count in told])
    assert close(
        found.premature,
        [
            None
            if e is None or e.decision is None or known is None or e.end != "stopped"
            else int(e.decision != c.answer and known)
            for (e, c), known in zip(pairs, full, strict=True)
        ],
    )
    assert sum(distribution(episodes).values()) == sum(e is not None for e in episodes)


@settings(max_examples=30, deadline=None)
@given(runs(), st.integers(0, 9))
def test_j6_the_order_of_the_file_changes_no_figure(run, seed):
    cases, episodes = run
    order = Random(seed).sample(range(len(cases)), len(cases))
    other = figures([episodes[i] for i in order], [cases[i] for i in order], most=MOST)
    plain = figures(episodes, cases, most=MOST)
    for one, two in zip([*plain[:-1], *plain.curve], [*other[:-1], *other.curve], strict=True):
        assert one == pytest.approx(two, nan_ok=True) or (one.value is None and two.value is None)


def test_a_wrong_decision_counts_and_a_missing_one_does_not():
    """The published ranking drops every comparison that was lost; here 0 is a score and None is none."""
    cases = [case_of(number) for number in range(5)]
    ends = ["A", "A", "B", "B", None]
    episodes = [episode_of(i, [], choice, 0.5, "stopped") for i, choice in enumerate(ends)]
    found = figures(episodes, cases, most=1).accuracy
    assert (found.value, found.scored, found.unscored) == (0.5, 4, 1)


def test_groups_that_hold_many_cases_widen_the_interval():
    alone = [case_of(number) for number in range(60)]
    together = [case.model_copy(update={"group": str(int(case.id) // 10)}) for case in alone]
    episodes = [episode_of(i, [], "A" if i < 30 else "B", 0.5, "stopped") for i in range(60)]
    narrow, wide = (figures(episodes, cases, most=0).accuracy for cases in (alone, together))
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


@pytest.mark.parametrize(
    ("choices", "questions"),
    [("A", 0), ("BA", 0), ("AA", 1), ("AAA", 2), ("BAA", 1), ("ABA", 0), ("AB", None), ("B", None)],
)
def test_late_counts_the_questions_after_the_choice_was_settled(choices, questions):
    exchanges = [Exchange(question="?", answer="!", choice=choice) for choice in choices[1:]]
    assert late(episode_of(0, exchanges, choices[0], None, "stopped"), case_of(0)) == questions


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.1, 0.5, 0.9]), st.booleans()), min_size=1, max_size=6))
def test_j6_risk_and_coverage_are_the_mean_over_every_order_of_ties(rated):
    """Against all permutations that put the surer first."""
    sure, hit = np.array([s for s, _ in rated]), np.array([float(h) for _, h in rated])
    points, area = risk_coverage(sure, hit)
    orders = [p for p in permutations(range(len(rated))) if all(sure[a] >= sure[b] for a, b in pairwise(p))]
    by_place = np.mean([np.cumsum(hit[list(p)]) / np.arange(1, len(p) + 1) for p in orders], axis=0)
    assert area == pytest.approx(float(np.mean(1 - by_place)))
    for point in points:
        assert point.accuracy == pytest.approx(by_place[round(point.coverage * len(rated)) - 1])


def test_calibration_by_hand():
    """Two bins: ten decisions at 0.95 of which eight are right, ten at 0.55 of which five are."""
    sure = [0.95] * 10 + [0.55] * 10
    hit = [True] * 8 + [False] * 2 + [True] * 5 + [False] * 5
    found = worth(sure, hit, list(map(str, range(20))))
    assert found.error.value == pytest.approx(0.5 * 0.15 + 0.5 * 0.05)
    brier = (8 * 0.05**2 + 2 * 0.95**2 + 5 * 0.45**2 + 5 * 0.55**2) / 20
    assert found.brier.value == pytest.approx(brier)
    assert [(bin.decisions, bin.accuracy) for bin in found.bins if bin.decisions] == [(10, 0.5), (10, 0.8)]
    assert found.curve[4].accuracy == pytest.approx(0.8) and found.curve[-1].accuracy == pytest.approx(0.65)
    assert worth([], [], []).error.value is None and worth([], [], []).area is None
    one = worth([0.5, 1.0], [True, True], ["post", "post"]).error
    assert (one.value, one.low, one.high) == (0.25, None, None)


def test_a_small_sample_does_not_make_a_good_confidence_look_bad():
    """Perfect confidences err by chance alone; the interval must not claim an error that is not there too often."""
    draw, claimed = np.random.default_rng(0), 0
    for seed in range(40):
        sure = draw.uniform(0.2, 1, 200)
        hit = (draw.random(200) < sure - 0.05).tolist()
        error = worth(sure.tolist(), hit, list(map(str, range(200))), draws=200, seed=seed).error
        claimed += not error.low <= 0.05 <= error.high
    assert claimed <= 8  # of 40; with plain percentiles 30


def test_confidence_that_nobody_gave_is_in_no_calibration():
    cases = [case_of(number) for number in range(3)]
    episodes = [episode_of(0, [], "A", 0.9, "stopped"), episode_of(1, [], "A", None, "stopped"), None]
    assert sum(bin.decisions for bin in trust(episodes, cases).bins) == 1


def test_a_sweep_ends_each_interview_at_the_first_point_that_is_sure_enough():
    def point(choice, sure):
        return Exchange(question="?", answer="!", choice=choice, confidence=sure)

    episodes = [
        episode_of(0, [point("B", 0.6), point("A", 0.9)], "C", 0.3, "most questions"),
        episode_of(1, [point("A", 0.5)], "A", 0.6, "stopped"),
    ]
    cuts = {cut.threshold: cut[1:] for cut in sweep(episodes, [case_of(0), case_of(1)], by="confidence", highest=None)}
    assert cuts == {
        0.3: (0.5, 0.0, 2),
        0.5: (0.5, 0.5, 2),
        0.6: (0.5, 0.5, 2),
        0.9: (1.0, 1.5, 2),
    }


def test_what_is_right_without_reading():
    cases = [case_of(0, answer="C"), case_of(1, answer="C"), case_of(2, answer="A")]
    found = blind(cases)
    assert found["always C, the commonest answer"].value == pytest.approx(2 / 3)
    assert found["the longest option"].value == pytest.approx(2 / 3)
    alike = [case.model_copy(update={"options": {"A": "aa", "B": "b", "C": "cc"}}) for case in cases]
    assert blind(alike)["the longest option"].value == 0.5
