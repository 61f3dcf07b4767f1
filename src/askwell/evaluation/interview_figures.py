"""What interviews came to: figures of episodes with the cases behind them, and what they lie between.

Means over interviews, and shares of questions over questions, with intervals by bootstrap over the cases' groups (192
posts stand behind the 302 cases of MediQ-AskDocs). What could not be read or held is unscored: left out of a figure and
counted in it. No I/O.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from askwell.evaluation.calibration import Worth, worth
from askwell.interview.lexical import squeezed
from askwell.records import Case, Episode, Exchange, Usage
from askwell.statistics import Estimate, mean_interval

STEPS = 20
"""Thresholds at most at which a confidence is cut off, to see what would have come of it."""


class Figures(NamedTuple):
    """What interviews came to. `curve` is accuracy after 0, 1, ... questions; who has stopped keeps its decision."""

    accuracy: Estimate
    questions: Estimate
    timeouts: Estimate
    """Share that ended because the most questions were asked."""
    unanswered: Estimate
    """Share of questions whose answer holds no fact."""
    repeated: Estimate
    """Share of questions whose answer holds known facts alone."""
    reworded: Estimate
    """Share of questions that were asked before in the same words."""
    facts: Estimate
    """Facts an answer: an asker that fishes with broad questions gets many."""
    collected: Estimate
    """Share of the case's facts that were said by the end."""
    invented: Estimate
    """Statements of a patient's model that no fact has, left out of its answers: a question."""
    withheld: Estimate
    """Share of questions at which the patient would not answer."""
    late: Estimate
    """Of those decided rightly: questions after the last one that changed the choice."""
    premature: Estimate
    """Of those that the expert itself ended: share decided wrongly though all that is known decides them rightly."""
    curve: list[Estimate]


TITLES = {
    "accuracy": "share decided rightly",
    "questions": "questions an interview",
    "timeouts": "share that ended only because the most questions were asked",
    "unanswered": "share of questions whose answer holds no fact",
    "repeated": "share of questions whose answer holds nothing but known facts",
    "reworded": "share of questions asked before in the same words",
    "facts": "facts an answer",
    "collected": "share of the facts said by the end",
    "invented": "statements a question that no fact has, left out of the answer",
    "withheld": "share of questions that the patient would not answer",
    "late": "questions after the one that settled a right decision",
    "premature": "share of own stops decided wrongly where all that is known decides rightly",
}


def figures(
    episodes: Sequence[Episode | None],
    cases: Sequence[Case],
    *,
    most: int,
    seed: int = 0,
    full: Sequence[bool | None] | None = None,
) -> Figures:
    """Of an episode a case, None where none could be held; `full` says whether everything known decides it rightly."""
    groups = [case.group for case in cases]

    def mean(values: Sequence[float | None], clusters: Sequence[str] = groups) -> Estimate:
        return mean_interval(list(values), list(clusters), seed=seed)

    asked: list[Exchange] = []
    whose, again, reworded = [], [], []
    for group, episode in zip(groups, episodes, strict=True):
        known: set[str] = set()
        before: set[str] = set()
        for exchange in episode.exchanges if episode else ():
            asked.append(exchange)
            whose.append(group)
            again.append(float(bool(exchange.revealed) and known.issuperset(exchange.revealed)))
            known.update(exchange.revealed)
            words = squeezed(exchange.question)
            reworded.append(float(words in before))
            before.add(words)
    pairs = list(zip(episodes, cases, strict=True))
    sure = full or [None] * len(cases)
    return Figures(
        accuracy=mean([right(episode, case) for episode, case in pairs]),
        questions=mean([None if episode is None else float(len(episode.exchanges)) for episode in episodes]),
        timeouts=mean([None if episode is None else float(episode.end == "most questions") for episode in episodes]),
        unanswered=mean([float(not exchange.revealed) for exchange in asked], whose),
        repeated=mean(again, whose),
        reworded=mean(reworded, whose),
        facts=mean([float(len(exchange.revealed)) for exchange in asked], whose),
        collected=mean([collected(episode, case) for episode, case in pairs]),
        invented=mean([float(exchange.invented) for exchange in asked], whose),
        withheld=mean([float(exchange.manner == "withheld") for exchange in asked], whose),
        late=mean([late(episode, case) for episode, case in pairs]),
        premature=mean([premature(e, case, known) for (e, case), known in zip(pairs, sure, strict=True)]),
        curve=[mean([after(episode, case, count) for episode, case in pairs]) for count in range(most + 1)],
    )


def right(episode: Episode | None, case: Case) -> float | None:
    """1 or 0; None where there was no decision."""
    return None if episode is None or episode.decision is None else float(episode.decision == case.answer)


def after(episode: Episode | None, case: Case, count: int) -> float | None:
    """Whether what would be chosen after so many questions is right; None where nobody could read it."""
    choice = None if episode is None else choice_after(episode, count)
    return None if choice is None else float(choice == case.answer)


def choice_after(episode: Episode, count: int) -> str | None:
    """What would be chosen after `count` questions, or after the last where there were fewer."""
    made = episode.exchanges[:count]
    return made[-1].choice if made else episode.first_choice


def course(episode: Episode, case: Case) -> tuple[float | None, ...]:
    """Whether what would be chosen is right before the first question and after each; None where it was unreadable."""
    return tuple(None if choice is None else float(choice == case.answer) for choice in choices(episode))


def collected(episode: Episode | None, case: Case) -> float | None:
    """The share of the case's facts that were said; None where it has none."""
    if episode is None or not case.facts:
        return None
    said = {fact for exchange in episode.exchanges for fact in exchange.revealed}
    return len(said.intersection(case.facts)) / len(set(case.facts))


def choices(episode: Episode) -> list[str | None]:
    """The choice before the first question and after each."""
    return [episode.first_choice, *(exchange.choice for exchange in episode.exchanges)]


def late(episode: Episode | None, case: Case) -> float | None:
    """Questions asked after the last that changed the choice, of an interview that was decided rightly."""
    if not right(episode, case):
        return None
    assert episode is not None
    made = choices(episode)
    settled = len(made) - 1
    while settled and made[settled - 1] == case.answer:
        settled -= 1
    return float(len(made) - 1 - settled)


def premature(episode: Episode | None, case: Case, full: bool | None) -> float | None:
    """Whether an interview that the expert ended was decided wrongly, where everything known decides it rightly."""
    found = right(episode, case)
    if episode is None or found is None or full is None or episode.end != "stopped":
        return None
    return float(not found and full)


def confidences(episode: Episode) -> list[float | None]:
    """The confidence before the first question and after each."""
    return [episode.first_confidence, *(exchange.confidence for exchange in episode.exchanges)]


def degrees(episode: Episode) -> list[float | None]:
    """How sure the abstention rule was before the first question and after each."""
    return [episode.first_sure, *(exchange.sure for exchange in episode.exchanges)]


def trust(episodes: Sequence[Episode | None], cases: Sequence[Case], *, seed: int = 0) -> Worth:
    """What the decision maker's confidence in its decisions is worth."""
    held = [
        (confidences(episode)[-1], episode.decision == case.answer, case.group)
        for episode, case in zip(episodes, cases, strict=True)
        if episode is not None and episode.decision is not None
    ]
    rated = [(sure, hit, group) for sure, hit, group in held if sure is not None]
    return worth([sure for sure, _, _ in rated], [hit for _, hit, _ in rated], [g for _, _, g in rated], seed=seed)


class Cut(NamedTuple):
    """What would have come of it, had the interviews ended once a figure reached the threshold; `scored` decisions."""

    threshold: float
    accuracy: float | None
    questions: float
    scored: int


def sweep(episodes: Sequence[Episode | None], cases: Sequence[Case], *, by: str, highest: float | None) -> list[Cut]:
    """Thresholds on `by`, the decision maker's "confidence" or how "sure" the rule was, without asking anything again.

    An interview ends at the first point that reaches the threshold, else where it ended. Above `highest`, the rule's
    own threshold, nothing can be said: those interviews were not held.
    """
    read = confidences if by == "confidence" else degrees
    pairs = [(e, read(e), case) for e, case in zip(episodes, cases, strict=True) if e is not None]
    seen = sorted({value for _, values, _ in pairs for value in values if value is not None})
    seen = [value for value in seen if highest is None or value <= highest]
    if len(seen) > STEPS:
        seen = [seen[round(place * (len(seen) - 1) / (STEPS - 1))] for place in range(STEPS)]
    cuts = []
    for threshold in dict.fromkeys(seen):
        hits, asked = [], 0
        for episode, values, case in pairs:
            point = next((i for i, v in enumerate(values) if v is not None and v >= threshold), len(values) - 1)
            asked += point
            if (choice := choices(episode)[point]) is not None:
                hits.append(choice == case.answer)
        cuts.append(Cut(threshold, sum(hits) / len(hits) if hits else None, asked / len(pairs), len(hits)))
    return cuts


def blind(cases: Sequence[Case], *, seed: int = 0) -> dict[str, Estimate]:
    """What is right without a word being read: the commonest answer's name, and the longest option (ties shared)."""
    groups = [case.group for case in cases]
    counts = Counter(case.answer for case in cases)
    common = min(counts, key=lambda name: (-counts[name], name))

    def longest(case: Case) -> float:
        most = max(map(len, case.options.values()))
        names = [name for name, text in case.options.items() if len(text) == most]
        return (case.answer in names) / len(names)

    values = {
        f"always {common}, the commonest answer": [float(case.answer == common) for case in cases],
        "the longest option": [longest(case) for case in cases],
    }
    return {name: mean_interval(hits, groups, seed=seed) for name, hits in values.items()}


def distribution(episodes: Sequence[Episode | None]) -> dict[str, int]:
    """Interviews by their number of questions."""
    counts = Counter(len(episode.exchanges) for episode in episodes if episode is not None)
    return {str(count): counts[count] for count in range(max(counts, default=0) + 1)}


def usage(episodes: Sequence[Episode | None]) -> dict[str, dict[str, Any]]:
    """Calls, tokens and cost by role, and in all."""
    total: dict[str, Usage] = {}
    for episode in episodes:
        for role, used in (episode.usage if episode else {}).items():
            for name in (role, "in all"):
                total[name] = added(total.get(name, Usage()), used)
    return {name: total[name].model_dump() for name in sorted(total, key=lambda name: (name == "in all", name))}


def added(one: Usage, other: Usage) -> Usage:
    """The sum of two accounts."""
    return Usage(
        calls=one.calls + other.calls,
        prompt_tokens=one.prompt_tokens + other.prompt_tokens,
        completion_tokens=one.completion_tokens + other.completion_tokens,
        cost=round(one.cost + other.cost, 12),
    )


def as_json(found: Figures) -> dict[str, Any]:
    """For report.json."""
    plain = {name: value._asdict() for name, value in found._asdict().items() if name != "curve"}
    return {**plain, "curve": [estimate._asdict() for estimate in found.curve]}
