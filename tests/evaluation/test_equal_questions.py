"""Interviews cut to a mean number of questions: by hand, and that a cut has the mean that was asked for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from askwell.evaluation import equal_questions

SHORT = (0.0, 1.0)  # one question, right after it
LONG = (0.0, 0.0, 1.0, 1.0)  # three questions, right after the second
COURSES = st.lists(st.lists(st.sampled_from((0.0, 1.0)), min_size=1, max_size=6), min_size=1, max_size=8)


def test_cut_by_hand():
    # After one question: means (1 + 1) / 2 = 1. After two, (1 + 2) / 2 = 1.5. So 1.25 is half way between.
    assert equal_questions.cut([SHORT, LONG], 1) == [1.0, 0.0]
    assert equal_questions.cut([SHORT, LONG], 1.5) == [1.0, 1.0]
    assert equal_questions.cut([SHORT, LONG], 1.25) == [1.0, 0.5]
    assert equal_questions.cut([SHORT, LONG], 0) == [0.0, 0.0]


def test_who_stopped_keeps_its_decision_and_nobody_is_made_to_ask_more():
    assert equal_questions.cut([SHORT, LONG], 2.0) == [1.0, 1.0]
    with pytest.raises(ValueError, match=r"2\.1 questions in the mean, and the interviews have 2\.000"):
        equal_questions.cut([SHORT, LONG], 2.1)


def test_what_could_not_be_read_is_unscored_where_the_cut_needs_it():
    assert equal_questions.cut([(None, 1.0, 0.0), LONG], 0.5) == [None, 0.0]
    assert equal_questions.cut([(None, 1.0, 0.0), LONG], 1) == [1.0, 0.0]


def test_a_gain_is_taken_where_the_one_that_asks_less_stands():
    asks_well, asks_badly = [(0.0, 1.0)] * 4, [(0.0, 0.0, 1.0)] * 4
    people = list("abcd")
    questions, found = equal_questions.gain(asks_well, people, asks_badly, people)
    assert (questions, found.value) == (1.0, 1.0)
    assert equal_questions.gain(asks_badly, people, asks_well, people)[1].value == -1.0


@given(COURSES, st.floats(0, 1))
def test_the_cut_has_the_mean_that_was_asked_for(courses, share):
    """A course that counts its own questions is cut at just the mean."""
    questions = share * equal_questions.mean_questions(courses)
    counting = [tuple(map(float, range(len(course)))) for course in courses]
    cut = equal_questions.cut(counting, questions)
    assert sum(cut) / len(cut) == pytest.approx(questions, abs=1e-6)
    assert equal_questions.cut(courses, equal_questions.mean_questions(courses)) == [course[-1] for course in courses]
