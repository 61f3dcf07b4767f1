"""Recipes of the simulated clinic."""

from typing import Annotated, Literal

from pydantic import Field

from askwell.recipes.fields import Recipe

SkillName = Literal["expert", "average", "novice", "mixed"]
"""How well people of the clinic ask."""


class ClinicLogsRecipe(Recipe):
    """Experts' conversations of the simulated clinic, as people have them on file. Fiction throughout."""

    conversations: int = Field(default=2000, ge=1)
    """How many."""
    skill: SkillName = "expert"
    """How well the experts ask; `mixed` takes turns."""
    systems: tuple[str, ...] = ()
    """Body systems whose conditions there are: files of `askwell/texts/clinic` by name; empty for all."""


class ClinicThreadsRecipe(Recipe):
    """Threads of the simulated clinic's forum, a follow-up question a line, for `ingest --source askdocs`. Fiction."""

    posts: int = Field(default=2000, ge=1)
    """How many; below each stand one to three threads."""
    skill: SkillName = "mixed"
    """How well those who answer ask; `mixed` draws one of the three for each thread."""
    systems: tuple[str, ...] = ()
    """Body systems whose conditions there are: files of `askwell/texts/clinic` by name; empty for all."""


class ClinicServeRecipe(Recipe):
    """The simulated clinic as an OpenAI-compatible endpoint on this machine. Fiction throughout."""

    port: int = Field(default=8765, ge=0, le=65535)
    """Where it listens, on 127.0.0.1; 0 takes a free one."""
    errors: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}
    """Share of requests that a role gets wrong, by the name of its prompt: {grade: 0.1}."""
    biases: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}
    """Share of pairs that the judge of questions decides by place or by length alone: {order: 0.2, length: 0.1}."""
    faults: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}
    """Share of requests that meet a fault: {throttle: 0.3, error: 0.1, hang: 0.01}."""
    latency: float = Field(default=0.0, ge=0)
    """Seconds before an answer, at the median."""
    tail: float = Field(default=0.0, ge=0)
    """Sigma of a lognormal factor on the latency."""
    slots: int | None = Field(default=None, ge=1)
    """Requests served at once; one more is throttled."""
    context: int | None = Field(default=None, ge=1)
    """Tokens of a prompt above which it is refused."""
