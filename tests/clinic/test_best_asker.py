"""The best possible asker is shown to be the best: by enumeration in small worlds, and against every other asker of the
clinic on the same people, at the same number of questions. `benchmarks/askers.py` has more people and figures."""

import random
from functools import partial

import numpy as np
import pytest
from clinic_examples import random_world

from askwell.clinic import knowledge, logs
from askwell.clinic.knowledge import Person
from askwell.clinic.logs import SKILLS, Expert
from askwell.clinic.reasoning import Belief, Myopic, Random, Reference, course, sample_case, value
from askwell.statistics import mean_interval

ADA = Person(40, "female")
NUMBERS = (1, 2, 3, 5, 8)
NEVER = {"enough": 1e-9, "most": 10**6}
RIVALS = {
    "random": partial(Random, 0),
    **{f"myopic {cost}": partial(Myopic, cost) for cost in (0.0, 0.05, 0.15)},
    **{name: partial(Expert, skill, 0) for name, skill in SKILLS.items()},
    **{f"{name} on": partial(Expert, skill._replace(**NEVER), 0) for name, skill in SKILLS.items()},
}


def best_of(belief, count):
    """P(right) of the best policy of `count` questions, by recursion."""
    worth = float(belief.posterior.max())
    if count:
        for place in belief.open():
            name = belief.world.finding_ids[place]
            chance = belief.probable(name)
            yes, no = (best_of(belief.given(name, present), count - 1) for present in (True, False))
            worth = max(worth, chance * yes + (1 - chance) * no)
    return worth


class Stopped:
    """An asker that is stopped after some questions."""

    def __init__(self, asker, most):
        self.asker, self.most = asker, most

    def next(self, belief, asked):
        return self.asker.next(belief, asked) if len(asked) < self.most else None


@pytest.mark.parametrize("seed", range(12))
def test_who_knows_its_number_of_questions_is_the_best_there_is(seed):
    world = random_world(seed, 3 + seed % 5, 6, named=4)
    belief = Belief.of(world, ADA)
    for count in (1, 2, 3):
        best = best_of(belief, count)
        reached = value(Reference(0.0, most=count), world, ADA, {}, 0.0)
        assert reached <= best + 1e-9
        assert reached == pytest.approx(best, abs=1e-9 if count <= 2 else 0.012)
        assert value(Stopped(Myopic(0.0), count), world, ADA, {}, 0.0) <= reached + 1e-9


def people(world, count, *, complaint):
    """Beliefs to begin with, and the truth: visitors with their complaint, or people of whom nothing is known."""
    for number in range(count):
        numbers, told = np.random.default_rng([number, 5]), []
        if complaint:
            truth, told = logs.case(world, numbers, random.Random(f"asked {number}"), test=True)
        else:
            truth = sample_case(world, numbers)
        yield Belief.of(world, truth.person, dict.fromkeys(told, True)), truth


@pytest.mark.parametrize("complaint", [False, True], ids=["nothing known", "a complaint known"])
@pytest.mark.parametrize("systems", [(), ("respiratory",)], ids=["whole", "respiratory"])
def test_nobody_beats_the_reference_at_any_number_of_questions(systems, complaint):
    world = knowledge.load(systems=systems)
    asked = list(people(world, 80, complaint=complaint))
    names = [str(i) for i in range(len(asked))]
    reference = {
        count: np.array([course(Reference(0.0, most=count), *one, count)[count] for one in asked]) for count in NUMBERS
    }
    beaten, behind = [], set()
    for name, make in RIVALS.items():
        asker = make()
        rows = np.array([course(asker, *one, max(NUMBERS)) for one in asked])
        for count, right in reference.items():
            less = mean_interval(list(rows[:, count] - right), names)
            beaten += [(name, count, less)] if less.low > 0 else []
            behind |= {(name, count)} if less.high < 0 else set()
    assert beaten == []
    assert {("random", 5), ("random", 8)} <= behind  # and who asks badly is seen to
