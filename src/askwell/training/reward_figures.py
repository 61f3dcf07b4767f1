"""How good a reward model is on held-out preferences: accuracy, calibration, and whether it goes by length. No torch.

* accuracy: share of preferences whose better candidate has the higher reward (equal rewards are half right), by
  attribute and by direction, with intervals over groups;
* calibration: sigmoid of the margin is the model's probability that it is right; expected calibration error over ten
  bins of equal width of that probability (Guo et al., 2017);
* length: correlation of reward and length in tokens among the candidates of a set, and accuracy where the better one is
  the shorter and where it is the longer.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from askwell.records import Direction
from askwell.statistics import Estimate, correlation_interval, mean_interval
from askwell.training.examples import Candidates

BINS = 10
LENGTHS = ("better_shorter", "better_longer", "equal_length")


class Judged(NamedTuple):
    """A preference and what a reward model makes of it: the better one's reward less the worse one's."""

    attribute: str
    direction: Direction | None
    group: str
    margin: float
    longer: int
    """Tokens that the better one has more than the worse one."""

    @property
    def right(self) -> float:
        """1, 0, or a half where the rewards are equal."""
        return 0.5 if self.margin == 0 else float(self.margin > 0)


def judged_of(row: Candidates, rewards: Sequence[float]) -> list[Judged]:
    """The preferences of a question set whose candidates have these rewards."""
    lengths = [len(piece.scored) for piece in row.pieces]
    return [
        Judged(
            preference.attribute,
            row.record.direction(preference),
            row.record.group,
            rewards[better] - rewards[worse],
            lengths[better] - lengths[worse],
        )
        for preference, (better, worse) in zip(row.record.preferences, row.pairs, strict=True)
    ]


def figures(rows: Sequence[Candidates], rewards: Sequence[Sequence[float]], *, unscored: int) -> dict[str, Any]:
    """The content of report.json; `unscored` preferences had no room in the model."""
    judged = [one for row, each in zip(rows, rewards, strict=True) for one in judged_of(row, each)]
    return {
        "preferences": {"scored": len(judged), "unscored": unscored},
        "accuracy": {"all": accuracy(judged), **by(judged, lambda one: one.attribute)},
        "accuracy_by_direction": by(judged, lambda one: one.direction or "other"),
        "accuracy_by_attribute_and_direction": by(judged, lambda one: f"{one.attribute} {one.direction or 'other'}"),
        "margin": mean_interval([one.margin for one in judged], [one.group for one in judged])._asdict(),
        "calibration": calibration(judged),
        "length": {
            "correlation": length_correlation(rows, rewards)._asdict(),
            **{name: accuracy([one for one in judged if side(one) == name]) for name in LENGTHS},
        },
    }


def accuracy(judged: Sequence[Judged]) -> dict[str, Any]:
    """As {value, low, high, scored, unscored}."""
    return mean_interval([one.right for one in judged], [one.group for one in judged])._asdict()


def by(judged: Iterable[Judged], name: Callable[[Judged], str]) -> dict[str, dict[str, Any]]:
    """Accuracy of each kind."""
    kinds: dict[str, list[Judged]] = {}
    for one in judged:
        kinds.setdefault(name(one), []).append(one)
    return {kind: accuracy(kinds[kind]) for kind in sorted(kinds)}


def side(one: Judged) -> str:
    """Whether the better one is the shorter or the longer."""
    return LENGTHS[0] if one.longer < 0 else LENGTHS[1] if one.longer > 0 else LENGTHS[2]


def calibration(judged: Sequence[Judged]) -> dict[str, Any]:
    """Expected calibration error, None of nothing, and the bins from even odds to certainty that it is made of."""
    bins: list[list[Judged]] = [[] for _ in range(BINS)]
    for one in judged:
        bins[min(BINS - 1, int((sure(one) - 0.5) * 2 * BINS))].append(one)
    shown = [
        {
            "probability": math.fsum(map(sure, some)) / len(some),
            "right": math.fsum(one.right for one in some) / len(some),
            "preferences": len(some),
        }
        for some in bins
        if some
    ]
    off = [abs(each["probability"] - each["right"]) * each["preferences"] for each in shown]
    return {"error": math.fsum(off) / len(judged) if judged else None, "bins": shown}


def sure(one: Judged) -> float:
    """The probability that the model gives to the candidate which it prefers, in [0.5, 1]."""
    return 1 / (1 + math.exp(-min(abs(one.margin), 700)))


def length_correlation(rows: Sequence[Candidates], rewards: Sequence[Sequence[float]]) -> Estimate:
    """Of reward and length, each less its set's mean: what a context adds to all its candidates says nothing."""
    lengths, scores, groups = [], [], []
    for row, each in zip(rows, rewards, strict=True):
        sizes = [len(piece.scored) for piece in row.pieces]
        lengths += [size - sum(sizes) / len(sizes) for size in sizes]
        scores += [score - sum(each) / len(each) for score in each]
        groups += [row.record.group] * len(sizes)
    return correlation_interval(lengths, scores, groups)


def markdown(found: Mapping[str, Any]) -> str:
    """The figures for a person to read."""
    lines = [
        "# Reward model",
        "",
        f"{headline(found)}. Intervals: 95 %, bootstrap over groups.",
        "",
        "| accuracy | | 95 % | preferences |",
        "|---|---|---|---|",
        *(line(name, each) for name, each in found["accuracy"].items()),
        *(line(name, each) for name, each in found["accuracy_by_direction"].items()),
        *(line(name.replace("_", " "), found["length"][name]) for name in LENGTHS),
        "",
        f"Expected calibration error {number(found['calibration']['error'])}. Correlation of reward and length among "
        f"the candidates of a set {number(found['length']['correlation']['value'])}. E: enhanced, O: original, C: "
        "corrupted.",
    ]
    return "\n".join(lines) + "\n"


def headline(found: Mapping[str, Any]) -> str:
    """Accuracy, and of how many preferences."""
    counts = found["preferences"]
    return (
        f"accuracy {number(found['accuracy']['all']['value'])} on {counts['scored']} held-out preferences "
        f"({counts['unscored']} unscored)"
    )


def line(name: str, each: Mapping[str, Any]) -> str:
    """A row of the table."""
    cells = name.replace("|", "\\|"), number(each["value"]), f"{number(each['low'])} to {number(each['high'])}"
    return f"| {' | '.join(cells)} | {each['scored']} |"


def number(value: float | None) -> str:
    """Three digits, or a dash."""
    return "-" if value is None else f"{value:.3f}"
