"""One pydantic class per command: what a YAML recipe or a flag may say. No torch.

A recipe file names its command (`command: train`) and its fields; dotted overrides on the command line win
(`--optimizer.learning_rate 1e-5`). The docstring under a field is its only description: `askwell COMMAND --help`
and `docs/cli.md` print it. Values are validated once, here; stages trust them.
"""

import difflib
import re
import types
import typing
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from typing_extensions import Self

from askwell.errors import DataError, RecipeError
from askwell.records import Split

T = TypeVar("T", bound="Recipe")


class Section(BaseModel):
    """A group of fields inside a recipe."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False, defer_build=True
    )
    free: ClassVar[frozenset[str]] = frozenset()
    """Fields that a cut run may be resumed with other values of: they say how it is done, or when it is given up, and
    leave what comes out as it is."""


class Recipe(Section):
    """What every command takes."""

    output: Path
    """Run directory to create; an unfinished run of the same recipe in it is resumed."""
    seed: int = 0
    """Seed of everything that is drawn at random."""


def one_line(marker: str) -> str:
    """A stop marker that a reply's last line can be."""
    if not marker.strip() or marker != marker.strip() or len(marker.splitlines()) != 1:
        raise ValueError(f"{marker!r} must be one line without white space around it")
    return marker


StopMarker = Annotated[str, AfterValidator(one_line)]


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
    """The model's name there; for `local:` a checkpoint directory or Hugging Face name."""
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


class ScratchModel(Section):
    """A small Qwen2-style transformer with a tokenizer trained on the corpus, for machines without weights."""

    vocabulary: int = Field(default=4096, ge=300)
    """Tokens of the byte-level BPE."""
    hidden: int = Field(default=192, ge=8)
    """Width of the residual stream; a multiple of `heads`."""
    layers: int = Field(default=4, ge=1)
    """Transformer blocks."""
    heads: int = Field(default=4, ge=1)
    """Attention heads."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden % (2 * self.heads):
            raise ValueError(f"hidden {self.hidden} must be an even multiple of heads {self.heads}")
        return self

    @property
    def mlp(self) -> int:
        """Width of the gated feed-forward layer: 8/3 of `hidden`, rounded up to a multiple of 16."""
        return -(-self.hidden * 8 // 3 // 16) * 16

    @property
    def parameters(self) -> int:
        """Weights of the model where the corpus fills its vocabulary; the head shares the embedding's."""
        attention = 4 * self.hidden**2 + 3 * self.hidden
        return (
            self.vocabulary * self.hidden
            + self.hidden
            + self.layers * (attention + 3 * self.hidden * self.mlp + 2 * self.hidden)
        )


class Lora(Section):
    """Low-rank adapters instead of full weights (PEFT)."""

    rank: int = Field(default=16, ge=1)
    """Rank of the adapters."""
    alpha: int = Field(default=32, ge=1)
    """Scale; adapters are multiplied by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout before the adapters."""
    targets: tuple[str, ...] = ()
    """Names of the modules that get an adapter; none named: every linear layer but the head."""


class Optimizer(Section):
    """AdamW and its schedule."""

    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate (1e-3 suits scratch models, 1e-5 full weights of a pretrained one, 1e-4 LoRA)."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps in which the rate rises from 0."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the rate falls after the warm-up."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled weight decay."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""


class Dpo(Section):
    """Direct preference optimization against the starting policy (Rafailov et al., 2023)."""

    beta: float = Field(default=0.1, gt=0)
    """How dearly a departure from the starting policy is paid."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """Share of the preferences taken to be the wrong way round (conservative DPO)."""
    attributes: tuple[str, ...] = ()
    """Train on the preferences in these attributes; none named: all."""


class Reward(Section):
    """What a rollout is worth: Learn-to-Ask's reward (section 4.2.5), its ablations, and optional terms."""

    mode: Literal["both", "without_content", "without_decision", "sum"] = "both"
    """`both`: R_s (1 + beta R_a) + Omega. `without_content`: (1 + beta) R_s + Omega. `without_decision`: beta R_a +
    Omega, on turns where the expert asks. `sum`: R_s + R_a + Omega."""
    beta: float = Field(default=2.0, ge=0)
    """Weight of R_a."""
    known_penalty: float = Field(default=0.0, ge=0)
    """Taken off a question that asks for what the context already says."""
    question_cost: float = Field(default=0.0, ge=0)
    """Taken off every reply that asks."""
    required: tuple[str, ...] = ()
    """Facts that must be known before a stop, by their names in the turns' facts."""
    missing_penalty: float = Field(default=1.0, ge=0)
    """Taken off a stop for each required fact that is still to be found out."""


class Rollouts(Section):
    """Reinforcement learning from groups of rollouts (methods grpo, gspo, cispo, rloo)."""

    grader: Path | None = None
    """Run directory of `askwell grader`: the one that rewards. Keep another one for evaluation."""
    judge: Endpoint | None = None
    """Or an endpoint whose model rewards, for truths in words (`label --truth llm`)."""
    turns: int = Field(default=48, ge=1)
    """Turns whose rollouts are drawn at once; those of a dialogue stand together and share their contexts."""
    group: int = Field(default=5, ge=2)
    """Rollouts of each turn."""
    updates: int = Field(default=1, ge=1)
    """Optimizer steps that share out the rollouts drawn at once."""
    iterations: int = Field(default=1, ge=1)
    """Times that the rollouts drawn at once are gone through."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature of the rollouts."""
    max_new_tokens: int = Field(default=64, ge=1)
    """Longest rollout."""
    scale: Literal["group", "batch", "none"] | None = None
    """What advantages are divided by: the deviation of the group, of the batch, nothing. Unset: nothing for rloo, else
    the group's."""
    clip_low: float | None = Field(default=None, gt=0)
    """How far a ratio may fall below 1. Unset: 0.2, for gspo 3e-4."""
    clip_high: float | None = Field(default=None, gt=0)
    """How far a ratio may rise above 1 (for cispo: the largest weight of a token). Unset: 0.2, gspo 4e-4, cispo 5."""
    kl: float = Field(default=0.0, ge=0)
    """Weight of the divergence from the starting policy."""
    reward: Reward = Reward()
    """What a rollout is worth."""


class TrainRecipe(Recipe):
    """Train a policy that asks the next question or stops."""

    method: Literal["sft", "dpo", "grpo", "gspo", "cispo", "rloo"] = "sft"
    """`sft`: imitate the expert's next utterance, or the stop marker. `dpo`: from preferences. Else: from rollouts."""
    input: Path
    """Run directory of `askwell label`; with `loss: all` of `askwell ingest` (whole conversations); for dpo of
    `askwell contrast`."""
    model: str = "scratch"
    """Path or name of a Hugging Face causal language model, or `scratch`."""
    scratch: ScratchModel = ScratchModel()
    """Sizes of the scratch model."""
    lora: Lora | None = None
    """Train adapters instead of full weights."""
    loss: Literal["response", "all"] = "response"
    """Tokens that carry the loss: the expert's response, or every token of whole conversations (a base model)."""
    stop_marker: StopMarker = "<stop />"
    """What the policy says to stop."""
    prompt: str = ""
    """System prompt: a file of `askwell/texts/prompts` by name (`policy`), or empty for none."""
    split: Split = "train"
    """Which split to train on."""
    limit: int | None = Field(default=None, ge=1)
    """Train on at most this many conversations, drawn by hash."""
    epochs: float = Field(default=1.0, gt=0)
    """Passes over the data."""
    batch: int = Field(default=16, ge=1)
    """Conversations (dpo: question sets) an optimizer step, over all processes; with rollouts see `rollouts.turns`."""
    micro_batch: int = Field(default=16, ge=1)
    """Conversations (dpo: question sets; rollouts: turns) a forward pass on one process."""
    max_tokens: int = Field(default=1024, ge=16)
    """Longest sequence; of a longer one the oldest messages are left out, and counted."""
    trees: bool = True
    """Compute what sequences share once, exactly; false pads every sequence, for models that cannot take a tree."""
    row_tokens: int = Field(default=512, ge=64)
    """Tokens of a packed row of trees (twice the longest sequence at least): with less, more is computed twice; with
    more, attention costs more."""
    attention: Literal["sdpa", "flex_attention"] = "sdpa"
    """`flex_attention` skips what a tree's mask leaves out: for CUDA and rows of several thousand tokens."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the forward pass; weights stay in float32."""
    activation_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory for a third more time."""
    dpo: Dpo = Dpo()
    """Preferences: dpo."""
    rollouts: Rollouts = Rollouts()
    """Reinforcement learning: grpo, gspo, cispo, rloo."""
    optimizer: Optimizer = Optimizer()
    """Optimizer settings."""
    checkpoint_every: int = Field(default=100, ge=1)
    """Steps between checkpoints to resume from."""


def bounds(fold: str) -> tuple[int, int, int]:
    """First and last part, and how many there are, of a fold such as `0-2/4`."""
    match = re.fullmatch(r"(\d+)(?:-(\d+))?/(\d+)", fold)
    first, last, parts = (int(match[1]), int(match[2] or match[1]), int(match[3])) if match else (0, 0, 0)
    if not match or not first <= last < parts:
        raise ValueError(f"{fold!r} must be all, or a part such as 3/4 or 0-2/4, counted from 0")
    return first, last, parts


def whole_or_part(fold: str) -> str:
    """A fold that can be read."""
    if fold != "all":
        bounds(fold)
    return fold


Fold = Annotated[str, AfterValidator(whole_or_part)]


class ClinicLogsRecipe(Recipe):
    """Experts' conversations of the simulated clinic, as people have them on file. Fiction throughout."""

    conversations: int = Field(default=2000, ge=1)
    """How many."""
    skill: Literal["expert", "average", "novice", "mixed"] = "expert"
    """How well the experts ask; `mixed` takes turns."""
    systems: tuple[str, ...] = ()
    """Body systems whose conditions there are: files of `askwell/texts/clinic` by name; empty for all."""


class ClinicThreadsRecipe(Recipe):
    """Threads of the simulated clinic's forum, a follow-up question a line, for `ingest --source askdocs`. Fiction."""

    posts: int = Field(default=2000, ge=1)
    """How many; below each stand one to three threads."""
    skill: Literal["expert", "average", "novice", "mixed"] = "mixed"
    """How well those who answer ask; `mixed` draws one of the three for each thread."""
    systems: tuple[str, ...] = ()
    """Body systems whose conditions there are: files of `askwell/texts/clinic` by name; empty for all."""


class ClinicServeRecipe(Recipe):
    """The simulated clinic as an OpenAI-compatible endpoint on this machine. Fiction throughout."""

    port: int = Field(default=8765, ge=0, le=65535)
    """Where it listens, on 127.0.0.1; 0 takes a free one."""
    errors: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}
    """Share of requests that a role gets wrong, by the name of its prompt: {grade: 0.1}."""
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


class GraderRecipe(Recipe):
    """Fit a grader for exact truth: which slots does a question ask for, given the service?"""

    input: tuple[Path, ...]
    """Run directories of `askwell ingest --source sgd`; every SYSTEM utterance with its acts is an example."""
    kind: Literal["linear", "convolutional"] = "linear"
    """Kind of model: n-grams and regressions, or a small network; let one reward and the other evaluate."""
    fold: Fold = "all"
    """Which training conversations to learn from, by hash of the group: `all`, or a part such as `3/4` (of four parts,
    numbered 0 to 3, the last) or `0-2/4` (the first three). Graders of parts that do not overlap share none."""
    precision: float = Field(default=0.95, gt=0, lt=1)
    """Exact-set match to reach on what is scored; the grader abstains elsewhere."""


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


class EvaluateInterviewsRecipe(Recipe):
    """A policy in conversation: it interviews patients of the simulated clinic and stops by its own marker."""

    policy: str
    """Checkpoint directory or Hugging Face name of the policy; or an asker of the clinic: `clinic:reference`,
    `clinic:myopic`, `clinic:random`, or one that chooses as the experts of `clinic logs` do, but words it well and asks
    for one thing at a time: `clinic:expert`, `clinic:average`, `clinic:novice`."""
    cases: int = Field(default=300, ge=1)
    """Patients to interview, none of whom any log knows."""
    split: Literal["dev", "test"] = "test"
    """Of `test` the words and the complaints of some conditions stand in no log for training; of `dev` they may."""
    systems: tuple[str, ...] = ()
    """Body systems whose conditions there are: files of `askwell/texts/clinic` by name; empty for all."""
    most: int = Field(default=12, ge=1)
    """Questions after which an interview ends."""
    cost: float = Field(default=0.01, ge=0)
    """What a question costs the reference asker, in shares of a right diagnosis."""
    temperature: float = Field(default=0.0, ge=0)
    """Sampling temperature; 0 is greedy."""
    max_new_tokens: int = Field(default=64, ge=1)
    """Longest reply."""
    stop_marker: StopMarker = "<stop />"
    """What the policy says to stop."""
    prompt: str = ""
    """System prompt: a file of `askwell/texts/prompts` by name, or empty for none; as in training."""
    shown: int = Field(default=3, ge=0)
    """Interviews printed in the report."""
    bounds: bool = True
    """Let the reference asker and one that draws its questions interview the same people, too."""


StudyRow = Literal["base", "sft", "dpo", "grpo", "cispo", "gspo", "no_content", "no_decision", "sum"]


class StudyRecipe(Recipe):
    """A paper's table from raw data to report, in one command."""

    free = frozenset({"workers"})

    data: Path
    """Folder of the Schema-Guided Dialogue data, with `train` and `dev` in it; or `clinic`, the simulated clinic."""
    rows: tuple[StudyRow, ...] = ("base", "sft", "dpo", "grpo", "cispo", "gspo", "no_content", "no_decision", "sum")
    """Rows of the table."""
    budget: Literal["small", "full"] = "full"
    """What the rows are trained and evaluated on: `small` is for a look, `full` for the table."""
    seeds: int = Field(default=3, ge=1)
    """Training runs of base, sft, grpo and cispo; the other rows have one. `budget: small` has one of each."""
    workers: int = Field(default=0, ge=0)
    """Stages side by side, each in a process of its own; 0: one a core, or one alone where there is a GPU."""


class StudyDemoRecipe(Recipe):
    """The whole way in the simulated clinic, from experts' logs to a page worth looking at."""

    free = frozenset({"workers"})

    conversations: int | None = Field(default=None, ge=20)
    """Experts' conversations to learn from, where not as many as the demo was made for."""
    workers: int = Field(default=0, ge=0)
    """Stages side by side, each in a process of its own; 0: one a core."""


def essential(section: Section) -> dict[str, Any]:
    """The fields that decide what comes out, as JSON holds them."""
    dumped = section.model_dump(mode="json")
    return {
        name: essential(value) if isinstance(value := getattr(section, name), Section) else dumped[name]
        for name in type(section).model_fields
        if name not in section.free
    }


def read_recipe(path: Path, command: str) -> dict[str, Any]:
    """The mapping in a YAML recipe, less its `command`, which must be the one that was called."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of fields, not {type(values).__name__}")
    declared = values.pop("command", None)
    if declared != command:
        raise RecipeError(
            f"{path}: a recipe for command {declared!r}, called as {command!r}; call `askwell {declared}`"
        )
    return values


def override(values: dict[str, Any], flags: list[str]) -> dict[str, Any]:
    """Merge `--a.b value` (or `--a.b=value`) pairs over nested `values`; lists and mappings are read as YAML."""
    queue = list(flags)
    while queue:
        flag = queue.pop(0)
        if not flag.startswith("--") or flag == "--":
            raise RecipeError(f"unexpected argument {flag!r}; a recipe comes first, then `--field value` pairs")
        name, equals, text = flag[2:].partition("=")
        if not equals:
            if not queue:
                raise RecipeError(f"--{name} has no value; write `--{name} VALUE`")
            text = queue.pop(0)
        *parents, last = name.replace("-", "_").split(".")
        place = values
        for parent in parents:
            inner = place.get(parent)
            place[parent] = dict(inner) if isinstance(inner, dict) else {}
            place = place[parent]
        place[last] = scalar(text)
    return values


def scalar(text: str) -> object:
    """A flag's value: `null`, a YAML list or mapping, else the text itself, which pydantic turns into the type."""
    if text == "null":  # `none` is a value of some settings
        return None
    if text[:1] in ("[", "{"):
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
            return text
    return text


def resolve(kind: type[T], values: dict[str, Any]) -> T:
    """Validate `values` as a `kind`. Raises RecipeError: every fault on one line, each with value, rule and fix."""
    split_lists(kind, values)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        faults = [describe(kind, fault) for fault in error.errors(include_url=False)]
        raise RecipeError("; ".join(dict.fromkeys(faults))) from None


def split_lists(kind: type[BaseModel], values: dict[str, Any]) -> None:
    """`a,b` given for a list field becomes [a, b]."""
    for name, value in values.items():
        field = kind.model_fields.get(name)
        if field is not None and isinstance(value, str) and typing.get_origin(field.annotation) is tuple:
            values[name] = [part for part in value.split(",") if part]


def describe(kind: type[BaseModel], fault: Any) -> str:
    """One pydantic fault in one clause."""
    place = [str(part) for part in fault["loc"]]
    name = ".".join(place) or "recipe"
    if fault["type"] == "extra_forbidden":
        known = field_names(kind)
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known fields: {', '.join(known)}"
        return f"unknown field {name!r}; {hint}"
    if fault["type"] == "missing":
        return f"{name!r} is missing; give `--{name} VALUE` or `{name}:` in the recipe"
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "value_error":
        return message if name == "recipe" else f"{name}: {message}"
    return f"{name}: {fault['input']!r} is not valid: {message[:1].lower()}{message[1:]}"


def field_names(kind: type[BaseModel], prefix: str = "") -> list[str]:
    """All dotted field names of a recipe class."""
    names: list[str] = []
    for name, field in kind.model_fields.items():
        names.append(prefix + name)
        if section := section_of(field.annotation):
            names += field_names(section, f"{prefix}{name}.")
    return names


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The Section class inside an annotation such as `Lora | None`, if there is one."""
    options = typing.get_args(annotation) if typing.get_origin(annotation) in (typing.Union, types.UnionType) else ()
    for option in (annotation, *options):
        if isinstance(option, type) and issubclass(option, Section):
            return option
    return None


def existing(path: Path, what: str) -> Path:
    """`path`, or a DataError that says what was expected there."""
    if not path.exists():
        raise DataError(f"{path}: no such {what}")
    return path
