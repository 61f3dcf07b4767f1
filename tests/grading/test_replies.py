"""A reply stops iff its last line is the marker; whatever else it says stays text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from askwell.grading.replies import parse, question_marks

STOP = "<stop />"


@pytest.mark.parametrize(
    ("reply", "decision", "text", "bare"),
    [
        (STOP, "stop", "", True),
        (f"  \n{STOP} \n\n", "stop", "", True),
        (f"Thank you.\n{STOP}", "stop", "Thank you.", False),
        (f"One.\n\nTwo.\r\n  {STOP}", "stop", "One.\n\nTwo.", False),
        (f"{STOP}\n{STOP}", "stop", STOP, False),
        ("Which city?", "continue", "Which city?", False),
        ("  Which city?\n", "continue", "Which city?", False),
        # The published graders end the conversation at each of these.
        (f"Shall I say {STOP} now?", "continue", f"Shall I say {STOP} now?", False),
        (f"{STOP}\nOr which city?", "continue", f"{STOP}\nOr which city?", False),
        (f"Goodbye. {STOP}", "continue", f"Goodbye. {STOP}", False),
        ("<stop/>", "continue", "<stop/>", False),
        ("<STOP />", "continue", "<STOP />", False),
        ("", "continue", "", False),
        (" \n ", "continue", "", False),
    ],
)
def test_reading_of_replies(reply, decision, text, bare):
    assert parse(reply) == (decision, text, bare)


def test_marker_is_the_recipes():
    assert parse("<med_search>", "<med_search>") == ("stop", "", True)
    assert parse(STOP, "<med_search>").decision == "continue"


@given(st.text())
def test_any_text_is_read_and_only_its_last_line_stops_it(text):
    last = ([line for line in text.splitlines() if line.strip()] or [""])[-1]
    assert (parse(text).decision == "stop") == (last.strip() == STOP)
    assert parse(text).bare == (text.strip() == STOP)


@given(st.text())
def test_appending_the_marker_stops_any_reply_and_keeps_its_words(text):
    read = parse(f"{text}\n{STOP}")
    assert read.decision == "stop"
    assert read.bare == (not text.strip())
    assert read.text.split() == text.split()


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("Tell me the city.", 0),
        ("Which city?", 1),
        ("Which city? What time?", 2),
        ("Really??? Which city?", 2),
        ("Really?!? Which city?!", 2),
        ("哪个城市？几点？", 2),
        ("أي مدينة؟", 1),
        ("A? B? C?", 3),
    ],
)
def test_questions_by_their_marks(text, count):
    assert question_marks(text) == count


@given(st.lists(st.sampled_from(["?", "？", "؟", "??", "?!", "?!?!"]), max_size=6))
def test_one_question_for_each_run_of_marks(marks):
    assert question_marks(" ".join(f"why{mark}" for mark in marks)) == len(marks)
