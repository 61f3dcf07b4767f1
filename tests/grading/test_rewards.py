"""R = R_s (1 + 2 R_a) + Omega against numbers computed by hand, and bounds that hold of any reply."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from askwell.grading.rewards import content, grade, reward, reward_of
from askwell.recipes import Reward
from askwell.records import Message, Target, Turn

STOP = "<stop />"
SLOTS = frozenset({"city", "cuisine", "time", "seats"})


def turn_of(decision="continue", facts: tuple[str, ...] | None = ("city", "time"), known=("cuisine",), service="R_1"):
    return Turn(
        id="a#0",
        conversation_id="a",
        group="a",
        split="test",
        index=0,
        context=(Message(role="user", content="I am hungry."),),
        expert_reply="Which city?",
        future=(),
        target=Target(decision=decision, facts=facts),
        service=service,
        known=known,
    )


AT_CONTINUE, AT_STOP, NO_FACTS = turn_of(), turn_of("stop", ()), turn_of(facts=None)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ((1, 1, 1), 4),
        ((1, 1, 0.5), 3.5),
        ((1, 0.5, 1), 3),
        ((1, 0.5, 0), 2),
        ((1, 0, 1), 2),
        ((1, 0, 0), 1),
        ((0, 0, 0), 0),
    ],
)
def test_reward_by_hand(scores, expected):
    assert reward(*scores) == expected


def test_beta_weighs_content():
    assert reward(1, 1, 1, beta=0) == 2
    assert reward(1, 0.5, 1, beta=4) == 4


@pytest.mark.parametrize(
    ("asked", "score"),
    [
        ({"city"}, 1),
        ({"city", "time"}, 1),
        ({"city", "seats"}, 0.5),
        ({"city", "cuisine"}, 0.5),
        ({"seats"}, 0.5),
        ({"seats", "cuisine"}, 0.5),
        ({"cuisine"}, 0),
        ({"of another service"}, 0),
        (set(), 0),
    ],
)
def test_content_by_hand(asked, score):
    assert content(asked, facts={"city", "time"}, known={"cuisine"}, slots=SLOTS) == score


def test_a_known_slot_beside_one_still_to_find_out_is_half_a_hit_even_if_both_were_told_before():
    assert content({"city", "cuisine"}, facts={"city"}, known={"city", "cuisine"}, slots=SLOTS) == 0.5


def test_asking_again_what_the_expert_asks_again_is_a_hit():
    assert content({"city"}, facts={"city"}, known={"city"}, slots=SLOTS) == 1
    again = grade(turn_of(known=("city",)), "Which city?", 0, asked=frozenset({"city"}), slots=SLOTS)
    assert (again.content_score, again.repeats) == (1, False)


sets = st.sets(st.sampled_from(["a", "b", "c", "d"]))


@given(sets, sets, sets, sets)
def test_content_rises_with_the_facts_and_falls_with_the_known(asked, facts, known, more):
    slots = {"a", "b", "c"}
    score = content(asked, facts=facts, known=known, slots=slots)
    assert score in (0, 0.5, 1)
    assert (score == 1) == (bool(asked) and asked <= facts)
    assert content(asked, facts=facts | more, known=known, slots=slots) >= score
    assert content(asked, facts=facts, known=known | more, slots=slots) <= score


# turn, reply, slots asked; decision, questions, (R_s, R_a, Omega, R), repeats
BY_HAND = {
    "hit": (AT_CONTINUE, "Which city?", {"city"}, "continue", 1, (1, 1, 1, 4), False),
    "two questions": (AT_CONTINUE, "Which city? What time?", {"city", "time"}, "continue", 2, (1, 1, 0.5, 3.5), False),
    "three questions": (AT_CONTINUE, "A? B? C?", {"city"}, "continue", 3, (1, 1, 0, 3), False),
    "relevant": (AT_CONTINUE, "How many?", {"seats"}, "continue", 1, (1, 0.5, 1, 3), False),
    "known": (AT_CONTINUE, "Which cuisine?", {"cuisine"}, "continue", 1, (1, 0, 1, 2), True),
    "half known": (AT_CONTINUE, "Where, what?", {"city", "cuisine"}, "continue", 1, (1, 0.5, 1, 3), True),
    "no mark": (AT_CONTINUE, "Tell me the city.", {"city"}, "continue", 1, (1, 1, 1, 4), False),
    "statement": (AT_CONTINUE, "I see.", set(), "continue", 0, (1, 0, 0, 1), False),
    "idle question": (AT_CONTINUE, "How are you?", set(), "continue", 1, (1, 0, 1, 2), False),
    "abstains": (AT_CONTINUE, "City city?", None, "continue", 1, (1, None, 1, None), None),
    "abstains, no mark": (AT_CONTINUE, "City city", None, "continue", 0, (1, None, None, None), None),
    "empty": (AT_CONTINUE, " ", None, "continue", 0, (1, 0, 0, 1), False),
    "premature": (AT_CONTINUE, STOP, None, "stop", 0, (0, 0, 0, 0), None),
    "bare stop": (AT_STOP, STOP, None, "stop", 0, (1, 1, 1, 4), None),
    "wordy stop": (AT_STOP, f"Shall I? Bye.\n{STOP}", None, "stop", 0, (1, 1, 0, 3), None),
    "late": (AT_STOP, "Which city?", {"city"}, "continue", 1, (0, 0, 0, 0), False),
    "late and known": (AT_STOP, "Which cuisine?", {"cuisine"}, "continue", 1, (0, 0, 0, 0), True),
    "late, abstains": (AT_STOP, "City city?", None, "continue", 1, (0, 0, 0, 0), None),
    "no facts": (NO_FACTS, "Which city?", {"city"}, "continue", 1, (1, None, 1, None), False),
    "no facts, statement": (NO_FACTS, "I see.", set(), "continue", 0, (1, None, 0, None), False),
    "no facts, premature": (NO_FACTS, STOP, None, "stop", 0, (0, 0, 0, 0), None),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_grade_by_hand(case):
    turn, reply, asked, decision, questions, scores, repeats = BY_HAND[case]
    found = grade(turn, reply, 3, asked=None if asked is None else frozenset(asked), slots=SLOTS)
    assert (found.turn_id, found.sample, found.reply) == ("a#0", 3, reply)
    assert (found.decision, found.questions, found.repeats) == (decision, questions, repeats)
    assert (found.decision_score, found.content_score, found.format_score, found.reward) == scores


@pytest.mark.parametrize(
    ("turn", "asked", "reason"),
    [
        (AT_CONTINUE, None, "unscored: the grader abstains"),
        (turn_of(service=None), None, "unscored: the turn has no service"),
        (NO_FACTS, None, "unscored: the truth names no facts"),
        (NO_FACTS, frozenset({"city"}), "unscored: the truth names no facts"),
        (AT_CONTINUE, frozenset({"city"}), "asks for city; still to find out: city, time"),
        (AT_CONTINUE, frozenset(), "asks for nothing; still to find out: city, time"),
        (AT_STOP, None, "asked where the expert stopped"),
    ],
)
def test_reason_says_what_was_missing(turn, asked, reason):
    assert grade(turn, "Which city?", 0, asked=asked, slots=SLOTS).reason == reason


def test_turn_without_target_is_a_bug_in_the_caller():
    bare = AT_CONTINUE.model_copy(update={"target": None})
    with pytest.raises(ValueError, match="a#0 has no target"):
        grade(bare, "Which city?", 0, asked=None, slots=SLOTS)


@given(
    st.sampled_from([AT_CONTINUE, AT_STOP, NO_FACTS]),
    st.text() | st.sampled_from([STOP, f"x\n{STOP}", "a? b? c?"]),
    st.none() | st.frozensets(st.sampled_from(sorted(SLOTS))),
)
def test_any_reply_has_a_grade_within_bounds(turn, reply, asked):
    found = grade(turn, reply, 0, asked=asked, slots=SLOTS)
    right = found.decision == turn.target.decision
    assert found.decision_score == right
    if not right:
        assert (found.content_score, found.format_score, found.reward) == (0, 0, 0)
    assert (found.reward is None) == (found.content_score is None)
    if found.reward is not None:
        assert found.reward == reward(found.decision_score, found.content_score, found.format_score)
        assert 0 <= found.reward <= 4
    assert found.content_score is not None or found.reason.startswith("unscored: ")
    assert found.content_score is not None or (turn.target.facts is None or asked is None)


def rule(**fields):
    return Reward.model_validate(fields)


RIGHT, PARTLY = (
    grade(AT_CONTINUE, "Which city?", 0, asked=frozenset({"city"}), slots=SLOTS),
    grade(AT_CONTINUE, "How many seats?", 0, asked=frozenset({"seats"}), slots=SLOTS),
)
WRONG, STOPPED = grade(AT_CONTINUE, STOP, 0, asked=None, slots=SLOTS), grade(AT_STOP, STOP, 0, asked=None, slots=SLOTS)


@pytest.mark.parametrize(
    ("mode", "right", "partly", "wrong", "stopped"),
    [
        ("both", 4, 3, 0, 4),
        ("without_content", 4, 4, 0, 4),
        ("without_decision", 3, 2, 0, 3),
        ("sum", 3, 2.5, 0, 3),
    ],
)
def test_each_mode_by_hand(mode, right, partly, wrong, stopped):
    found = [
        reward_of(each, turn, rule(mode=mode))
        for each, turn in ((RIGHT, AT_CONTINUE), (PARTLY, AT_CONTINUE), (WRONG, AT_CONTINUE), (STOPPED, AT_STOP))
    ]
    assert found == [right, partly, wrong, stopped]


def test_what_a_mode_does_not_look_at_may_be_unscored():
    unread = grade(AT_CONTINUE, "Which mumble?", 0, asked=None, slots=SLOTS)
    assert reward_of(unread, AT_CONTINUE, rule()) is None
    assert reward_of(unread, AT_CONTINUE, rule(mode="without_decision")) is None
    assert reward_of(unread, AT_CONTINUE, rule(mode="without_content")) == 4


def test_optional_terms_by_hand():
    known = grade(AT_CONTINUE, "What kind of food?", 0, asked=frozenset({"cuisine"}), slots=SLOTS)
    assert (reward_of(known, AT_CONTINUE, rule()), known.repeats) == (2, True)
    assert reward_of(known, AT_CONTINUE, rule(known_penalty=0.5, question_cost=0.1)) == pytest.approx(1.4)
    assert reward_of(STOPPED, AT_STOP, rule(known_penalty=0.5, question_cost=0.1)) == 4
    # A stop while a required fact is still to be found out; what is known already or no fact here costs nothing.
    assert reward_of(WRONG, AT_CONTINUE, rule(required=("city", "cuisine", "date"))) == -1
    assert reward_of(WRONG, AT_CONTINUE, rule(required=("city", "time"), missing_penalty=2)) == -4
