"""Second opinions: two graders on the same replies, a reader's perplexity."""

import math

import pytest
from evaluation_examples import REPLIES, STOP, TURNS, Chatter, WordGrader, turn

from askwell.evaluation.agreement import Opinion, agreement, perplexities
from askwell.evaluation.metrics import expert_replies, figures
from askwell.grading.grades import graded
from askwell.records import Reply


class HalfDeaf(WordGrader):
    """Does not hear of times; abstains on cuisines."""

    def __init__(self):
        super().__init__(deaf_to="cuisine")

    def read(self, text):
        found = super().read(text)
        return found and found - {"time"}


def opinion(grader):
    return Opinion(*(graded(TURNS, part, grader, stop_marker=STOP) for part in (REPLIES, expert_replies(TURNS))))


def compare(other):
    return agreement(TURNS, opinion(WordGrader()).policy, opinion(other), stop_marker=STOP)


def test_a_grader_agrees_with_itself():
    found = compare(WordGrader())
    # Six questions, one of them mumbled; two of five have a content score where the expert asks too.
    assert (found.equal_sets.value, found.equal_sets.scored, found.equal_sets.unscored) == (1, 5, 1)
    assert found.abstains.value == pytest.approx(1 / 6)
    assert (found.equal_content.value, *found.equal_content[3:]) == (1, 2, 3)
    assert (found.difference.value, *found.difference[3:]) == (0, 2, 3)


def test_grades_are_matched_by_turn_and_sample_not_by_place():
    second = opinion(HalfDeaf())
    turned = second._replace(policy=second.policy[::-1], expert=second.expert[::-1])
    assert agreement(TURNS, opinion(WordGrader()).policy, turned, stop_marker=STOP) == compare(HalfDeaf())


def test_two_graders_by_hand():
    found = compare(HalfDeaf())
    # Both read "Which city?", "which  CITY?" and "Hello." alike, "What time? Which city?" unlike; the first abstains
    # on mumbling, the second on cuisines.
    assert (found.equal_sets.value, *found.equal_sets[3:]) == (pytest.approx(3 / 4), 4, 2)
    assert found.abstains.value == pytest.approx(2 / 6)
    assert (found.equal_content.value, *found.equal_content[3:]) == (1, 1, 4)
    assert found.second["WA"][3:] == (2, 3)
    # The expert's "What time, and which city?" is a hit under both.
    assert found.second_expert["WA"].value == 1


def test_a_policy_that_pleases_one_grader_alone_is_seen():
    turns = [turn(f"{name}#0", "continue", ("city",)) for name in "abcdef"]
    replies = [Reply(turn_id=t.id, sample=0, text="city city?") for t in turns]

    class Literal(WordGrader):
        def read(self, text):
            return frozenset()

    first = graded(turns, replies, WordGrader(), stop_marker=STOP)
    found = agreement(turns, first, Opinion(graded(turns, replies, Literal(), stop_marker=STOP), []), stop_marker=STOP)
    assert (figures(turns, first)["TR"].value, found.second["TR"].value) == (4, 2)
    assert found.difference[:3] == (2, 2, 2)


def test_grades_of_other_replies_are_refused():
    first, second = opinion(WordGrader()), opinion(HalfDeaf())
    with pytest.raises(ValueError):
        agreement(TURNS, first.policy[1:], second, stop_marker=STOP)
    with pytest.raises(ValueError, match="did not grade the same replies"):
        agreement(TURNS, first.policy[1:], second._replace(policy=second.policy[:-1]), stop_marker=STOP)


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_perplexity_by_hand(batch):
    found = perplexities(TURNS, opinion(WordGrader()).policy, Chatter(), batch=batch, stop_marker=STOP)
    # "Which city?" 10 letters and marks, 2 words; "Which cuisine? What time?" 22, 4; "Mumble?" 7, 1;
    # "which  CITY?" 10, 2; "Hello." 6, 1. At the turns where the policy asks, a#0, b#0 and b#1, the experts say
    # "Which city?" twice and "What time, and which city?" 22, 5.
    assert found["policy"].value == pytest.approx(math.exp(55 / 10))
    assert (found["policy"].scored, found["policy"].unscored) == (5, 0)
    assert found["expert"].value == pytest.approx(math.exp(42 / 9))
    assert found["expert"].scored == 3
    # Conversation a alone, 32 nats over 6 words, or b alone, 23 over 4.
    assert found["policy"][1:3] == pytest.approx((math.exp(32 / 6), math.exp(23 / 4)))


def test_empty_reply_has_no_perplexity():
    turns = [turn("a#0", "continue", ("city",)), turn("b#0", "continue", ("city",))]
    replies = [Reply(turn_id="a#0", sample=0, text=""), Reply(turn_id="b#0", sample=0, text="Where to?")]
    grades = graded(turns, replies, WordGrader(), stop_marker=STOP)
    found = perplexities(turns, grades, Chatter(), batch=8, stop_marker=STOP)
    assert (found["policy"].scored, found["policy"].unscored) == (1, 1)
    assert found["policy"].value == pytest.approx(math.exp(4))


def test_policy_that_never_asks_has_no_perplexity():
    replies = [Reply(turn_id=t.id, sample=0, text=STOP) for t in TURNS]
    grades = graded(TURNS, replies, WordGrader(), stop_marker=STOP)
    found = perplexities(TURNS, grades, Chatter(), batch=8, stop_marker=STOP)
    assert found["policy"] == found["expert"] == (None, None, None, 0, 0)
