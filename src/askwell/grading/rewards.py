"""The reward of Learn-to-Ask, R = R_s (1 + beta R_a) + Omega (section 4.2.5), and the exact grade of a reply.

`R_s` is 1 when the reply's decision is the target's, else 0. `R_a` is 1, 0.5 or 0 as the question asks for what
the expert still went on to find out, for something else that is unknown, or for neither; 1 on a correct stop.
`Omega` is 1, 0.5 or 0 for one, two, or three and more questions (0 for none), on a stop 1 for the bare marker;
0 where the decision is wrong. What cannot be judged is unscored (None), never 0.
"""

from collections.abc import Sequence, Set

from askwell.grading.replies import Parsed, parse, question_marks
from askwell.recipes import Reward
from askwell.records import Grade, Target, Turn

BETA = 2.0


def reward(decision_score: float, content_score: float, format_score: float, *, beta: float = BETA) -> float:
    """R = R_s (1 + beta R_a) + Omega, in [0, 2 + beta]."""
    return decision_score * (1 + beta * content_score) + format_score


def reward_of(grade: Grade, turn: Turn, rule: Reward) -> float | None:
    """What a graded reply is worth under a recipe's rule, None where a part of it that counts is unscored.

    A wrong decision has no content and no format: 0 in every mode, less the penalties.
    """
    decision, style = grade.decision_score, grade.format_score
    substance = 0.0 if rule.mode == "without_content" else grade.content_score
    if style is None or substance is None:
        return None
    worth = {
        "both": reward(decision, substance, style, beta=rule.beta),
        "without_content": (1 + rule.beta) * decision + style,
        "without_decision": rule.beta * substance + style,
        "sum": decision + substance + style,
    }[rule.mode]
    if grade.decision == "stop":
        return worth - rule.missing_penalty * len(missing(turn, rule.required))
    return worth - rule.question_cost - rule.known_penalty * bool(grade.repeats)


def missing(turn: Turn, required: Sequence[str]) -> list[str]:
    """The required facts that are still to be found out at a turn."""
    facts = (turn.target.facts if turn.target else None) or ()
    return [fact for fact in required if fact in facts and fact not in turn.known]


def content(asked: Set[str], *, facts: Set[str], known: Set[str], slots: Set[str]) -> float:
    """R_a of a question against exact truth.

    1 when every slot asked is in `facts` (I*); 0.5 when some are, or when one is a slot of the service that is
    still unknown but not in I*; 0 when all are known already, unrelated, or nothing is asked.
    """
    if asked and asked <= facts:
        return 1.0
    if asked & facts or asked & (slots - known):
        return 0.5
    return 0.0


def format_of(parsed: Parsed, questions: int) -> float:
    """Omega of a reply whose decision is right."""
    if parsed.decision == "stop":
        return 1.0 if parsed.bare else 0.0
    return {1: 1.0, 2: 0.5}.get(questions, 0.0)


def grade(
    turn: Turn, reply: str, sample: int, *, asked: frozenset[str] | None, slots: Set[str], stop_marker: str = "<stop />"
) -> Grade:
    """Grade one reply at a turn whose target is known.

    `asked` is what a slot grader reads in the reply (None: it abstains), `slots` the slots of the turn's service.
    A question without a question mark counts as one question when it asks for a slot ("Tell me the city."). An empty
    reply asks for nothing, whatever a grader makes of it.
    """
    target = turn.target
    if target is None:
        raise ValueError(f"turn {turn.id} has no target")
    parsed = parse(reply, stop_marker)
    if not parsed.text:
        asked = frozenset()
    questions = 0 if parsed.decision == "stop" else max(question_marks(parsed.text), 1 if asked else 0)
    asks = parsed.decision == "continue"
    common = {
        "turn_id": turn.id,
        "sample": sample,
        "reply": reply,
        "decision": parsed.decision,
        "questions": questions,
        "asked": tuple(sorted(asked)) if asks and asked is not None else None,
        "repeats": repeats(asked, target, turn) if asks else None,
    }
    if parsed.decision != target.decision:
        reason = "asked where the expert stopped" if target.decision == "stop" else "stopped where the expert asked"
        return Grade(**common, decision_score=0, content_score=0, format_score=0, reward=0, reason=reason)
    omega = format_of(parsed, questions)
    if parsed.decision == "stop":
        reason = "stopped with the expert"
        return Grade(
            **common, decision_score=1, content_score=1, format_score=omega, reward=reward(1, 1, omega), reason=reason
        )
    if target.facts is None or asked is None:
        reason = unscored_reason(turn)
        counted = omega if asked is not None or questions else None
        return Grade(**common, decision_score=1, content_score=None, format_score=counted, reward=None, reason=reason)
    score = content(asked, facts=set(target.facts), known=set(turn.known), slots=slots)
    reason = f"asks for {', '.join(sorted(asked)) or 'nothing'}; still to find out: {', '.join(target.facts)}"
    return Grade(
        **common,
        decision_score=1,
        content_score=score,
        format_score=omega,
        reward=reward(1, score, omega),
        reason=reason,
    )


def unscored_reason(turn: Turn) -> str:
    """Why a question at this turn has no content score; what the turn lacks comes before what the grader could do."""
    if turn.target is None or turn.target.facts is None:
        return "unscored: the truth names no facts"
    return "unscored: the turn has no service" if turn.service is None else "unscored: the grader abstains"


def repeats(asked: frozenset[str] | None, target: Target, turn: Turn) -> bool | None:
    """Whether a question asks for a slot that the context already fills and the expert did not ask again."""
    return None if asked is None else bool(asked & set(turn.known) - set(target.facts or ()))
