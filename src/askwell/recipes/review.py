"""Recipes by which people judge."""

from pathlib import Path

from pydantic import Field, model_validator
from typing_extensions import Self

from askwell.recipes.fields import Recipe


class ReviewSampleRecipe(Recipe):
    """Sheets on which people rank systems' questions, blind and shuffled: a spreadsheet and a page for each rater."""

    input: Path
    """Run directory of `askwell evaluate questions`: its contexts and replies."""
    contexts: int = Field(default=100, ge=1)
    """Contexts, drawn at random."""
    systems: int = Field(default=5, ge=2, le=26)
    """Questions a context at most, of as many systems, each system about as often."""
    sheets: int = Field(default=4, ge=1)
    """Raters, each with a sheet."""
    each: int = Field(default=2, ge=1)
    """Sheets that a context is on."""
    screening: Path | None = None
    """JSONL of contexts with known answers (Screening), which stand unmarked among the others on every sheet."""

    @model_validator(mode="after")
    def _enough_sheets(self) -> Self:
        if self.each > self.sheets:
            raise ValueError(f"each {self.each}: a context cannot be on more than all {self.sheets} sheets")
        return self


class ReviewReadRecipe(Recipe):
    """Filled sheets to win-rates: who failed the screening is left out, and people are compared with the judge."""

    input: Path
    """Run directory of `askwell review sample`."""
    filled: Path
    """Folder of the filled sheets, CSV files of any name, a rater each."""
    passing: float = Field(default=0.5, ge=0, le=1)
    """Share of the screening's points that a rater must reach."""
    judged: Path | None = None
    """Run directory of `askwell evaluate questions` to compare with; unset: the one that the sheets were made of."""
    attribute: str = "overall"
    """Which of its attributes people are compared with."""
