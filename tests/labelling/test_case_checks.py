"""What words alone show of facts and options."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from askwell.labelling.case_checks import alike, fact_fault, judged_faults, names, verbatim, wording_faults
from askwell.labelling.case_sources import opening_of
from askwell.labelling.case_tasks import Draft, Fact, Judged, Judgement
from askwell.records import Conversation, Message

SAID = (
    Message(role="assistant", content="Does it itch?"),
    Message(role="user", content="No, it doesn't itch. I don't think I have a rash; my arm burns, though."),
)


@pytest.mark.parametrize(
    ("text", "answer", "found"),
    [
        ("Could it be gout?", "Gout", True),
        ("I ate a lot of meat.", "gout", False),
        ("I have the flu.", "influenza (the flu)", True),
        ("I have INFLUENZA!", "influenza (the flu)", True),
        ("My back strains. The muscle is fine.", "muscle strain", False),
        ("The muscle is strained, a muscle strain.", "a strain of the muscle", True),
        ("Should I see a doctor?", "Yes, see a doctor now", False),
        ("anything", "?", False),
        ("", "gout", False),
        ("医生，我是不是得了痛风？", "痛风", True),
        ("我的脚趾很痛。", "痛风", False),
    ],
)
def test_a_text_gives_an_answer_away_that_one_of_its_sentences_names(text, answer, found):
    assert names(text, answer) is found


@pytest.mark.parametrize(
    ("fact", "whole"),
    [
        ("It doesn't itch.", True),
        ("no it doesn't itch", True),
        ("My arm burns, though.", True),
        ("I have a rash.", False),
        ("I don't think I have a rash", True),
        ("My arm burns", False),
    ],
)
def test_verbatim_is_a_whole_sentence_a_yes_or_no_before_it_aside(fact, whole):
    assert verbatim(Fact(message=2, quote="x", fact=fact), SAID) is whole


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({}, None),
        ({"quote": "it DOESN'T  itch"}, None),
        ({"message": 1}, "not in a message of the person"),
        ({"message": 0}, "not in a message of the person"),
        ({"message": 3}, "not in a message of the person"),
        ({"quote": "my leg burns"}, "quote is not in the message"),
        ({"quote": "?!"}, "quote is not in the message"),
        ({"fact": "No."}, "says nothing by itself"),
        ({"fact": "Yes, I do have it"}, "says nothing by itself"),
        ({"fact": "Itchy"}, None),
    ],
)
def test_a_fact_stands_where_it_is_said_to_stand(fields, fault):
    fact = Fact.model_validate({"message": 2, "quote": "my arm burns", "fact": "My arm burns."} | fields)
    assert fact_fault(fact, SAID) == fault


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Gout", "gout.", True),
        ("A bladder infection", "the bladder infections", True),
        ("hypothyroidism", "hyperthyroidism", False),
        ("the left knee", "the right knee", False),
        ("Take ibuprofen for three days", "Take ibuprofen for three days.", True),
        ("Rest", "Rest and ibuprofen", False),
        ("?", "!", True),
        ("a", "the", False),
    ],
)
def test_options_are_alike_by_the_words_that_they_share(one, other, same):
    assert alike(one, other) is alike(other, one) is same


@given(st.lists(st.text(max_size=12), min_size=4, max_size=4))
def test_whatever_options_hold_a_fault_is_one_of_theirs_and_equal_ones_are_one(options):
    faults = wording_faults(Draft(inquiry="What is it?", options=tuple(options)))
    assert all(0 <= fault.option < 4 and fault.kind and fault.words for fault in faults)
    if len({text.casefold() for text in options}) < 4:
        assert faults


def judged(verdicts, plausible="ABCD"):
    """A judgement: for each letter r, w or u."""
    words = {"r": "right", "w": "wrong", "u": "unclear"}
    rows = [
        Judged(option=letter, reason=f"on {letter}", verdict=words[verdict], plausible=letter in plausible)
        for letter, verdict in zip("ABCD", verdicts, strict=True)
    ]
    return Judgement(verdicts=rows)


def test_verdicts_by_letter_are_faults_by_place():
    order = (2, 0, 3, 1)  # under B stands the one that is meant to be right
    assert judged_faults(judged("wrww"), order) == []
    found = judged_faults(judged("ruwu", plausible="ABD"), order)
    assert [(fault.option, fault.kind, fault.words) for fault in found] == [
        (0, "answer not supported", "on B"),
        (1, "may be right as well", "on D"),
        (2, "a second right answer", "on A"),
        (3, "implausible", "on C"),
    ]
    # A swap of the order flips the verdict.
    assert [fault.option for fault in judged_faults(judged("wrww"), (0, 2, 3, 1))] == [0, 2]


def test_an_opening_is_what_is_said_before_anybody_asks():
    def of(*said, how="turn"):
        messages = tuple(Message(role={"u": "user", "a": "assistant"}[who], content=text) for who, text in said)
        return opening_of(Conversation(id="c", group="c", split="test", source="chat", messages=messages), how)

    talk = [("a", "Hi."), ("u", "Hello, doctor."), ("u", "My ear hurts a lot. It itches."), ("a", "Why?"), ("u", "No.")]
    assert of(*talk) == "Hello, doctor.\nMy ear hurts a lot. It itches."
    assert of(*talk, how="sentence") == "Hello, doctor.\nMy ear hurts a lot."
    assert of(("u", "Sore foot for a week\n\nIt is red."), ("a", "?"), how="sentence") == "Sore foot for a week"
    assert of(("u", "Help"), ("a", "?"), how="sentence") == "Help"
    # A greeting alone tells nothing: the next turn belongs to it.
    greeting = [("u", "Hi, doctor!"), ("a", "How are you?"), ("u", "Fine, thanks."), ("a", "What is it?")]
    assert of(*greeting, ("u", "My foot."), ("a", "Why?"), ("u", "It burns.")) == "Hi, doctor!\nFine, thanks.\nMy foot."
    assert of(("u", "我的脚趾很痛。昨天开始的。"), ("a", "红吗？"), how="sentence") == "我的脚趾很痛。"
    assert of(*greeting) == "Hi, doctor!\nFine, thanks."
