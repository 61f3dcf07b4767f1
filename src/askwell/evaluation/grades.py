"""Replies to grades: a slot grader reads every question, the reward's rule does the rest. Pure, no I/O.

A turn without a service has no slots to ask for: its questions are not shown to the grader and stay unscored.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from askwell.errors import DataError
from askwell.evaluation.metrics import truth
from askwell.grading.replies import parse
from askwell.grading.rewards import grade
from askwell.recipes import EvaluateTurnsRecipe
from askwell.records import Grade, Reply, Turn


class Grader(Protocol):
    """Reads the slots that a question asks for (None: it abstains); knows the slots of a service."""

    def asked(self, questions: Sequence[tuple[str, str]]) -> list[frozenset[str] | None]: ...

    def slots(self, service: str) -> frozenset[str]: ...


def graded(turns: Sequence[Turn], replies: Sequence[Reply], grader: Grader, *, stop_marker: str) -> list[Grade]:
    """A grade a reply, in their order. Only questions at turns with a service are shown to the grader."""
    by_id = {turn.id: turn for turn in turns}
    parsed = [parse(reply.text, stop_marker) for reply in replies]
    shown = [
        (i, (service, parsed[i].text))
        for i, reply in enumerate(replies)
        if parsed[i].decision == "continue" and (service := by_id[reply.turn_id].service) is not None
    ]
    answers = grader.asked([pair for _, pair in shown])
    asked = dict(zip((i for i, _ in shown), answers, strict=True))
    slots = {service: grader.slots(service) for i, (service, _) in shown if asked[i] is not None}
    return [
        grade(
            turn := by_id[reply.turn_id],
            reply.text,
            reply.sample,
            asked=asked.get(i),
            slots=slots.get(turn.service or "", frozenset()),
            stop_marker=stop_marker,
        )
        for i, reply in enumerate(replies)
    ]


def check_unscored(turns: Sequence[Turn], grades: Sequence[Grade], recipe: EvaluateTurnsRecipe) -> None:
    """Raises DataError where too few questions are scored for the rest to speak for the policy."""
    expert_asks = {turn.id for turn in turns if truth(turn) == "continue"}
    both = [grade for grade in grades if grade.turn_id in expert_asks and grade.decision == "continue"]
    reasons = Counter(grade.reason for grade in both if grade.content_score is None)
    if reasons.total() > recipe.max_unscored * len(both):
        share = reasons.total() / len(both)
        why = ", ".join(f"{reason.removeprefix('unscored: ')} ({count})" for reason, count in reasons.most_common())
        raise DataError(
            f"{reasons.total()} of {len(both)} questions ({share:.0%}) are unscored, above max_unscored "
            f"{recipe.max_unscored:.0%}: {why}; read them in {recipe.output}/records.jsonl. Take a grader fitted on "
            "these services and turns whose truth names facts, or accept the share with `--max_unscored 1`; and "
            "choose another --output"
        )


def reply_counts(grades: Sequence[Grade]) -> dict[str, object]:
    """What the policy did, and what could not be scored, by reason."""
    unscored = Counter(grade.reason for grade in grades if grade.reward is None)
    return {
        "replies": len(grades),
        "questions": sum(grade.decision == "continue" for grade in grades),
        **dict(sorted(unscored.items())),
    }
