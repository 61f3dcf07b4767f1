"""Replies to grades by exact truth: a slot grader reads every question, the reward's rule does the rest. Pure, no I/O.

A turn without a service has no slots to ask for: its questions are not shown to the grader and stay unscored.
"""

from collections.abc import Sequence
from typing import Protocol

from askwell.grading.replies import parse
from askwell.grading.rewards import grade
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
