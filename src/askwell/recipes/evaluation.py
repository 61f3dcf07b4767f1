"""Recipes that measure a policy."""

from pathlib import Path

from pydantic import Field

from askwell.recipes.endpoint import Endpoint
from askwell.recipes.fields import Recipe, StopMarker
from askwell.records import Split


class EvaluateTurnsRecipe(Recipe):
    """Offline metrics of a policy at logged turns: WA, WA-GH, WC, WS, AA, FC, TR and what they leave out."""

    free = frozenset({"max_unscored"})

    input: Path
    """Run directory of `askwell label`."""
    policy: str
    """Checkpoint directory or Hugging Face name of the policy."""
    grader: Path | None = None
    """Run directory of `askwell grader`: the one that evaluates."""
    judge: Endpoint | None = None
    """Or an endpoint whose model evaluates, for truths in words (`label --truth llm`)."""
    second_grader: Path | None = None
    """Another grader, for the agreement of the two on the same replies."""
    reader: str | None = None
    """Checkpoint of a language model that the policy never saw: perplexity of the questions under it."""
    split: Split = "test"
    """Which split to evaluate."""
    limit: int | None = Field(default=None, ge=1)
    """Evaluate at most this many conversations, drawn by hash."""
    samples: int = Field(default=1, ge=1)
    """Replies drawn a turn."""
    temperature: float = Field(default=1.0, ge=0)
    """Sampling temperature; 0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling."""
    max_new_tokens: int = Field(default=64, ge=1)
    """Longest reply."""
    stop_marker: StopMarker = "<stop />"
    """What the policy says to stop."""
    prompt: str = ""
    """System prompt: a file of `askwell/texts/prompts` by name, or empty for none; as in training."""
    batch: int = Field(default=256, ge=1)
    """Turns whose replies are drawn at once; more do not take more memory, but more is lost at a cut."""
    shown: int = Field(default=30, ge=0)
    """Sampled turns printed in the report."""
    max_unscored: float = Field(default=0.5, ge=0, le=1)
    """Share of unscored questions above which the stage fails."""
