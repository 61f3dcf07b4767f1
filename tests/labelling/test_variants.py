"""What is wrong with a variant, read off its words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from askwell.labelling.variants import alike, fault_of, gives_away, questions_in, tidied

ORIGINAL = "Do you have a cough?"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Have you been coughing?", None),
        ("Here, in the chest, does it hurt?", None),
        ("Sure you have no cough?", None),
        ("Question of the day, do you cough?", None),
        ("  ", "no question"),
        ("?!", "no question"),
        ("Here is the rewritten question: do you cough?", "preamble"),
        ("Here's a clearer version:\nDo you cough?", "preamble"),
        ("Rewritten question: do you cough?", "preamble"),
        ("Sure! Here you go:\nDo you cough?", "preamble"),
        ("Question: do you cough?", "preamble"),
        ("Certainly! Do you cough?", "preamble"),
        ("Corrupted: do you cough?", "preamble"),
        ("Less clear version: do you cough?", "preamble"),
        ("More often at night: do you cough then?", None),
        ("Do you cough?\n\nNote: it no longer says when.", "remark"),
        ("Do you cough? (I removed the time frame.)", "remark"),
        ("Do you cough? If I changed the dose, would that help", None),
        ("I'm sorry, but I can't help with that.", "refusal"),
        ("I cannot rewrite this question so that it is medically wrong.", "refusal"),
        ("As an AI, I must not spread medical mistakes.", "refusal"),
        ("I'm sorry to hear that. Do you cough?", None),
        ("It's not clear to me whether you cough.", None),
        ("Do you cough? Do you sneeze?", "more than one question"),
        ("Do you cough??", None),
        ("Is it bronchitis that makes you cough?", "gives the outcome away"),
        ("Have you had acute Bronchitis before?", "gives the outcome away"),
    ],
)
def test_faults_of_an_enhanced_question(text, fault):
    found = fault_of(text, ORIGINAL, origin="enhanced", attribute="clarity", outcome="bronchitis or a cold, possibly")
    assert found == fault


def test_a_worse_question_may_lead_and_in_focus_ask_for_more():
    both = {"outcome": "bronchitis", "origin": "corrupted"}
    assert fault_of("It's bronchitis, isn't it?", ORIGINAL, attribute="avoid_bias", **both) is None
    assert fault_of("Do you cough? And sneeze?", ORIGINAL, attribute="focus", **both) is None
    assert fault_of("Do you cough? And sneeze?", ORIGINAL, attribute="clarity", **both) == "more than one question"
    assert fault_of("Cough? Cold?", "Cough? And a cold?", attribute="clarity", **both) is None  # as the original does


def test_what_was_said_before_gives_nothing_away():
    assert gives_away("Do you have gallstones?", "Gallstone, suspected", ["My belly hurts."])
    assert not gives_away("Do you have gallstones?", "Gallstone, suspected", ["My mother had gallstones."])
    assert not gives_away("Is there a stone?", "gall bladder stone", [])
    assert not gives_away("What of it?", "of the, or possibly", [])


def test_a_conclusion_is_given_away_by_its_phrases():
    said = "The palliative care team was asked; she has a stone and was told to rest."

    def fault(text, origin="enhanced", known=()):
        return fault_of(text, ORIGINAL, origin=origin, attribute="clarity", conclusion=said, known=known)

    assert fault("Has she seen palliative care?") == "gives the outcome away"
    assert fault("Does she care for rest, and was she told of a stone?") is None  # anyone's words
    assert fault("Has she seen palliative care?", origin="corrupted") is None
    assert fault("Has she seen palliative care?", known=["I work in palliative care."]) is None


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ("do you have a COUGH", True),
        ("Do you have a cough now?", False),
        ("Do you have no cough?", False),
        ("Have you had a cough?", False),
    ],
)
def test_wordings_that_are_the_same(other, same):
    assert alike(ORIGINAL, other, near=0.95) is same is alike(other, ORIGINAL, near=0.95)


def test_nearly_the_same_in_a_long_question():
    text = "Since when have you noticed that the left knee hurts when you go down the stairs in the morning?"
    assert alike(text, text.replace("the stairs", "stairs"), near=0.95)
    assert not alike(text, text.replace("the stairs", "stairs"), near=1)


@pytest.mark.parametrize(
    "changed",
    [
        "Don't you have any pain in the left knee when you have walked for 20 minutes?",
        "Don’t you have any pain in the left knee when you have walked for 20 minutes?",
        "Do you have no pain in the left knee when you have walked for 20 minutes?",
        "Do you have any pain in the left knee when you have walked for 200 minutes?",
    ],
)
def test_a_negation_or_another_number_makes_another_question_however_long_it_is(changed):
    text = "Do you have any pain in the left knee when you have walked for 20 minutes?"
    assert not alike(text, changed, near=0.95) and not alike(changed, text, near=0.95)
    assert alike(changed, changed.replace("the left", "left"), near=0.95)


@given(st.text())
def test_quotation_marks_and_white_space_around_a_question_are_no_part_of_it(text):
    assert tidied(f' "{text}"\n') == tidied(text)
    assert questions_in(tidied(text)) == questions_in(text)
