"""Who diagnoses best after as many questions: from the random asker up to the best possible one.

A study's interviews, cut to the same mean number of questions (`evaluation.equal_questions`): all of them to 1, 2, ...
and each two of a ladder to what the lesser of the two asks.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from askwell.evaluation.equal_questions import accuracy, gain, mean_questions
from askwell.evaluation.interview_figures import course
from askwell.evaluation.report import cell
from askwell.records import Case, Episode

RANDOM = "random"
"""The asker that all should beat: any question, as long as it may."""
Rungs = Sequence[tuple[str, Sequence[str]]]
"""Rows, and those that should diagnose better than each."""


class Talks(NamedTuple):
    """A row's interviews, all seeds pooled: their courses, and who was asked."""

    courses: list[tuple[float | None, ...]]
    people: list[str]

    @classmethod
    def of(cls, episodes: Iterable[Episode], cases: Mapping[str, Case]) -> "Talks":
        """Interviews with the people of these cases."""
        held = [(episode, cases[episode.case_id]) for episode in episodes]
        return cls([course(episode, case) for episode, case in held], [case.group for _, case in held])


def climbed(talks: Mapping[str, Talks], rungs: Rungs, *, most: int, seed: int = 0) -> dict[str, Any]:
    """Accuracy of all rows after 1 to `most` questions in the mean, None where a row asks fewer; and what each of the
    ladder has over the one below after as many as the lesser of the two asks."""
    after = {
        row: [
            accuracy(*held, count, seed=seed)._asdict() if count <= mean_questions(held.courses) else None
            for count in range(1, most + 1)
        ]
        for row, held in talks.items()
    }
    steps = []
    for worse, betters in rungs:
        for better in betters:
            if worse in talks and better in talks:
                asked, found = gain(*talks[better], *talks[worse], seed=seed)
                steps.append({"better": better, "worse": worse, "questions": asked, "gain": found._asdict()})
    return {"after": after, "steps": steps}


def verdict(gain: Mapping[str, Any]) -> str:
    """Whether an ordering holds here."""
    if gain["low"] is None:
        return "cannot be told"
    return "holds" if gain["low"] > 0 else "is reversed" if gain["high"] < 0 else "is open"


def row_of(cells: Sequence[str]) -> str:
    """A row of a markdown table."""
    return f"| {' | '.join(cells)} |"


def markdown(found: Mapping[str, Any], best: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Lines of report.md; `best` is what the best possible asker reaches after 0, 1, ... questions."""
    most = max(map(len, found["after"].values()))
    yield (
        "Accuracy where all interviews of a row are cut so that it has so many questions in the mean. The best "
        "possible asker knows how many it has.\n"
    )
    yield row_of(["questions", *map(str, range(1, most + 1))])
    yield row_of(["---"] * (most + 1))
    for row, cells in found["after"].items():
        yield row_of(
            [f"{row} asker" if row == RANDOM else row, *("–" if each is None else cell(each) for each in cells)]
        )
    yield row_of(["best possible asker", *(cell(each) for each in best[1 : most + 1]), *["–"] * (most + 1 - len(best))])
    yield "\nEach of two, cut to as many as the one of them that asks less:\n"
    yield row_of(["", "questions", "gain", "here it"])
    yield row_of(["---"] * 4)
    for step in found["steps"]:
        names = f"{step['better']} over {step['worse']}"
        yield row_of([names, f"{step['questions']:.2f}", cell(step["gain"]), verdict(step["gain"])])
