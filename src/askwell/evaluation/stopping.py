"""When an interview in the clinic should have ended: would the reference asker have stopped, in the policy's place?

The reference asker (`clinic.reasoning.Reference`) stops where no plan of further questions is worth its cost. It is put
where the policy stood, before every question and at the end, with what the policy had asked and brought to light by
then. So a policy is not blamed for what its earlier questions failed to find, only for going on or stopping there.

Only the clinic knows this. Of cases from files there is no such figure.
"""

from collections.abc import Sequence
from typing import NamedTuple

from askwell.clinic.interviewing import answers_in
from askwell.clinic.reasoning import Asker
from askwell.interview.clinic import ExactDecisionMaker
from askwell.records import Case, Episode
from askwell.statistics import Estimate, mean_interval


class Stops(NamedTuple):
    """How a policy's stops compare with the reference asker's, given what the policy had brought to light by then.

    An unlikely answer may open again what was settled, so that a stop can be too late and too soon.
    """

    soon: Estimate
    """Of own stops: share at which the reference asker would have asked on."""
    late: Estimate
    """Of own stops: share with a question before them at which the reference asker would have stopped."""
    timely: Estimate
    """Of own stops: share at the first point at which the reference asker would have stopped."""
    beyond: Estimate
    """Questions an interview, own stop or not, at which the reference asker would have stopped."""


TITLES = {
    "soon": "share of own stops at which the reference asker would have asked on",
    "late": "share of own stops after a point at which the reference asker would have stopped",
    "timely": "share of own stops at the first point at which the reference asker would have stopped",
    "beyond": "questions an interview that the reference asker would not have asked",
}


def stops(
    episodes: Sequence[Episode | None],
    cases: Sequence[Case],
    maker: ExactDecisionMaker,
    reference: Asker,
    *,
    seed: int = 0,
) -> Stops:
    """Over the clinic's interviews, by bootstrap over the groups of their cases."""
    courses = [
        None if e is None else course(e, case, maker, reference) for e, case in zip(episodes, cases, strict=True)
    ]
    return of_courses(courses, [e is not None and e.end == "stopped" for e in episodes], cases, seed=seed)


def course(episode: Episode, case: Case, maker: ExactDecisionMaker, reference: Asker) -> list[bool]:
    """Whether the reference asker would have stopped before the first question, before each next one, at the end."""
    revealed: list[str] = []
    asked: set[str] = set()
    found = []
    for exchange in (None, *episode.exchanges):
        if exchange is not None:
            revealed += exchange.revealed
            read = maker.oracle.question(exchange.question)
            asked |= set(read.findings) if read else set()
        belief = maker.belief(case.initial_information, answers_in(revealed))
        found.append(reference.next(belief, asked) is None)
    return found


def of_courses(
    courses: Sequence[list[bool] | None], stopped: Sequence[bool], cases: Sequence[Case], *, seed: int = 0
) -> Stops:
    """The figures of courses; `stopped` says which interviews the policy ended itself. None could not be held."""
    groups = [case.group for case in cases]

    def of_stops(true: Sequence[bool | None]) -> Estimate:
        own = [None if not mine or hit is None else float(hit) for hit, mine in zip(true, stopped, strict=True)]
        return mean_interval(own, groups, seed=seed)

    late = [None if found is None else any(found[:-1]) for found in courses]
    soon = [None if found is None else not found[-1] for found in courses]
    return Stops(
        soon=of_stops(soon),
        late=of_stops(late),
        timely=of_stops([None if a is None or b is None else not (a or b) for a, b in zip(soon, late, strict=True)]),
        beyond=mean_interval(
            [None if found is None else float(sum(found[:-1])) for found in courses], groups, seed=seed
        ),
    )
