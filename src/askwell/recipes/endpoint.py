"""Where a language model answers, and what it may cost."""

from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator
from typing_extensions import Self

from askwell.recipes.fields import Section


class Prices(Section):
    """What an endpoint charges, in any currency."""

    prompt: float = Field(default=0.0, ge=0)
    """A million tokens of prompts."""
    completion: float = Field(default=0.0, ge=0)
    """A million tokens of answers."""


class Caps(Section):
    """What a run may spend at most; reached, what is left is not asked, and the run says so."""

    calls: int | None = Field(default=None, ge=1)
    """Calls."""
    tokens: int | None = Field(default=None, ge=1)
    """Tokens, of prompts and answers."""
    money: float | None = Field(default=None, gt=0)
    """Money, in the currency of `prices`."""


CLINIC = "clinic:"
"""The address of the simulated clinic, which is no server but plays every role in this process."""


LOCAL = "local:"
"""The address of a checkpoint that is loaded in this process and answers as a server would."""


class Endpoint(Section):
    """An OpenAI-compatible endpoint: a server on this machine, one in the cellar, or a commercial one."""

    free = frozenset(
        ("key_variable", "concurrency", "timeout", "patience", "prices", "budget", "store", "consent", "max_unscored")
    )

    base_url: str = "http://localhost:8000/v1"
    """Where it is; nothing is sent anywhere else. In this process, without a server: `local:` is the checkpoint that
    `model` names, `clinic:` the simulated clinic."""
    model: str
    """The model's name there; for `local:` a checkpoint directory or Hugging Face name; for `clinic:` `clinic`, or the
    body systems that it knows alone (`respiratory+skin`)."""
    key_variable: str = ""
    """Environment variable that holds the key; empty: none is sent."""
    concurrency: int = Field(default=256, ge=1)
    """Calls in flight at most; fewer where the endpoint throttles or slows down."""
    temperature: float = Field(default=0.0, ge=0)
    """Sampling temperature."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling."""
    max_tokens: int = Field(default=1024, ge=1)
    """Longest answer."""
    structured: Literal["auto", "json_schema", "json_object", "text"] = "auto"
    """How structured answers are asked for; `auto` finds out what the endpoint takes."""
    extra_body: dict[str, Any] = {}
    """More fields of the request's body; null takes one out. `local:` knows `seed` alone."""
    timeout: float = Field(default=600.0, gt=0)
    """Seconds that an attempt may take at most; less once the endpoint is known to be faster."""
    patience: float = Field(default=600.0, gt=0)
    """Seconds without any answer after which the run ends."""
    prices: Prices = Prices()
    """What it charges."""
    budget: Caps = Caps()
    """What the run may spend."""
    store: Path | None = None
    """SQLite file of all answers received; unset: `answers.sqlite` beside the run directory, for all runs there."""
    consent: str = ""
    """Host of another machine to which text may go that was not redacted."""
    max_unscored: float = Field(default=0.05, ge=0, le=1)
    """Share of items without a usable answer above which the stage stops."""

    @model_validator(mode="after")
    def _plain_address(self) -> Self:
        parts = urlsplit(self.base_url)
        plain = parts.scheme in ("http", "https") and parts.hostname and not parts.query and not parts.username
        if not plain and self.base_url not in (CLINIC, LOCAL):
            raise ValueError(
                f"endpoint.base_url {self.base_url!r} must be http(s)://HOST[:PORT]/PATH, without a user or query; "
                "a key belongs into the variable that endpoint.key_variable names"
            )
        if taken := {"model", "messages", "stream", "n", "response_format"} & set(self.extra_body):
            raise ValueError(f"endpoint.extra_body must not hold {', '.join(sorted(taken))}, which askwell sets itself")
        return self

    @model_validator(mode="after")
    def _plain_sampling(self) -> Self:
        if self.base_url != LOCAL:
            return self
        if self.structured not in ("auto", "text"):
            raise ValueError(
                f"endpoint.structured {self.structured!r} cannot be enforced by `{LOCAL}`, which samples freely; leave "
                "it out: answers are read leniently and asked for once more where they cannot be read"
            )
        if any(name != "seed" or type(value) is not int for name, value in self.extra_body.items()):
            raise ValueError(
                f"endpoint.extra_body {self.extra_body!r}: `{LOCAL}` knows `seed` alone, a whole number; temperature, "
                "top_p and max_tokens are fields of the endpoint"
            )
        return self
