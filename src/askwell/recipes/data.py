"""Recipes that make records of conversations and threads."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from askwell.recipes.endpoint import Endpoint
from askwell.recipes.fields import Recipe, Section, StopMarker


class Shares(Section):
    """Shares of the groups that go to dev and test; the rest is train."""

    dev: float = Field(default=0.05, ge=0, lt=1)
    """Share of dev, in [0, 1)."""
    test: float = Field(default=0.15, ge=0, lt=1)
    """Share of test, in [0, 1)."""

    @model_validator(mode="after")
    def _leave_some_train(self) -> Self:
        if self.dev + self.test >= 1:
            raise ValueError(f"dev {self.dev} + test {self.test} leave nothing to train on; their sum must be below 1")
        return self


class IngestRecipe(Recipe):
    """Public formats or your own logs to conversations, or forum threads to questions in context; split by group."""

    free = frozenset({"max_rejected"})

    source: Literal["chat", "sgd", "realmedconv", "mts_dialog", "askdocs"]
    """Format of the input; `chat` is JSONL of OpenAI-style messages with optional id, group, goal, outcome; `askdocs`
    JSONL of follow-up questions with their posts."""
    input: Path
    """A file, or a folder whose files of that format are all read, in order of their names."""
    split: Shares = Shares()
    """Shares of dev and test, by hash of the group."""
    max_rejected: float = Field(default=0.01, ge=0, le=1)
    """Share of rejected conversations (askdocs: questions) above which the stage fails."""
    limit: int | None = Field(default=None, ge=1)
    """Read at most this many conversations (askdocs: questions)."""
    redact: bool = False
    """Replace names, contacts, identifiers, dates, addresses and ages over 89 by placeholders such as [NAME]."""
    draw: int | None = Field(default=None, ge=1)
    """For askdocs: keep this many questions, drawn evenly from groups of quality as ALFA does (expert or not, with a
    conclusion or not, thanked or not), and for test only such with a conclusion; unset: all."""

    @model_validator(mode="after")
    def _draw_questions(self) -> Self:
        if self.draw is not None and self.source != "askdocs":
            raise ValueError(
                f"draw goes with source 'askdocs', whose groups of quality it is about, not {self.source!r}"
            )
        return self


class LabelRecipe(Recipe):
    """Hindsight: conversations to turns with targets (what the expert still found out, and whether it stopped)."""

    input: Path
    """Run directory of `askwell ingest`."""
    truth: Literal["acts", "ending", "llm"] = "acts"
    """`acts`: exact truth from annotated dialogue acts. `ending`: the decision alone, from where the log ends. `llm`:
    the same decision, and facts that the endpoint's model reads in what followed."""
    compat: Literal["as_released"] | None = None
    """`as_released` reproduces the published splitter: contexts of the current round only, a second stop turn."""
    limit: int | None = Field(default=None, ge=1)
    """Label at most this many conversations, the first ones: for a look at what an endpoint makes of them."""
    endpoint: Endpoint | None = None
    """Whose model reads the facts, for `truth: llm`."""
    extraction: Literal["dialogue", "turn"] = "dialogue"
    """`dialogue`: one call a conversation, sets of facts that can only shrink from turn to turn. `turn`: a call a turn,
    as in the paper."""
    domain: str = "medicine"
    """What counts as a fact: a file of `askwell/texts/domains` by name."""

    @model_validator(mode="after")
    def _endpoint_for_llm(self) -> Self:
        if (self.truth == "llm") != (self.endpoint is not None):
            raise ValueError(
                "truth 'llm' needs an endpoint, and no other truth takes one; give `--truth llm --endpoint.model NAME` "
                "and where it is, `--endpoint.base_url URL`"
            )
        if self.truth == "llm" and self.compat:
            raise ValueError("compat 'as_released' goes with truth 'ending' alone; leave it out")
        return self


class ContrastRecipe(Recipe):
    """Turns to question sets: what the expert did against utterances that are irrelevant to the dialogue."""

    input: Path
    """Run directory of `askwell label`."""
    rivals: int = Field(default=1, ge=1)
    """Irrelevant utterances a turn, drawn from dialogues about other services where services are known."""
    stop_marker: StopMarker = "<stop />"
    """What a policy should say where the expert stopped."""
