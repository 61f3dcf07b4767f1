"""Is the best possible asker the best? The reference asker against others, on the same people of the simulated clinic.

    python benchmarks/askers.py [--quick] [--cases 1000] [--most 12]

Accuracy after each number of questions, in the whole clinic and in one body system, of people of whom nothing is known
and of visitors whose complaint is. A rival beats the reference where the 95 % interval of the difference, paired by
person, lies above 0; of many comparisons of equals one in forty does. Three kinds of reference: one that knows how many
questions it has, asked anew for each number; one that does not and has no cost; one that does not and pays 0.01 a
question, which is the bound in `askwell evaluate interviews`. Rivals that stop keep their accuracy. Last, what an
interview is worth: accuracy less 0.01 a question, where each stops by itself. The last line is JSON.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from random import Random as Draw
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from askwell.clinic.knowledge import World, load
from askwell.clinic.logs import SKILLS, Expert, case
from askwell.clinic.reasoning import Asker, Belief, Myopic, Random, Reference, Truth, course, play, sample_case
from askwell.statistics import Estimate, mean_interval

COST = 0.01
Person = tuple[Belief, Truth]
RIVALS: dict[str, Callable[[], Asker]] = {
    "random": lambda: Random(0),
    **{f"myopic {cost}": lambda cost=cost: Myopic(cost) for cost in (0.0, 0.02, 0.05, 0.15)},
    **{name: lambda skill=skill: Expert(skill, 0) for name, skill in SKILLS.items()},
    **{
        f"{name}, never stops": lambda skill=skill: Expert(skill._replace(enough=1e-9, most=10**6), 0)
        for name, skill in SKILLS.items()
    },
}


class Found(NamedTuple):
    """A comparison: rival less reference after a number of questions."""

    rival: str
    questions: int
    difference: Estimate


def people(world: World, count: int, *, complaint: bool) -> list[Person]:
    """Beliefs to begin with, and the truth."""
    found = []
    for number in range(count):
        numbers = np.random.default_rng([number, 17])
        if complaint:
            truth, told = case(world, numbers, Draw(f"asked {number}"), test=True)
        else:
            truth, told = sample_case(world, numbers), []
        found.append((Belief.of(world, truth.person, dict.fromkeys(told, True)), truth))
    return found


def courses(asker: Asker, asked: Iterable[Person], most: int) -> NDArray[np.float64]:
    """Right or not after 0 to `most` questions, a row a person."""
    return np.array([course(asker, belief, truth, most) for belief, truth in asked])


def paired(one: NDArray[np.float64], other: NDArray[np.float64]) -> Estimate:
    """Mean difference over persons."""
    return mean_interval(list(one - other), [str(i) for i in range(len(one))])


def worths(asker: Asker, asked: Iterable[Person], most: int) -> NDArray[np.float64]:
    """Accuracy less cost of each interview."""
    found = []
    for belief, truth in asked:
        played = play(asker, belief, truth.present, most=most)
        last = Belief.of(belief.world, belief.person, {**belief.answers, **dict(played)})
        found.append((last.best == truth.condition) - COST * len(played))
    return np.array(found)


def shown(estimate: Estimate) -> str:
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


def rounded(estimate: Estimate) -> list[float | None]:
    return [None if value is None else round(value, 4) for value in estimate[:3]]


def setting(world: World, count: int, most: int, *, complaint: bool) -> dict[str, Any]:
    """All comparisons on one kind of people; prints them."""
    asked = people(world, count, complaint=complaint)
    knowing = [courses(Reference(0.0, most=n), asked, n)[:, n] for n in range(1, most + 1)]
    start = courses(Reference(0.0, most=0), asked, 0)
    references = {
        "knows its number": np.column_stack([start, *knowing]),
        "cost 0": courses(Reference(0.0), asked, most),
        f"cost {COST}": courses(Reference(COST), asked, most),
    }
    rivals = {name: courses(make(), asked, most) for name, make in RIVALS.items()}
    for name, rows in {**{f"reference, {name}": rows for name, rows in references.items()}, **rivals}.items():
        print(f"  {name:28s}", " ".join(f"{value:.3f}" for value in rows.mean(axis=0)))
    report: dict[str, Any] = {}
    for kind, rows in references.items():
        every = [
            Found(name, n, paired(rival[:, n], rows[:, n]))
            for name, rival in rivals.items()
            for n in range(1, most + 1)
        ]
        ahead = [found for found in every if found.difference.low is not None and found.difference.low > 0]
        top = max(every, key=lambda found: found.difference.value or 0)
        print(f"  reference, {kind}: beaten in {len(ahead)} of {len(every)}; the most:", end=" ")
        print(f"{top.rival} after {top.questions}: {shown(top.difference)}")
        report[kind] = {"beaten": len(ahead), "of": len(every), "most": [*top[:2], *rounded(top.difference)]}
    own = worths(Reference(COST), asked, most)
    print(f"  worth of an interview: reference {own.mean():.3f}; less that:", end=" ")
    makers = {f"reference with {most}": lambda: Reference(COST, most=most), **RIVALS}
    less = {name: paired(worths(make(), asked, most), own) for name, make in makers.items()}
    print("; ".join(f"{name} {shown(estimate)}" for name, estimate in less.items()))
    return {**report, "worth": {name: rounded(value) for name, value in less.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--most", type=int, default=12)
    parser.add_argument("--quick", action="store_true", help="100 people, 6 questions")
    arguments = parser.parse_args()
    count, most = (100, 6) if arguments.quick else (arguments.cases, arguments.most)
    report = {}
    for systems in ((), ("respiratory",)):
        world = load(systems=systems)
        for complaint in (False, True):
            name = f"{systems[0] if systems else 'whole clinic'}, {'a complaint' if complaint else 'nothing'} known"
            print(f"{name}: {count} people, accuracy after 0 to {most} questions")
            report[name] = setting(world, count, most, complaint=complaint)
    print(f"CPU: {time.process_time():.0f} s")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
