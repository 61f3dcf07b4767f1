"""Graded replies to figures: Learn-to-Ask's offline metrics (section 5.2) and what they leave out. Pure, no I/O.

With a, c and f the decision, content and format scores of a reply and R = a (1 + 2c) + f its reward, a figure is a
mean over some of the replies; MEANING says over which. What is unscored is left out and counted, never 0. Every
figure has a 95 % interval by a bootstrap over conversations: all replies at all turns of one go together.

The paper defines WA over turns where truth and policy both continue, its published code over all continue turns;
both are given, the second as `WA all` and `WA-GH all`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from askwell.grading.replies import parse
from askwell.records import Grade, Reply, Turn
from askwell.statistics import Estimate, difference_interval, mean_interval

PAPER = ("WA", "WA-GH", "WC", "WS", "AA", "FC", "TR")
MEANING = {
    "WA": "what to ask: mean content score where the expert and the policy both ask",
    "WA-GH": "good hits: share of content scores of 1 where both ask",
    "WA all": "mean content score over all turns where the expert asks; a premature stop counts 0",
    "WA-GH all": "share of content scores of 1 over all turns where the expert asks",
    "WC": "when to continue: share of the turns where the expert asks at which the policy asks too",
    "WS": "when to stop: share of the turns where the expert stops at which the policy stops too",
    "AA": "share of right decisions over all turns",
    "FC": "mean format score over all turns; 0 where the decision is wrong",
    "TR": "mean reward over all turns, 0 to 4",
    "WA at least": "WA if every unscored question had content score 0: a bound, no estimate",
    "TR at least": "TR if every unscored question had content score 0: a bound, no estimate",
    "premature stops": "share of the turns where the expert asks at which the policy stops (1 - WC)",
    "late stops": "share of the turns where the expert stops at which the policy goes on (1 - WS)",
    "repeats": "share of the policy's questions that ask for what the context already says",
    "unscored": "share of the questions at turns where the expert asks too whose content is unscored",
    "distinct": "distinct questions over all questions of one pass, letter case and white space aside",
    "questions": "mean number of questions in a reply that asks",
    "words": "mean number of words in a reply that asks",
    "marker not bare": "share of the replies with the stop marker in them that say something else too",
}


class Graded(NamedTuple):
    """A grade and the turn that it belongs to."""

    turn: Turn
    grade: Grade


Values = tuple[list[float | None], list[str]]
"""What a figure is the mean of, None where unscored, and the conversation of each."""


def figures(
    turns: Iterable[Turn], grades: Iterable[Grade], *, stop_marker: str = "<stop />", draws: int = 2000, seed: int = 0
) -> dict[str, Estimate]:
    """Every figure of MEANING, in its order. The order of `turns` and `grades` does not matter."""
    return {
        name: mean_interval(values, conversations, draws=draws, seed=seed)
        for name, (values, conversations) in values_of(turns, grades, stop_marker=stop_marker).items()
    }


def differences(
    turns: Iterable[Turn],
    grades: Iterable[Grade],
    others: Iterable[Grade],
    *,
    stop_marker: str = "<stop />",
    draws: int = 2000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Every figure of `grades` less that of `others` at the same turns, with the interval of the difference."""
    turns = list(turns)
    first, second = (values_of(turns, found, stop_marker=stop_marker) for found in (grades, others))
    return {name: difference_interval(*first[name], *second[name], draws=draws, seed=seed) for name in first}


def values_of(turns: Iterable[Turn], grades: Iterable[Grade], *, stop_marker: str) -> dict[str, Values]:
    """What each figure of MEANING is the mean of."""
    graded = join(turns, grades)
    expert_asks = [item for item in graded if truth(item.turn) == "continue"]
    expert_stops = [item for item in graded if truth(item.turn) == "stop"]
    asks = [item for item in graded if item.grade.decision == "continue"]
    both_ask = [item for item in expert_asks if item.grade.decision == "continue"]
    marked = [item for item in graded if stop_marker in item.grade.reply]
    wordings = Counter(wording(item.grade) for item in asks)
    chosen: dict[str, tuple[list[Graded], Callable[[Grade], float | None]]] = {
        "WA": (both_ask, lambda grade: grade.content_score),
        "WA-GH": (both_ask, hit),
        "WA all": (expert_asks, lambda grade: grade.content_score),
        "WA-GH all": (expert_asks, hit),
        "WC": (expert_asks, lambda grade: grade.decision_score),
        "WS": (expert_stops, lambda grade: grade.decision_score),
        "AA": (graded, lambda grade: grade.decision_score),
        "FC": (graded, lambda grade: grade.format_score),
        "TR": (graded, lambda grade: grade.reward),
        "WA at least": (both_ask, lambda grade: grade.content_score or 0.0),
        "TR at least": (graded, least_reward),
        "premature stops": (expert_asks, lambda grade: 1 - grade.decision_score),
        "late stops": (expert_stops, lambda grade: 1 - grade.decision_score),
        "repeats": (asks, lambda grade: None if grade.repeats is None else float(grade.repeats)),
        "unscored": (both_ask, lambda grade: float(grade.content_score is None)),
        # The mean of 1/n over texts that occur n times is distinct/all. A plain recount inside each resample would
        # be biased, for a conversation drawn twice repeats itself.
        "distinct": (asks, lambda grade: 1 / wordings[wording(grade)]),
        "questions": (asks, lambda grade: float(grade.questions)),
        "words": (asks, lambda grade: float(len(parse(grade.reply, stop_marker).text.split()))),
        "marker not bare": (marked, lambda grade: float(grade.reply.strip() != stop_marker)),
    }
    return {
        name: ([value(item.grade) for item in items], [item.turn.conversation_id for item in items])
        for name, (items, value) in chosen.items()
    }


def join(turns: Iterable[Turn], grades: Iterable[Grade]) -> list[Graded]:
    """Each grade beside its turn, in the order of conversation, turn and sample."""
    by_id = {turn.id: turn for turn in turns}
    graded = [Graded(by_id[grade.turn_id], grade) for grade in grades]
    return sorted(graded, key=lambda item: (item.turn.conversation_id, item.turn.id, item.grade.sample))


def truth(turn: Turn) -> str:
    """The target's decision."""
    if turn.target is None:
        raise ValueError(f"turn {turn.id} has no target")
    return turn.target.decision


def hit(grade: Grade) -> float | None:
    """1 where the question asks for nothing but what the expert still went on to find out."""
    return None if grade.content_score is None else float(grade.content_score == 1)


def least_reward(grade: Grade) -> float:
    """The reward; of an unscored reply what is certain of it, R_s + Omega, as if it asked for nothing of use."""
    return grade.decision_score + (grade.format_score or 0.0) if grade.reward is None else grade.reward


def wording(grade: Grade) -> tuple[int, str]:
    """A question less letter case and white space. The samples of a turn are passes of their own: more passes
    over the same turns would otherwise look less varied."""
    return grade.sample, " ".join(grade.reply.casefold().split())


def expert_replies(turns: Sequence[Turn], stop_marker: str = "<stop />") -> list[Reply]:
    """What the expert did at each turn, as a policy would say it: graded, the ceiling that a grader allows."""
    return [
        Reply(turn_id=turn.id, sample=0, text=turn.expert_reply if truth(turn) == "continue" else stop_marker)
        for turn in turns
    ]
