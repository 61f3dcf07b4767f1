"""The plot of a study: how the reward of rollouts grows while policies are trained."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

SMOOTHED = 15
"""Draws that a point of a curve is the mean of."""


def draw(rows: Mapping[str, Path], file: Path) -> bool:
    """A curve a row: mean reward of the rollouts at each draw, smoothed, the mean over seeds with their range.

    `rows` maps a name to the folder of its runs. False where there is none to draw.
    """
    found = {name: [rewards(run) for run in sorted(folder.iterdir()) if run.is_dir()] for name, folder in rows.items()}
    if not found:
        return False
    from matplotlib.figure import Figure  # an extra, and slow to load

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, runs in found.items():
        steps = range(min(map(len, runs)))
        mean = [sum(curve[step] for curve in runs) / len(runs) for step in steps]
        [line] = axes.plot(steps, mean, label=f"{name} ({len(runs)})")
        if len(runs) > 1:
            low, high = ([end(curve[step] for curve in runs) for step in steps] for end in (min, max))
            axes.fill_between(steps, low, high, alpha=0.2, color=line.get_color())
    axes.set_xlabel("draws of rollouts")
    axes.set_ylabel("mean of R_s (1 + 2 R_a) + Omega")
    axes.grid(alpha=0.3)
    axes.legend(title="row (seeds)", fontsize="small")
    figure.savefig(file, dpi=120)
    return True


def rewards(run: Path) -> list[float]:
    """Mean reward at each draw of a training run, smoothed: by the paper's formula, whatever was rewarded."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return smoothed([line["total"] for line in lines if line.get("total") is not None])


def smoothed(values: Sequence[float]) -> list[float]:
    """Means over windows that end at each value."""
    return [
        sum(part) / len(part) for end in range(1, len(values) + 1) if (part := values[max(0, end - SMOOTHED) : end])
    ]
