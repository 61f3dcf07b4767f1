"""What is said in the clinic is read back; what is not the clinic's own is measured."""

import math
import random
from collections import Counter

import pytest

from askwell.clinic import language
from askwell.clinic.knowledge import LEVELS, Person
from askwell.clinic.language import Nearest, Question, introduced, introduction, trigrams


def questions(world):
    """Every question of the clinic with what it means."""
    for finding in world.findings:
        for level in LEVELS:
            for text in getattr(finding.questions, level):
                yield text, Question((finding.id,), None if level == "good" else level)


def statements(world):
    for finding in world.findings:
        for present, texts in ((True, finding.yes), (False, finding.no)):
            for text in texts:
                yield text, {finding.id: present}


def test_every_sentence_of_the_clinic_is_read_back(world, oracle):
    assert [(text, oracle.question(text)) for text, _ in questions(world)] == list(questions(world))
    assert [(text, oracle.statements(text)) for text, _ in statements(world)] == list(statements(world))


def test_every_text_means_one_thing(world):
    said = Counter(language.squeezed(text) for text, _ in (*questions(world), *statements(world)))
    assert [text for text, times in said.items() if times > 1] == []


def test_what_is_said_is_read_back_through_greetings_thanks_and_joints(world, oracle):
    draw = random.Random(0)
    for _ in range(500):
        first, second = draw.sample(world.finding_ids, 2)
        unseen = draw.random() < 0.3
        text = language.ask_both(world, first, second, draw, unseen=unseen)
        thanks, chat = draw.choice(language.talk()["thanks"]), draw.choice(language.talk()["chatter"])
        assert oracle.question(f"{thanks} {text}") == Question((first, second), "double")
        said = " ".join(language.tell(world, name, name == first, draw, unseen=unseen) for name in (first, second))
        assert oracle.statements(f"Hi there. {said} {chat}") == {first: True, second: False}


def test_what_is_no_question_is_read_as_none(oracle):
    for texts in ("greetings", "thanks", "goodbyes", "chatter"):
        assert {oracle.question(text) for text in language.talk()[texts]} == {None}
    assert oracle.question("") is None and oracle.question("<stop />") is None
    for text in language.talk()["irrelevant"]:
        assert oracle.question(text) == Question((), "irrelevant")


def test_what_was_read_before_is_read_again_and_is_the_readers_own(world, oracle):
    text = world.findings[0].yes[0]
    first = oracle.statements(text)
    expected = dict(first)
    first.clear()
    assert oracle.statements(text) == expected != {}


def test_nearness_is_the_cosine_of_weighed_trigrams():
    known = ["do you cough", "do you cough at night", "is your nose runny", "does it itch"]
    held = Counter(part for text in known for part in set(trigrams(text)))

    def vector(text):
        return {
            part: (1 + math.log(times)) * math.log(1 + len(known) / held[part])
            for part, times in Counter(trigrams(text)).items()
            if part in held
        }

    def length(parts):
        return math.sqrt(sum(weight**2 for weight in parts.values()))

    nearest = Nearest({text: text for text in known})
    for text in ("do you cough a lot", "cough cough cough", "itch at night", *known):
        parts = vector(text)
        share = sum(part in held for part in trigrams(text)) / len(list(trigrams(text)))
        expected = [
            share
            * sum(parts.get(part, 0) * weight for part, weight in vector(other).items())
            / (length(parts) * length(vector(other)))
            for other in known
        ]
        assert nearest.scores(text) == pytest.approx(expected, abs=1e-6)
    assert nearest.scores("zzz") == pytest.approx([0] * 4)


def test_people_say_who_they_are(world):
    for age in (8, 11, 18, 45, 80, 89):
        for sex in ("female", "male"):
            person = Person(age, sex)
            text = introduction(person)
            assert introduced(f"Hello. {text} I cough.") == person
    assert introduction(Person(80, "male")) == "I am an 80-year-old man."


def typos(text, draw):
    """Two letters changed places, one left out."""
    letters = list(text)
    place = draw.randrange(1, len(letters) - 2)
    letters[place], letters[place + 1] = letters[place + 1], letters[place]
    letters.pop(draw.randrange(1, len(letters) - 1))
    return "".join(letters)


def filler(text, draw):
    return f"{draw.choice(language.talk()['fillers'])} {language.lowered(text)}"


def reworded(text, draw):
    """A word left out, and one in another place."""
    words = text.split()
    words.pop(draw.randrange(len(words) - 1))
    place = draw.randrange(len(words) - 1)
    words[place], words[place + 1] = words[place + 1], words[place]
    return " ".join(words)


@pytest.mark.parametrize(
    ("how", "least_right", "most_wrong"), [(filler, 1.0, 0.0), (typos, 0.9, 0.01), (reworded, 0.7, 0.02)]
)
def test_perturbed_questions_are_read_rightly_or_not_at_all(world, oracle, how, least_right, most_wrong):
    draw = random.Random(1)
    right = wrong = 0
    asked = [(text, meaning) for text, meaning in questions(world) if meaning.fault is None]
    for text, meaning in asked:
        read = oracle.question(how(text, draw))
        right += read is not None and read.findings == meaning.findings
        wrong += read is not None and read.findings != meaning.findings
    assert right >= least_right * len(asked) and wrong <= most_wrong * len(asked), (right, wrong, len(asked))
