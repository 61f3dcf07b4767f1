"""The clinic rewrites: each variant changes its attribute in its direction, and the words stay in their split."""

import json
import math
from random import Random

import pytest

from askwell.attributes import ALFA
from askwell.clinic import language
from askwell.clinic.knowledge import LEVELS
from askwell.clinic.language import squeezed
from askwell.clinic.quality import ATTRIBUTES, SPOILT, Quality
from askwell.clinic.variants import Writer
from askwell.records import Message

SAID = "I am a 40-year-old woman. I have been coughing for days."
LINES = json.dumps({"speaker": "person", "says": SAID})
CONTEXT = (Message(role="user", content=SAID),)


@pytest.fixture(scope="module")
def writer(oracle):
    return Writer(Quality(oracle))


def originals(world, unseen=False):
    """Questions of every level, double and irrelevant ones."""
    draw = Random(0)
    for finding in ("fever", "nausea", "short_of_breath"):
        for level in LEVELS:
            yield language.ask(world, finding, draw, level=level, unseen=unseen)
        yield language.ask_both(world, finding, "rash", draw, unseen=unseen)
    yield language.pick(language.talk()["irrelevant"], draw, unseen=unseen)


def made(writer, role, question, attribute, seed=0, **wrong):
    parts, task = [LINES, question], f"Task: {role}.\n\nAttribute: {attribute}\n"
    return getattr(writer, role)(parts, task, Random(seed), wrong=False, **wrong)["question"]


@pytest.mark.parametrize("attribute", ALFA)
def test_better_is_never_worse_worse_is_worse_and_wording_changes_nothing_else(world, writer, attribute):
    for question in originals(world):
        before = writer.quality.scores(CONTEXT, question)
        for seed in range(3):
            better, worse = (made(writer, role, question, attribute, seed) for role in ("enhance", "corrupt"))
            up, down = (writer.quality.scores(CONTEXT, text) for text in (better, worse))
            assert up[attribute] >= before[attribute] >= down[attribute], (question, better, worse)
            assert up[attribute] > down[attribute] or before["relevance"] == 0.0, (question, better, worse)
            if attribute in SPOILT:
                assert up[attribute] == 1.0 and down[attribute] == 0.0
                for name in set(ATTRIBUTES) - {attribute}:
                    assert up[name] == before[name] == down[name], (name, question, better, worse)


def test_questions_of_test_posts_stay_in_their_words(world, writer):
    kept = {squeezed(getattr(finding.questions, level)[-1]) for finding in world.findings for level in LEVELS}
    kept |= {squeezed(language.talk()["irrelevant"][-1])}
    for unseen in (False, True):
        for question in originals(world, unseen):
            for attribute in ALFA:
                for role in ("enhance", "corrupt"):
                    reading = writer.quality.read(made(writer, role, question, attribute))
                    assert {squeezed(part.text) in kept for part in reading.parts} == {unseen}


def test_with_the_outcome_told_it_asks_for_what_tells_that_condition_apart(world, writer):
    belief, gains = writer.quality.known(CONTEXT)
    question = world.findings[world.place["fever"]].questions.good[0]
    task = "Task: enhance_knowing.\n\nAttribute: relevance\n"
    asked_for = set()
    for place, condition in enumerate(world.conditions):
        rises = []  # the expected rise of the condition's log probability, answer by answer
        for finding in range(len(world.findings)):
            present = belief.tables.chances[1, :, finding]
            mean, own = float(belief.posterior @ present), float(present[place])
            rises.append(own * math.log(own / mean) + (1 - own) * math.log((1 - own) / (1 - mean)))
        # Nobody who does not know would ask for what tells much less than the best question.
        rises = [rise if gain >= 0.8 * gains.max() else -1.0 for rise, gain in zip(rises, gains, strict=True)]
        text = writer.enhance([LINES, question, condition.name], task, Random(0), wrong=False)["question"]
        (part,) = writer.quality.read(text).parts
        assert part.finding == world.finding_ids[max(range(len(rises)), key=rises.__getitem__)]
        asked_for.add(part.finding)
    assert len(asked_for) > 1


def test_a_mistake_goes_the_other_way_or_gives_the_outcome_away(world, writer):
    question = world.findings[world.place["fever"]].questions.good[0]
    task = "Task: enhance.\n\nAttribute: clarity\n"
    worse = writer.enhance([LINES, question], task, Random(0), wrong=True)["question"]
    better = writer.corrupt([LINES, question], task, Random(0), wrong=True)["question"]
    scores = [writer.quality.scores(CONTEXT, text)["clarity"] for text in (worse, better)]
    assert scores == [0.0, 1.0]
    told = [writer.enhance([LINES, question, "asthma"], task, Random(i), wrong=True)["question"] for i in range(20)]
    assert 4 < sum("asthma" in text for text in told) < 16


def test_the_judge_ranks_by_exact_scores_and_ties_what_is_alike_or_unread(world, writer):
    fever = world.findings[world.place["fever"]].questions
    task = "Task: rank.\n\nAttribute: clarity\n"

    def ranking(*texts):
        return writer.rank([LINES, *texts], task, Random(0), wrong=False)["verdict"]

    assert ranking(fever.vague[0], fever.good[0], fever.jargon[0]) == "B = C > A"
    assert ranking(fever.good[0], fever.vague[0]) == "A > B"
    assert ranking(fever.good[0], "What did Hegel mean by that?") == "A = B"
    draws = {writer.rank([LINES, *fever.good[:3]], task, Random(i), wrong=True)["verdict"] for i in range(40)}
    assert len(draws) == 6


def test_what_it_cannot_read_it_leaves_as_it_is(writer):
    assert made(writer, "enhance", "What did Hegel mean by that?", "clarity") == "What did Hegel mean by that?"
