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
    """Accuracy of all rows after 1 to `most` questions in the mean, and what each of the ladder has over the one below;
    None where somebody asks fewer. `gain` is after as many as the lesser of the two asks, `questions`."""
    asked = {row: mean_questions(held.courses) for row, held in talks.items()}
    counts = range(1, most + 1)
    steps = []
    for worse, better in ((worse, better) for worse, betters in rungs for better in betters):
        if worse in talks and better in talks:
            least = min(asked[worse], asked[better])
            within = [count for count in (*counts, least) if count <= least]
            gains = {count: gained(talks[better], talks[worse], count, seed=seed) for count in within}
            steps.append(
                {
                    "better": better,
                    "worse": worse,
                    "after": [gains.get(count) for count in counts],
                    "questions": least,
                    "gain": gains[least],
                }
            )
    after = {
        row: [accuracy(*held, count, seed=seed)._asdict() if count <= asked[row] else None for count in counts]
        for row, held in talks.items()
    }
    return {"after": after, "steps": steps}


def gained(better: Talks, worse: Talks, questions: float, *, seed: int) -> dict[str, Any]:
    """What one has over the other after so many questions in the mean."""
    return gain(*better, *worse, questions=questions, seed=seed)[1]._asdict()


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
    yield "\nWhat one has over another, cut to as many; last, to as many as the one of them that asks less:\n"
    yield row_of(["questions", *map(str, range(1, most + 1)), "all of the lesser's"])
    yield row_of(["---"] * (most + 2))
    for step in found["steps"]:
        gains = ["–" if each is None else cell(each) for each in step["after"]]
        last = f"{cell(step['gain'])} after {step['questions']:.2f}, {verdict(step['gain'])}"
        yield row_of([f"{step['better']} over {step['worse']}", *gains, last])
