"""Exact scores of questions, worked out by hand where that can be done."""

import pytest
from clinic_examples import world_of

from askwell.clinic import language
from askwell.clinic.knowledge import Person
from askwell.clinic.language import oracle_of
from askwell.clinic.quality import ATTRIBUTES, SPOILT, Quality, messages_in
from askwell.clinic.reasoning import Belief, information_gain
from askwell.records import Message


@pytest.fixture(scope="module")
def quality(oracle):
    return Quality(oracle)


def asked(world, finding, level, at=0):
    return getattr(world.findings[world.place[finding]].questions, level)[at]


CONTEXT = (Message(role="user", content="I am a 40-year-old woman. I have been coughing for days."),)


@pytest.mark.parametrize(("attribute", "level"), SPOILT.items())
def test_a_fault_of_the_wording_costs_its_attribute_and_no_other(world, quality, attribute, level):
    good, bad = (quality.scores(CONTEXT, asked(world, "fever", it)) for it in ("good", level))
    assert (good[attribute], bad[attribute]) == (1.0, 0.0)
    assert {name for name in ATTRIBUTES if good[name] != bad[name]} == {attribute}
    assert bad["overall"] == pytest.approx(good["overall"] - 1 / 6)


@pytest.mark.parametrize("attribute", SPOILT)
def test_a_remark_beside_a_question_costs_its_attribute_and_no_other(world, quality, attribute):
    question = asked(world, "fever", "jargon" if attribute != "answerability" else "leading")
    before = quality.scores(CONTEXT, question)
    for remark in language.talk()[f"spoils_{attribute}"]:
        after = quality.scores(CONTEXT, f"{question} {remark}")
        assert {name for name in ATTRIBUTES if before[name] != after[name]} == {attribute} and after[attribute] == 0.0


def test_two_questions_halve_focus_and_a_faulty_half_costs_half(world, quality):
    both = f"{asked(world, 'fever', 'good')} And {language.lowered(asked(world, 'nausea', 'jargon'))}"
    scores = quality.scores(CONTEXT, both)
    assert (scores["focus"], scores["answerability"], scores["clarity"]) == (0.5, 0.5, 1.0)


def test_relevance_is_the_share_of_the_best_questions_gain(world, quality):
    belief = Belief.of(world, Person(40, "female"), {"cough": True})
    gains = information_gain(belief)
    for place in (int(gains.argmax()), 3, 30):
        question = asked(world, world.finding_ids[place], "good")
        assert quality.scores(CONTEXT, question)["relevance"] == pytest.approx(gains[place] / gains.max())
    assert quality.scores(CONTEXT, asked(world, "cough", "good"))["relevance"] == 0.0  # said already
    assert quality.scores(CONTEXT, language.talk()["irrelevant"][0])["relevance"] == 0.0


def test_a_question_in_a_world_of_two_conditions():
    # P(one | condition) is 0.9 and 0.1, two tells nothing: its gain is 0, that of both together that of one.
    world = world_of({"a": {"one": 0.9, "two": 0.5}, "b": {"one": 0.1, "two": 0.5}})
    quality = Quality(oracle_of(world))
    context = (Message(role="user", content="I'm 40, female."),)
    one, two = (asked(world, name, "good") for name in ("one", "two"))
    scores = [quality.scores(context, text)["relevance"] for text in (one, two, f"{two} And {language.lowered(one)}")]
    assert scores == pytest.approx([1.0, 0.0, 1.0])
    answered = (*context, Message(role="assistant", content=one), Message(role="user", content="Yes, I have one."))
    assert quality.scores(answered, two)["relevance"] is None  # nothing is left to find out


def test_what_cannot_be_read_has_no_score(quality, world):
    for text in (
        "What did Hegel mean by that?",
        "",
        "Thank you.",
        f"{asked(world, 'fever', 'good')} Quid novi ex Africa?",
    ):
        assert set(quality.scores(CONTEXT, text).values()) == {None}
    nobody = quality.scores((Message(role="user", content="I cough."),), asked(world, "fever", "good"))
    assert nobody["relevance"] is nobody["overall"] is None and nobody["focus"] == 1.0


def test_messages_in_a_prompt():
    lines = '{"speaker": "person", "says": "Hello"}\n{"speaker": "helper", "says": "Since when?"}'
    assert [message.role for message in messages_in(lines)] == ["user", "assistant"]
