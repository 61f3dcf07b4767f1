"""Recipes that measure a policy."""

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from askwell.recipes.endpoint import Endpoint
from askwell.recipes.fields import Recipe, Section, StopMarker
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


WHO = ("base_url", "model", "extra_body")
"""What of an endpoint says who answers there."""


class System(Section):
    """Somebody who asks the next question: a checkpoint, an endpoint's model, or what another run holds."""

    policy: str = ""
    """Checkpoint directory or Hugging Face name; replies are drawn in this process."""
    endpoint: Endpoint | None = None
    """Or an endpoint; temperature, top_p and longest reply are its own."""
    run: Path | None = None
    """Or another run's replies at the same contexts: of `askwell evaluate questions`, of `askwell evaluate turns`, or
    the questions of another `askwell ingest --source askdocs`."""
    named: str = ""
    """Which system of that run of `askwell evaluate questions`."""
    prompt: str = ""
    """System prompt of a policy or an endpoint: a file of `askwell/texts/prompts` by name, or empty for none."""
    samples: int = Field(default=1, ge=1)
    """Replies drawn at each context; of several the best is taken (best of n)."""
    reward_model: Path | None = None
    """Run directory of `askwell train --method reward` that chooses among samples; unset: the judge, by the first
    attribute, so that what it chooses pleases it."""
    temperature: float = Field(default=0.0, ge=0)
    """Sampling temperature of a policy; 0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling of a policy."""
    max_new_tokens: int = Field(default=64, ge=1)
    """Longest reply of a policy."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("policy", "endpoint", "run") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"a system is one of policy, endpoint and run; given: {', '.join(given) or 'none'}")
        if self.reward_model is not None and self.samples == 1:
            raise ValueError("reward_model: among one sample there is nothing to choose; give `samples`")
        if self.run is not None and self.samples > 1:
            raise ValueError(f"samples {self.samples}: of another run's replies there is nothing to draw; leave it out")
        drawn = self.temperature if self.endpoint is None else self.endpoint.temperature
        if self.samples > 1 and drawn == 0:
            raise ValueError(f"samples {self.samples} at temperature 0 are all the same; raise the temperature")
        return self


class EvaluateQuestionsRecipe(Recipe):
    """Win-rates: several systems' questions for the same contexts, compared by a judge in both orders."""

    input: Path
    """Run directory of `askwell ingest --source askdocs`, of `askwell label`, or of question sets."""
    human: bool = True
    """Let the question that somebody asked there take part, as the system `human`."""
    candidates: tuple[str, ...] = ()
    """Of question sets: candidates that take part, by their origin (`rewritten`) or origin and attribute
    (`enhanced/clarity`)."""
    systems: dict[str, System] = {}
    """Who else takes part, by name: {sft: {policy: outputs/sft/checkpoint}}."""
    reference: str = ""
    """System that every other one is compared with; empty: every two are compared."""
    judge: Endpoint
    """Whose model judges."""
    second_judge: Endpoint | None = None
    """Another one, for the agreement of the two on the same pairs."""
    attributes: tuple[str, ...] = ("overall",)
    """What is judged, each by itself: files of `askwell/texts/attributes` by name, or paths."""
    split: Split = "test"
    """Which split to evaluate."""
    limit: int | None = Field(default=None, ge=1)
    """Contexts at most, drawn by hash."""
    stop_marker: StopMarker = "<stop />"
    """What a policy says to stop; a reply that stops is no question and unscored."""
    batch: int = Field(default=256, ge=1)
    """Contexts at which a policy's replies are drawn at once; with more, more is lost at a cut."""
    compat: Literal["dropped_losses"] | None = None
    """`dropped_losses` shows beside each win-rate what ALFA's published code reports, which leaves out of the mean
    what was lost in both orders."""
    shown: int = Field(default=20, ge=0)
    """Comparisons printed in the report."""

    @model_validator(mode="after")
    def _names(self) -> Self:
        names = self.names
        if bad := [name for name in self.systems if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name)]:
            raise ValueError(f"systems: {bad[0]!r} must be letters, digits, `_`, `-` and `.`; it names a file")
        if len(set(names)) < len(names) or len(names) < 2:
            raise ValueError(
                f"two systems at least are compared, each named once; there are: {', '.join(names) or 'none'}; name "
                "one with `--systems.NAME.policy DIR`, `--systems.NAME.endpoint.model NAME` or `--systems.NAME.run DIR`"
            )
        if self.reference and self.reference not in names:
            raise ValueError(f"reference {self.reference!r} is no system; systems: {', '.join(names)}")
        if not self.attributes:
            raise ValueError("attributes: name one at least, e.g. `--attributes overall`")
        second = self.second_judge
        if second and all(getattr(second, name) == getattr(self.judge, name) for name in WHO):
            raise ValueError(
                f"second_judge {second.model!r} is the judge itself, which agrees with itself; name another model"
            )
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """All who take part, in the order of the report."""
        return (*(["human"] if self.human else []), *self.candidates, *self.systems)
