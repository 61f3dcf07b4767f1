"""How far reward models agree: their scale, and the correlations of what they say of the same questions. No torch.

Two correlations: over all questions, and within contexts (each score less the mean of its context), which is what a
policy can learn from: that one post is easier to ask about than another teaches nothing. Intervals are by bootstrap
over groups (posts).
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from askwell.statistics import Estimate, correlation_interval


def deviation(scores: Sequence[float]) -> float:
    """Their standard deviation."""
    return float(np.std(np.asarray(scores, dtype=np.float64)))


def figures(
    names: Sequence[str],
    shares: Sequence[float],
    scores: Sequence[Sequence[float]],
    *,
    contexts: Sequence[str],
    groups: Sequence[str],
    unscored: int,
) -> dict[str, Any]:
    """`scores` holds a column a model, a row a question, whose context and group are given."""
    within = [centred(column, contexts) for column in scores]
    sizes = defaultdict(int)
    for context in contexts:
        sizes[context] += 1
    several = [place for place, context in enumerate(contexts) if sizes[context] > 1]
    pairs = []
    for first in range(len(names)):
        for second in range(first + 1, len(names)):
            inside = None
            if several:
                one, other = ([within[model][place] for place in several] for model in (first, second))
                inside = shown(correlation_interval(one, other, [groups[place] for place in several]))
            pairs.append(
                {
                    "first": names[first],
                    "second": names[second],
                    "all": shown(correlation_interval(scores[first], scores[second], groups)),
                    "within": inside,
                }
            )
    models = [
        {"name": name, "weight": share, "mean": float(np.mean(column)), "deviation": deviation(column)}
        for name, share, column in zip(names, shares, scores, strict=True)
    ]
    return {
        "questions": len(contexts),
        "contexts": len(sizes),
        "groups": len(set(groups)),
        "unscored": unscored,
        "models": models,
        "correlations": pairs,
    }


def centred(column: Sequence[float], contexts: Sequence[str]) -> list[float]:
    """Each score less the mean of its context."""
    sums: dict[str, list[float]] = defaultdict(list)
    for score, context in zip(column, contexts, strict=True):
        sums[context].append(score)
    return [score - sum(sums[context]) / len(sums[context]) for score, context in zip(column, contexts, strict=True)]


def shown(estimate: Estimate) -> dict[str, float | None]:
    """A correlation with its interval, as JSON has it."""
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def headline(found: dict[str, Any]) -> str:
    """One line."""
    values = [(pair["within"] or pair["all"])["value"] for pair in found["correlations"]]
    known = [value for value in values if value is not None]
    said = f"correlations from {min(known):.2f} to {max(known):.2f}" if known else "no correlations"
    return f"{len(found['models'])} on {found['questions']} questions ({found['unscored']} unscored), {said}"


def markdown(found: dict[str, Any]) -> str:
    """The report as a page."""
    lines = [
        "# Reward models",
        "",
        f"{found['questions']} questions of the training data in {found['contexts']} contexts of {found['groups']} "
        f"groups; {found['unscored']} unscored.",
        "",
        "| model | weight | mean | deviation |",
        "|---|---|---|---|",
        *(f"| {m['name']} | {m['weight']:.3f} | {m['mean']:.3f} | {m['deviation']:.3f} |" for m in found["models"]),
    ]
    if found["correlations"]:
        lines += [
            "",
            "Correlations of their scores, with 95 % intervals by bootstrap over groups: over all questions, and "
            "within contexts, which is what a policy can learn from.",
            "",
            "| models | all | within contexts |",
            "|---|---|---|",
            *(
                f"| {p['first']}, {p['second']} | {interval(p['all'])} | {interval(p['within'])} |"
                for p in found["correlations"]
            ),
        ]
    return "\n".join(lines) + "\n"


def interval(entry: dict[str, float | None] | None) -> str:
    """0.52 (0.40 to 0.61), or a dash where it is not defined."""
    if entry is None or entry["value"] is None:
        return "–"
    if entry["low"] is None or entry["high"] is None:
        return f"{entry['value']:.2f}"
    return f"{entry['value']:.2f} ({entry['low']:.2f} to {entry['high']:.2f})"
