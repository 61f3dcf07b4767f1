"""Recipes that fit something: a policy, a grader."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from askwell.recipes.endpoint import Endpoint
from askwell.recipes.fields import Fold, Recipe, Section, StopMarker
from askwell.records import Direction, Split


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


class Preferences(Section):
    """Which preferences of question sets to train on."""

    attributes: tuple[str, ...] = ()
    """Those in these attributes; none named: all."""
    directions: tuple[Direction, ...] = ()
    """Those in these directions, by where better and worse come from (enhanced, original, corrupted); none named:
    all."""
    filtered: bool = True
    """Only those that a judge confirmed, or that no judge was asked about; false: also those that a judge refuted, tied
    or could not tell."""


class Dpo(Section):
    """Direct preference optimization against the starting policy (Rafailov et al., 2023)."""

    beta: float = Field(default=0.1, gt=0)
    """How dearly a departure from the starting policy is paid."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """Share of the preferences taken to be the wrong way round (conservative DPO); for the sigmoid loss."""
    loss: Literal["sigmoid", "ipo"] = "sigmoid"
    """`sigmoid`: -log sigmoid(beta * margin). `ipo`: (margin - 1 / (2 beta))^2 (Azar et al., 2023)."""
    length_normalised: bool = False
    """Take a candidate's log-ratio as the mean over its tokens, not the sum: no gain from length alone."""
    precompute: bool = True
    """Compute the starting policy's log-probabilities once, before the first step. false: at each step, with fresh LoRA
    adapters by switching them off, else from a frozen copy of the model."""

    @model_validator(mode="after")
    def _smoothing_is_of_the_sigmoid(self) -> Self:
        if self.loss == "ipo" and self.label_smoothing:
            raise ValueError(f"label_smoothing {self.label_smoothing} has no meaning for ipo; set it to 0")
        return self


class BradleyTerry(Section):
    """A reward model from preferences: the better one's score exceeds the worse one's (Bradley and Terry, 1952)."""

    margin: float = Field(default=0.0, ge=0)
    """By how much it should."""
    centre: float = Field(default=0.0, ge=0)
    """Weight of the squared sum of the two, which keeps scores around 0 (Eisenstein et al., 2024; 0.01 is usual)."""
    held_out: Split = "dev"
    """Split on which the report says how good the model is."""


class RewardModels(Section):
    """Reward models that say what a question is worth."""

    paths: tuple[Path, ...] = Field(min_length=1)
    """Run directories of `askwell train --method reward`, one for each attribute say, or one of `askwell merge`."""
    weights: tuple[float, ...] = ()
    """What each counts, in the order of `paths`; none given: all alike, and 1 together."""
    standardised: bool = True
    """Take each model's scores less their mean, over their deviation, on questions of the training data."""
    sample: int = Field(default=256, ge=2)
    """Contexts of the training data, drawn by hash, whose questions give that scale and the report on agreement."""
    penalty: float = Field(default=1.0, ge=0)
    """Taken off a reply that was cut at `max_new_tokens`; and, where nothing but questions is rewarded, minus what a
    stop is worth."""
    weight: float = Field(default=1.0, ge=0)
    """Weight of their sum beside the reward of a grader or judge."""

    @model_validator(mode="after")
    def _weights_are_of_the_paths(self) -> Self:
        if self.weights and len(self.weights) != len(self.paths):
            raise ValueError(f"weights: {len(self.weights)} for {len(self.paths)} paths; give one for each, or none")
        names = [path.parent.name if path.name == "checkpoint" else path.name for path in self.paths]
        if len(set(names)) < len(names):
            raise ValueError(
                f"paths: {', '.join(names)} are to be told apart by the names of their folders; rename one"
            )
        return self

    @property
    def shares(self) -> tuple[float, ...]:
        """What each counts."""
        return self.weights or (1 / len(self.paths),) * len(self.paths)


class Ppo(Section):
    """Proximal policy optimization (Schulman et al., 2017)."""

    kl: float = Field(default=0.05, ge=0)
    """Price of a nat of divergence from the starting policy, taken off each token's reward."""
    kl_target: float | None = Field(default=None, gt=0)
    """Nats of divergence a reply near which the price is to hold it (Ziegler et al., 2019); unset: the price stays."""
    kl_rate: float = Field(default=0.1, gt=0, lt=5)
    """How fast the price follows: its change at a draw, for a divergence twice the target, is a fifth of this (from 5
    on a price could fall to 0 at one draw, or below)."""
    discount: float = Field(default=1.0, gt=0, le=1)
    """What a reward one token later is worth."""
    trace: float = Field(default=0.95, ge=0, le=1)
    """Lambda of generalized advantages: at 0 the critic is believed after a token, at 1 not at all."""
    value_clip: float = Field(default=0.2, gt=0)
    """How far a value may leave what it was when the reply was drawn."""
    value_weight: float = Field(default=0.1, ge=0)
    """Weight of the critic's loss, whose gradient goes through the policy as well."""
    value_rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate of the critic's head."""

    @model_validator(mode="after")
    def _target_needs_a_price(self) -> Self:
        if self.kl_target is not None and not self.kl:
            raise ValueError("kl_target needs a price to begin with; give kl more than 0")
        return self


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
    models: RewardModels | None = None
    """Reward models beside the grader or judge, or alone."""


class Rollouts(Section):
    """Reinforcement learning from groups of rollouts (methods grpo, gspo, cispo, rloo, ppo)."""

    grader: Path | None = None
    """Run directory of `askwell grader`: the one that rewards. Keep another one for evaluation."""
    judge: Endpoint | None = None
    """Or an endpoint whose model rewards, for truths in words (`label --truth llm`)."""
    turns: int = Field(default=48, ge=1)
    """Turns whose rollouts are drawn at once; those of a dialogue stand together and share their contexts."""
    group: int = Field(default=5, ge=1)
    """Rollouts of each turn; all methods but ppo compare them, and need two at least."""
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
    """Train a policy that asks the next question or stops, or a reward model that scores questions."""

    method: Literal["sft", "dpo", "reward", "ppo", "grpo", "gspo", "cispo", "rloo"] = "sft"
    """`sft`: imitate the expert's next utterance, or the stop marker. `dpo`: from preferences. `reward`: a model of
    preferences, which scores. Else: from rollouts."""
    input: Path
    """Run directory of `askwell label`; with `loss: all` of `askwell ingest` (whole conversations); with
    `questions`, for dpo and for reward of `askwell synthesize` or `askwell contrast`."""
    model: str = "scratch"
    """Path or name of a Hugging Face causal language model, or `scratch`; for reward also of a reward model."""
    scratch: ScratchModel = ScratchModel()
    """Sizes of the scratch model."""
    lora: Lora | None = None
    """Train adapters instead of full weights."""
    questions: Literal["real", "synthetic", "combined"] | None = None
    """sft on question sets (of `askwell synthesize`, `askwell contrast`): people's own questions, the enhanced ones, or
    both; their own also as `askwell ingest` reads them from threads. Unset: the experts' replies at turns."""
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
    """Conversations (preferences: question sets) an optimizer step, over all processes; with rollouts see
    `rollouts.turns`."""
    micro_batch: int = Field(default=16, ge=1)
    """Conversations (preferences: question sets; rollouts: turns) a forward pass on one process."""
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
    preferences: Preferences = Preferences()
    """Which preferences: dpo, reward; with `questions`, which enhanced ones."""
    each: Literal["attribute"] | None = None
    """`attribute`: a policy (or reward model) for each attribute from the one start, in OUTPUT/ATTRIBUTE; the model,
    the sequences and the starting policy's log-probabilities are loaded and computed once. dpo, reward."""
    dpo: Dpo = Dpo()
    """The loss of dpo."""
    reward: BradleyTerry = BradleyTerry()
    """The loss of reward, and its report."""
    rollouts: Rollouts = Rollouts()
    """Reinforcement learning: grpo, gspo, cispo, rloo, ppo."""
    ppo: Ppo = Ppo()
    """The loss of ppo."""
    optimizer: Optimizer = Optimizer()
    """Optimizer settings."""
    checkpoint_every: int = Field(default=100, ge=1)
    """Steps between checkpoints to resume from."""

    @model_validator(mode="after")
    def _settings_go_with_the_method(self) -> Self:
        if self.each and self.method not in ("dpo", "reward"):
            raise ValueError(f"each {self.each!r} is for methods dpo and reward, not {self.method!r}; drop it")
        if self.questions and (self.method != "sft" or self.loss == "all"):
            raise ValueError(
                f"questions {self.questions!r} is for method sft with `loss: response`, not {self.method!r} with "
                f"`loss: {self.loss}`; drop it"
            )
        return self


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
