"""The figures against a table graded by hand, and what must hold of any table."""

from itertools import permutations

import pytest
from evaluation_examples import REPLIES, STOP, TURNS, WordGrader, turn
from hypothesis import given
from hypothesis import strategies as st

from askwell.evaluation.metrics import MEANING, expert_replies, figures
from askwell.grading.grades import graded
from askwell.records import Grade, Reply

# (value, scored, unscored), from TURNS and REPLIES with pencil and paper.
BY_HAND = {
    "WA": (0.75, 2, 3),
    "WA-GH": (0.5, 2, 3),
    "WA all": (0.5, 3, 3),
    "WA-GH all": (1 / 3, 3, 3),
    "WC": (5 / 6, 6, 0),
    "WS": (3 / 4, 4, 0),
    "AA": (0.8, 10, 0),
    "FC": (0.55, 10, 0),
    "TR": (2.5, 7, 3),
    "WA at least": (0.3, 5, 0),
    "TR at least": (2.25, 10, 0),
    "premature stops": (1 / 6, 6, 0),
    "late stops": (1 / 4, 4, 0),
    "repeats": (1 / 5, 5, 1),
    "unscored": (3 / 5, 5, 0),
    "distinct": (5 / 6, 6, 0),
    "questions": (7 / 6, 6, 0),
    "words": (14 / 6, 6, 0),
    "marker not bare": (1 / 4, 4, 0),
}


def grades_of(replies: list[Reply]) -> list[Grade]:
    return graded(TURNS, replies, WordGrader(), stop_marker=STOP)


def test_every_figure_has_a_meaning_and_the_value_computed_by_hand():
    found = figures(TURNS, grades_of(REPLIES))
    assert list(found) == list(MEANING) == list(BY_HAND)
    for name, (value, scored, unscored) in BY_HAND.items():
        assert (found[name].value, *found[name][3:]) == (pytest.approx(value), scored, unscored), name


def test_expert_is_the_ceiling_of_its_grader():
    found = figures(TURNS, graded(TURNS, expert_replies(TURNS), WordGrader(), stop_marker=STOP))
    assert (found["WA"].value, found["WC"].value, found["WS"].value) == (1, 1, 1)
    # "What time, and which city?" and twice "Which city?", one of them where the truth names no facts.
    assert found["TR"].value == 4
    assert found["unscored"].value == pytest.approx(1 / 3)
    assert found["distinct"].value == pytest.approx(2 / 3)


def test_interval_is_over_conversations_not_replies():
    turns = [turn(f"{name}#{i}", "stop") for name in "ab" for i in range(50)]
    replies = [Reply(turn_id=t.id, sample=0, text=STOP if t.conversation_id == "a" else "Which city?") for t in turns]
    found = figures(turns, graded(turns, replies, WordGrader(), stop_marker=STOP))
    # Two conversations, one all right and one all wrong: a resample may hold either alone.
    assert found["WS"] == (0.5, 0, 1, 100, 0)


def test_one_conversation_has_values_without_intervals():
    found = figures(TURNS[:2], grades_of(REPLIES[:4]))
    assert found["AA"] == (1, None, None, 4, 0)


def test_nothing_to_average_is_no_value_rather_than_zero():
    found = figures(TURNS[1:2], grades_of(REPLIES[2:3]))
    assert found["WA"] == (None, None, None, 0, 0)
    assert found["distinct"].value is None


def test_more_passes_do_not_make_questions_less_distinct():
    once = figures(TURNS, grades_of([reply for reply in REPLIES if reply.sample == 0]))
    again = [reply.model_copy(update={"sample": sample}) for reply in REPLIES if reply.sample == 0 for sample in (0, 1)]
    assert figures(TURNS, grades_of(again))["distinct"].value == once["distinct"].value == pytest.approx(2 / 3)


def test_target_without_facts_counts_in_decisions_alone():
    found = figures(TURNS[3:4], grades_of(REPLIES[6:7]))
    assert found["WA"][3:] == found["TR"][3:] == (0, 1)
    assert (found["WC"].value, found["AA"].value, found["FC"].value) == (1, 1, 1)


tables = st.lists(
    st.tuples(
        st.sampled_from(TURNS),
        st.sampled_from(["Which city?", "What time? Which city?", "Mumble?", "Well.", "", STOP, f"Bye.\n{STOP}"]),
    ),
    min_size=1,
    max_size=12,
).map(lambda rows: [Reply(turn_id=t.id, sample=i, text=text) for i, (t, text) in enumerate(rows)])


@given(tables, st.randoms(use_true_random=False))
def test_order_of_records_changes_nothing(replies, random):
    turns, shuffled = list(TURNS), grades_of(replies)
    expected = figures(turns, shuffled, draws=50)
    random.shuffle(turns)
    random.shuffle(shuffled)
    assert figures(turns, shuffled, draws=50) == expected


@given(tables, st.integers(1, 5))
def test_unscored_grades_change_no_score_and_are_counted(replies, more):
    mumbled = [Reply(turn_id="b#0", sample=100 + i, text="Mumble") for i in range(more)]
    before, after = (figures(TURNS, grades_of(part), draws=50) for part in (replies, replies + mumbled))
    for name in ("WA", "WA-GH", "WA all", "WA-GH all", "FC", "TR", "repeats"):
        assert after[name].value == before[name].value, name
        assert after[name].unscored == before[name].unscored + more


@given(st.integers(1, 4))
def test_all_correct_is_the_best_there_is(samples):
    turns = [t for t in TURNS if t.target and t.target.facts is not None]
    replies = [reply.model_copy(update={"sample": i}) for reply in expert_replies(turns) for i in range(samples)]
    found = figures(turns, graded(turns, replies, WordGrader(), stop_marker=STOP), draws=50)
    best = {"TR": 4, "premature stops": 0, "late stops": 0, "repeats": 0, "unscored": 0, "marker not bare": 0}
    for name in ("WA", "WA-GH", "WA all", "WA-GH all", "WC", "WS", "AA", "FC"):
        assert found[name][:3] == (1, 1, 1), name
    for name, value in best.items():
        assert found[name].value == value, name


@given(tables)
def test_figures_stand_in_their_relations(replies):
    found = figures(TURNS, grades_of(replies), draws=50)
    for figure in found.values():
        assert figure.value is None or figure.low is None or figure.low <= figure.high
    for right, wrong in (("WC", "premature stops"), ("WS", "late stops")):
        if found[right].value is not None:
            assert found[right].value + found[wrong].value == pytest.approx(1)
    if found["WA"].value is not None:
        assert found["WA-GH"].value <= found["WA"].value
        assert found["WA all"].value <= found["WA"].value
    if found["TR"].value is not None:
        assert 0 <= found["TR"].value <= 4
    if found["WA"].value is not None:
        assert found["WA at least"].value <= found["WA"].value
    decided = [found[name].value * found[name].scored for name in ("WC", "WS") if found[name].value is not None]
    assert found["AA"].value * found["AA"].scored == pytest.approx(sum(decided))


def test_grades_are_in_the_order_of_replies_and_the_grader_sees_questions_alone():
    for order in permutations(range(0, 10, 3)):
        grader = WordGrader()
        chosen = [REPLIES[i] for i in order]
        found = graded(TURNS, chosen, grader, stop_marker=STOP)
        assert [(grade.turn_id, grade.sample) for grade in found] == [(reply.turn_id, reply.sample) for reply in chosen]
        assert [text for _, text in grader.shown] == [grade.reply for grade in found if grade.decision == "continue"]


def test_turn_without_service_is_unscored_and_not_shown_to_the_grader():
    bare, grader = turn("c#0", "continue", ("city",), service=None), WordGrader()
    (grade,) = graded([bare], [Reply(turn_id="c#0", sample=0, text="Which city?")], grader, stop_marker=STOP)
    assert grader.shown == []
    assert (grade.content_score, grade.reward, grade.reason) == (None, None, "unscored: the turn has no service")
    assert (grade.decision_score, grade.format_score) == (1, 1)
