"""The clinic as judge of pairs: right where it knows, wrong and biased as often as was said, and found out."""

import json

import pytest

from askwell import attributes
from askwell.clinic import language
from askwell.clinic.comparing import PairJudge
from askwell.clinic.knowledge import Person
from askwell.clinic.language import introduction
from askwell.clinic.quality import Quality
from askwell.clinic.reasoning import Belief, information_gain
from askwell.clinic.roles import Roles
from askwell.evaluation.comparing import criterion, question
from askwell.evaluation.winrates import figures
from askwell.records import Comparison, Message

PERSON = Person(60, "male")


@pytest.fixture(scope="module")
def judge(world, oracle):
    return PairJudge(Quality(oracle))


@pytest.fixture(scope="module")
def told(world):
    """What a man of 60 with a cough has said, and a question for each finding at each level."""
    cough = world.findings[world.place["cough"]].yes[0]
    return (Message(role="user", content=f"{introduction(PERSON)} {language.unanswering(cough)}"),)


def asked(world, finding, level="good"):
    return getattr(world.findings[world.place[finding]].questions, level)[0]


def verdict(roles, context, attribute, first, second):
    """The clinic's verdict by way of the prompt that any model would get."""
    messages = question(context, attributes.load(attribute), first, second)
    return json.loads(roles.answer({"messages": list(messages)}))["verdict"]


@pytest.fixture(scope="module")
def order_of_gain(world):
    """Findings from the most informative one to the least, after a cough."""
    belief = Belief.of(world, PERSON, {"cough": True})
    gain = information_gain(belief)
    return [world.finding_ids[place] for place in gain.argsort()[::-1]]


def test_the_question_that_tells_more_wins_and_a_swap_turns_the_verdict(world, told, order_of_gain):
    roles = Roles(world)
    best, useless = asked(world, order_of_gain[0]), asked(world, "cough")  # the cough is known already
    for attribute in ("overall", "relevance"):
        assert verdict(roles, told, attribute, best, useless) == "first"
        assert verdict(roles, told, attribute, useless, best) == "second"
        assert verdict(roles, told, attribute, best, "What is your favorite color?") == "first"
    assert verdict(roles, told, "overall", useless, "What is your favorite color?") == "tie"


@pytest.mark.parametrize(
    ("attribute", "level"),
    [("clarity", "vague"), ("answerability", "jargon"), ("avoid_bias", "leading"), ("accuracy", "wrong")],
)
def test_a_fault_of_wording_loses_by_its_own_attribute_alone(world, told, attribute, level, order_of_gain):
    roles, finding = Roles(world), order_of_gain[0]
    good, bad = asked(world, finding), asked(world, finding, level)
    assert verdict(roles, told, attribute, bad, good) == "second"
    others = {"clarity", "answerability", "avoid_bias", "accuracy", "focus"} - {attribute}
    assert {verdict(roles, told, other, bad, good) for other in others} == {"tie"}
    assert verdict(roles, told, "overall", bad, good) == "second"
    assert verdict(roles, told, "relevance", bad, good) == "tie"


def test_two_questions_at_once_lose_by_focus(world, told, order_of_gain):
    one, other = (asked(world, finding) for finding in order_of_gain[:2])
    assert verdict(Roles(world), told, "focus", f"{one} Also, {other}", one) == "second"


def test_what_nobody_understands_is_the_worst(world, told, judge):
    roles, irrelevant = Roles(world), "What is your favorite color?"
    for attribute in attributes.names():
        expected = "tie" if attribute == "personal_interest" else "second"
        assert verdict(roles, told, attribute, "Brumm blubb glork?", "Glork brumm?") == "tie"
        assert verdict(roles, told, attribute, "Brumm blubb glork?", irrelevant) in ("second", expected)
    assert judge.worth("", "Brumm blubb glork?", "overall") < 0


def test_its_worth_is_the_exact_score(world, oracle, told, judge):
    line = json.dumps({"speaker": "person", "says": told[0].content})
    text = asked(world, "fever")
    scores = Quality(oracle).scores(told, text)
    assert judge.worth(line, text, "relevance") == scores["relevance"] > 0
    assert judge.worth(line, text, "overall") == scores["overall"]


def compared(roles, context, texts):
    """Comparisons of all pairs of texts (good ones first), each in both orders."""
    rows = []
    for i, (one, other) in enumerate(texts):
        forth, back = verdict(roles, context, "overall", one, other), verdict(roles, context, "overall", other, one)
        back = {"first": "second", "second": "first", "tie": "tie"}[back]
        score = sum({"first": 1, "second": 0, "tie": 0.5}[word] for word in (forth, back)) / 2
        rows.append(
            Comparison(
                reply_set_id=str(i),
                group=str(i),
                attribute="overall",
                first="a",
                second="b",
                words=(len(one.split()), len(other.split())),
                verdicts=(forth, back),
                reasons=("", ""),
                score=score,
            )
        )
    return figures(rows, draws=300)


@pytest.fixture(scope="module")
def texts(world, order_of_gain):
    """Pairs of questions: the first asks for something that tells more, in some of its wordings."""
    half = len(order_of_gain) // 2
    pairs = zip(order_of_gain[:half], order_of_gain[half:], strict=False)
    return [
        (one, other)
        for better, worse in pairs
        for one in world.findings[world.place[better]].questions.good[:2]
        for other in world.findings[world.place[worse]].questions.good[:2]
    ]


def test_order_consistency_measures_the_order_bias(world, told, texts):
    fair, biased = (compared(Roles(world, biases=biases), told, texts) for biases in ({}, {"order": 0.3}))
    assert fair.consistency.value == 1 and fair.shown_first.value == 0.5
    # Both orders say the same where neither or, of what is a tie by itself, no bias struck: about 0.7 squared, and
    # the first shown gets half of the bias beyond its half.
    assert biased.consistency.low < 0.7 < biased.consistency.high
    assert biased.shown_first.low < 0.65 < biased.shown_first.high
    assert fair.win_rate.value > biased.win_rate.value > 0.6


def test_length_control_sees_through_a_judge_that_likes_long_questions(world, told, order_of_gain):
    """Two systems ask for the same things in two wordings each, `a` mostly in the longer one."""
    pairs = []
    for i, name in enumerate(order_of_gain):
        short, long = sorted(world.findings[world.place[name]].questions.good[:2], key=lambda text: len(text.split()))
        pairs += [(long, short) if i % 4 else (short, long)] * (len(long.split()) > len(short.split()))
    found = compared(Roles(world, biases={"length": 0.6}), told, pairs)
    assert found.win_rate.low > 0.5
    assert found.length_controlled.low < 0.5 < found.length_controlled.high


def test_an_error_rate_is_one(world, told, texts):
    roles = Roles(world, errors={"compare": 0.3})
    wrong = [verdict(roles, told, "overall", *pair) != "first" for pair in texts]
    sound = Roles(world)
    right = [verdict(sound, told, "overall", *pair) == "first" for pair in texts]
    # A mistake is any of the three verdicts, so that a third of them is right by chance.
    share = sum(w and r for w, r in zip(wrong, right, strict=True)) / sum(right)
    assert share == pytest.approx(0.2, abs=0.06)


def test_the_criterion_begins_with_a_title_that_the_clinic_knows(judge):
    for name in attributes.names():
        assert judge._names[criterion(attributes.load(name)).split("\n", 1)[0]] == name
