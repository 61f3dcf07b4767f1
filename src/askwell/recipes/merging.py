"""Recipes that make one model of several."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator
from typing_extensions import Self

from askwell.recipes.fields import Recipe


class MergeRecipe(Recipe):
    """Several policies, or reward models, to one by averaging their weights (policy fusion, reward fusion)."""

    parts: tuple[Path, ...] = Field(min_length=2)
    """Run directories of `askwell train`, or checkpoints, all of one base: whole models, or LoRA adapters."""
    weights: tuple[Annotated[float, Field(ge=0)], ...] = ()
    """What each part counts, in the order of `parts`, divided by their sum; none given: all alike."""
    leave_out: Path | None = None
    """One of the parts, to average the others without it."""

    @model_validator(mode="after")
    def _weights_are_of_the_parts(self) -> Self:
        if len(set(self.parts)) < len(self.parts):
            raise ValueError(f"parts: {', '.join(map(str, self.parts))} names one twice; give it a weight instead")
        if self.weights and len(self.weights) != len(self.parts):
            raise ValueError(f"weights: {len(self.weights)} for {len(self.parts)} parts; give one for each, or none")
        if self.leave_out is not None and self.leave_out not in self.parts:
            raise ValueError(f"leave_out: {self.leave_out} is none of the parts {', '.join(map(str, self.parts))}")
        if len(self.shares) < 2 or not sum(self.shares.values()):
            raise ValueError("parts: fewer than two would be left to average; name more, or leave none out")
        return self

    @property
    def shares(self) -> dict[Path, float]:
        """What each part that is not left out counts; they sum to 1."""
        chosen = dict(zip(self.parts, self.weights or (1.0,) * len(self.parts), strict=True))
        chosen = {part: weight for part, weight in chosen.items() if part != self.leave_out}
        total = sum(chosen.values())
        return {part: weight / total if total else 0.0 for part, weight in chosen.items()}
