"""Experts' conversations: what a visit is made of, and what it does not depend on."""

import random

import numpy as np
import pytest

from askwell.clinic import knowledge, logs
from askwell.clinic.logs import SKILLS, Expert
from askwell.clinic.reasoning import Belief, information_gain, play, sample_case


def test_a_visit_is_the_same_whatever_was_computed_before(world):
    """Tables are kept by person: none of them may be changed by the conversations that use it."""
    fresh = knowledge.load.__wrapped__()
    numbers = range(60)
    once = [logs.visit(fresh, 0, number, "average") for number in numbers]
    assert once == [logs.visit(fresh, 0, number, "average") for number in numbers]
    assert once == [logs.visit(world, 0, number, "average") for number in reversed(numbers)][::-1]


def test_the_best_of_experts_asks_for_what_tells_most_and_stops_below_enough(world):
    skill = SKILLS["expert"]._replace(best=1.0)
    truth = sample_case(world, np.random.default_rng(1))
    belief, asked = Belief.of(world, truth.person), set()
    played = play(Expert(skill, 0), belief, truth.present)
    assert 0 < len(played) <= skill.most
    for finding, present in played:
        gain = information_gain(belief)
        assert finding == world.finding_ids[gain.argmax()] and gain.max() >= skill.enough
        belief = belief.given(finding, present)
        asked.add(finding)
    assert len(played) == skill.most or information_gain(belief).max() < skill.enough
    gain = information_gain(belief).max()
    assert Expert(skill._replace(enough=gain * 0.999), 0).next(belief, set()) is not None
    assert Expert(skill._replace(enough=gain * 1.001), 0).next(belief, set()) is None


@pytest.mark.parametrize("name", SKILLS)
def test_experts_as_askers_ask_nothing_twice_stop_in_time_and_repeat_with_their_seed(world, name):
    cases = [sample_case(world, np.random.default_rng(number)) for number in range(20)]

    def played(seed):
        asker = Expert(SKILLS[name], seed)
        return [play(asker, Belief.of(world, case.person), case.present) for case in cases]

    for questions in played(0):
        names = [finding for finding, _ in questions]
        assert len(names) == len(set(names)) <= SKILLS[name].most
    assert played(0) == played(0)
    assert played(0) != played(1)


def test_an_expert_of_the_logs_asks_as_the_asker_does(world):
    """Both choose by the same rule: without double questions, slips and interruptions they are the same."""
    skill = SKILLS["average"]
    truth = sample_case(world, np.random.default_rng(4))
    belief, draw = Belief.of(world, truth.person), random.Random("expert 5")
    asker = Expert(skill, 5)
    for _ in range(6):
        (first, *_) = logs.choose(belief, (), skill, draw)
        assert asker.next(belief, set()) == first
        belief = belief.given(first, bool(truth.present[world.place[first]]))


def test_an_expert_does_not_ask_for_what_it_asked_in_vain():
    world = knowledge.load(systems=("respiratory",))
    belief, asked = Belief.of(world, sample_case(world, np.random.default_rng(0)).person), set(world.finding_ids[:7])
    asker = Expert(SKILLS["novice"], 0)
    assert not asked & {asker.next(belief, asked) for _ in range(100)}
