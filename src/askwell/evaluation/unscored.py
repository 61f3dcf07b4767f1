"""How many of a policy's replies could not be scored, and when that is too many. Pure, no I/O."""

from collections import Counter
from collections.abc import Sequence

from askwell.errors import DataError
from askwell.evaluation.metrics import truth
from askwell.recipes import EvaluateTurnsRecipe
from askwell.records import Grade, Turn


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
            "these services and turns whose truth names facts, or accept the share with `--max_unscored 1`: "
            "the replies are kept"
        )


def reply_counts(grades: Sequence[Grade]) -> dict[str, object]:
    """What the policy did, and what could not be scored, by reason."""
    unscored = Counter(grade.reason for grade in grades if grade.reward is None)
    return {
        "replies": len(grades),
        "questions": sum(grade.decision == "continue" for grade in grades),
        **dict(sorted(unscored.items())),
    }
