"""Recipes that make question sets, and the attributes that they are about."""

from pathlib import Path

from pydantic import Field, model_validator
from typing_extensions import Self

from askwell.attributes import ALFA
from askwell.recipes.endpoint import Endpoint
from askwell.recipes.fields import Recipe


class SynthesizeRecipe(Recipe):
    """Threads to question sets: each question rewritten better and worse along attributes, confirmed by a judge."""

    input: Path
    """Run directory of `askwell ingest --source askdocs`."""
    attributes: tuple[str, ...] = ALFA
    """Along which attributes: names of `askwell/texts/attributes`, or TOML files of your own. All stand in the prompt's
    first part, which is the same for all calls; with other attributes every call is another one."""
    endpoint: Endpoint
    """Whose model rewrites. ALFA samples at temperature 1, and the judge at 0."""
    judge: Endpoint | None = None
    """Whose model ranks the variants; unset: the same. Another model does not prefer its own words."""
    outcome: bool = False
    """Show the enhancing rewriter what it turned out to be, as ALFA does; what gives it away is left out."""
    profiles: Path | None = None
    """JSONL of {"group": "...", "profile": "..."}: what is known of a person stands before all that was said, for
    attributes such as personal_interest."""
    near: float = Field(default=0.95, gt=0, le=1)
    """Likeness of two wordings, in [0, 1], from which they count as the same question: nothing to prefer."""
    limit: int | None = Field(default=None, ge=1)
    """Take at most this many questions, the first ones: for a look at what the endpoint makes of them."""

    @model_validator(mode="after")
    def _some_attributes(self) -> Self:
        if not self.attributes:
            raise ValueError("attributes: name one or more, such as `--attributes clarity,focus`")
        return self


class ProposeRecipe(Recipe):
    """Attributes for another domain, proposed by an endpoint's model as files for a person to edit."""

    goal: str = Field(min_length=1)
    """What the questions are for, in a sentence: "find out why a customer's router loses its connection"."""
    examples: Path
    """Questions that were asked, good and bad, one a line: as they are, or as JSON with `question` or `text` in it."""
    endpoint: Endpoint
    """Whose model proposes."""
    count: int = Field(default=6, ge=1, le=20)
    """How many to ask for."""
    shown: int = Field(default=50, ge=1)
    """Examples that are shown at most, drawn at random."""
