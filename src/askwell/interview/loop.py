"""Interviews: an asker and a patient take turns until the asker stops by its own marker, or has asked enough.

After every answer the decision maker says what it would choose now, so that one run yields accuracy over the number of
questions. All interviews go on side by side: an asker is given all open conversations at once.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from askwell.grading.replies import parse
from askwell.records import Case, Episode, Exchange, Message


class Answer(NamedTuple):
    """What a patient says to a question, and the names of the facts in it."""

    text: str
    revealed: tuple[str, ...]


class Patient(Protocol):
    """Somebody who is asked."""

    def answer(self, question: str) -> Answer: ...


class Asker(Protocol):
    """Says the next question of every conversation, or its stop marker as the last line."""

    def replies(self, conversations: Sequence[Sequence[Message]]) -> list[str]: ...


class DecisionMaker(Protocol):
    """Chooses an option of a case by what has been said: (option, confidence in [0, 1])."""

    def choose(self, case: Case, revealed: Sequence[str]) -> tuple[str, float]: ...


def interviews(
    cases: Sequence[Case],
    patients: Sequence[Patient],
    asker: Asker,
    decision_maker: DecisionMaker,
    *,
    most: int,
    stop_marker: str = "<stop />",
) -> list[Episode]:
    """An episode a case, in their order; at most `most` questions each."""
    said = [[Message(role="user", content=case.initial_information)] for case in cases]
    exchanges: list[list[Exchange]] = [[] for _ in cases]
    revealed: list[list[str]] = [[] for _ in cases]
    first = [decision_maker.choose(case, ()) for case in cases]
    stopped = [False] * len(cases)
    for _ in range(most):
        open_ = [i for i, done in enumerate(stopped) if not done]
        if not open_:
            break
        for i, reply in zip(open_, asker.replies([said[i] for i in open_]), strict=True):
            parsed = parse(reply, stop_marker)
            if parsed.decision == "stop":
                stopped[i] = True
                continue
            answer = patients[i].answer(parsed.text)
            revealed[i] += [fact for fact in answer.revealed if fact not in revealed[i]]
            choice, confidence = decision_maker.choose(cases[i], revealed[i])
            exchanges[i].append(
                Exchange(
                    question=parsed.text,
                    answer=answer.text,
                    revealed=answer.revealed,
                    choice=choice,
                    confidence=confidence,
                )
            )
            said[i] += [Message(role="assistant", content=parsed.text), Message(role="user", content=answer.text)]
    return [
        Episode(
            case_id=case.id,
            exchanges=tuple(exchanges[i]),
            first_choice=first[i][0],
            first_confidence=first[i][1],
            decision=exchanges[i][-1].choice if exchanges[i] else first[i][0],
            end="stopped" if stopped[i] else "most questions",
        )
        for i, case in enumerate(cases)
    ]
