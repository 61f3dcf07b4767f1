"""Second opinions on the same replies: another grader, and a language model that reads the questions. Pure, no I/O.

A policy trained against one grader may learn to please that grader alone. Then the figures under a second one, which
shares neither kind of model nor data with the first, fall behind; and its questions turn unlikely to a reader that
was never trained with it.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from askwell.evaluation.metrics import Graded, figures, join, truth
from askwell.grading.replies import parse
from askwell.records import Grade, Message, Turn
from askwell.statistics import Estimate, mean_interval, ratio_interval


class Reader(Protocol):
    """A language model: per reply, the sum of negative log-likelihoods in nats and the number of its tokens."""

    def nll(self, contexts: Sequence[Sequence[Message]], replies: Sequence[str]) -> list[tuple[float, int]]: ...


class Agreement(NamedTuple):
    """How far two graders agree on the same replies.

    `equal_sets`: they read the same slots, over questions that both score. `abstains`: at least one abstains, over
    all questions. `equal_content`: the same content score, where both give one. `difference`: reward under the first
    less reward under the second, over the same questions; well above 0, the policy pleases the first alone. Where
    expert or policy stops, no grader is needed and both rewards are the same.
    """

    equal_sets: Estimate
    abstains: Estimate
    equal_content: Estimate
    difference: Estimate
    second: dict[str, Estimate]
    second_expert: dict[str, Estimate]


class Opinion(NamedTuple):
    """Grades of the policy's and of the expert's replies by one grader."""

    policy: Sequence[Grade]
    expert: Sequence[Grade]


def agreement(
    turns: Sequence[Turn],
    first: Sequence[Grade],
    second: Opinion,
    *,
    stop_marker: str,
    draws: int = 2000,
    seed: int = 0,
) -> Agreement:
    """Compare two graders on the replies that `first` and `second.policy` both grade."""
    pairs = list(zip(join(turns, first), join(turns, second.policy), strict=True))
    for one, other in pairs:
        if (one.grade.turn_id, one.grade.sample) != (other.grade.turn_id, other.grade.sample):
            raise ValueError(f"{one.grade.turn_id}: the two graders did not grade the same replies")
    questions = [(one, other) for one, other in pairs if one.grade.decision == "continue"]
    both = [(one, other) for one, other in questions if truth(one.turn) == "continue"]

    def mean(chosen: Iterable[tuple[Graded, Graded]], values: Iterable[float | None]) -> Estimate:
        return mean_interval(list(values), [one.turn.conversation_id for one, _ in chosen], draws=draws, seed=seed)

    return Agreement(
        equal_sets=mean(questions, (equal(one.grade.asked, other.grade.asked) for one, other in questions)),
        abstains=mean(questions, (float(None in (one.grade.asked, other.grade.asked)) for one, other in questions)),
        equal_content=mean(both, (equal(one.grade.content_score, other.grade.content_score) for one, other in both)),
        difference=mean(both, (less(one.grade.reward, other.grade.reward) for one, other in both)),
        second=figures(turns, second.policy, stop_marker=stop_marker, draws=draws, seed=seed),
        second_expert=figures(turns, second.expert, stop_marker=stop_marker, draws=draws, seed=seed),
    )


def equal(one: object, other: object) -> float | None:
    """Whether two judgements are the same; None where one is missing."""
    return None if one is None or other is None else float(one == other)


def less(one: float | None, other: float | None) -> float | None:
    """one - other, None where one is missing."""
    return None if one is None or other is None else one - other


def perplexities(
    turns: Sequence[Turn], grades: Iterable[Grade], reader: Reader, *, batch: int, stop_marker: str, seed: int = 0
) -> dict[str, Estimate]:
    """Perplexity under `reader` of the policy's questions, and of the experts' own at the same turns.

    Over the turns where both ask, so that the two are measured at the same contexts. An empty reply has no
    perplexity: unscored.
    """
    both = [
        item for item in join(turns, grades) if truth(item.turn) == "continue" and item.grade.decision == "continue"
    ]
    at = {item.turn.id: item.turn for item in both}
    policy = [(item.turn, parse(item.grade.reply, stop_marker).text) for item in both]
    expert = [(turn, turn.expert_reply.strip()) for turn in at.values()]
    return {
        "policy": perplexity(policy, reader, batch=batch, seed=seed),
        "expert": perplexity(expert, reader, batch=batch, seed=seed),
    }


def perplexity(texts: Sequence[tuple[Turn, str]], reader: Reader, *, batch: int, seed: int = 0) -> Estimate:
    """exp(nats / tokens) over all texts together. The interval's ends are those of nats per token, taken to exp."""
    said = sorted(((turn, text) for turn, text in texts if text), key=lambda item: (weight(*item), item[0].id, item[1]))
    measured: list[tuple[float, int]] = []
    for start in range(0, len(said), batch):
        part = said[start : start + batch]
        measured += reader.nll([turn.context for turn, _ in part], [text for _, text in part])
    nats = ratio_interval(
        [nll for nll, _ in measured],
        [float(tokens) for _, tokens in measured],
        [turn.conversation_id for turn, _ in said],
        seed=seed,
    )
    value, low, high = (None if end is None else math.exp(end) for end in nats[:3])
    return Estimate(value, low, high, nats.scored, nats.unscored + len(texts) - len(said))


def weight(turn: Turn, text: str) -> int:
    """Characters to read; batches of like length waste little padding."""
    return sum(len(message.content) for message in turn.context) + len(text)
