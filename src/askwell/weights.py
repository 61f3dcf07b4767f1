"""Policies and reward models on disk: load, create, save; and the few things that every forward pass shares.

A policy is a Hugging Face causal language model and its tokenizer, in one folder as `save_pretrained` leaves it; a
LoRA policy's folder holds the adapters and names their base. A policy from scratch is a small Qwen2 with a byte-level
BPE of the corpus and a chat template of its own; its folder is read by plain `transformers` like any other. A reward
model is a policy with a head of one label in place of its vocabulary's: a sequence classifier of `transformers`.
"""

import copy
import json
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AddedToken,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
)
from transformers.utils import logging as transformers_logging

from askwell.errors import DataError, RecipeError
from askwell.recipes import Lora, ScratchModel

PAD, END = "<|pad|>", "<|end|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
POSITIONS = 4096
"""Longest sequence that a scratch model declares; rope itself has no limit."""


class Policy(NamedTuple):
    """A causal language model, or a reward model (plain or with LoRA adapters), and its tokenizer."""

    model: Any
    tokenizer: PreTrainedTokenizerBase


def locate(name: str) -> str:
    """The folder of a local policy, as an absolute path, or `name` as given. A run directory means its checkpoint/."""
    path = Path(name)
    if (path / "checkpoint").is_dir() and not (path / "config.json").exists():
        if not (path / "manifest.json").is_file():
            raise DataError(
                f"model {name!r}: an unfinished run (no manifest.json); repeat its command, which resumes it"
            )
        path = path / "checkpoint"
    return str(path.resolve()) if path.is_dir() else name


def load(name: str, *, lora: Lora | None = None, trainable: bool = False, seed: int = 0) -> Policy:
    """A policy by path or name, weights in float32; `lora` adds fresh adapters to it, by `seed`. Raises DataError.

    One that is `trainable` has no dropout but that of adapters.
    """
    place = locate(name)
    adapters = (Path(place) / "adapter_config.json").is_file()
    if adapters and lora is not None:
        raise RecipeError(f"model {name!r} is itself a LoRA policy; drop `lora` to go on training its adapters")
    if is_reward(name):
        raise DataError(f"model {name!r}: a reward model, which scores and cannot speak; name the policy itself")
    with readable(name):
        if adapters:
            from peft import AutoPeftModelForCausalLM

            model = AutoPeftModelForCausalLM.from_pretrained(place, is_trainable=trainable, dtype=torch.float32)
        else:
            model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
    if trainable:
        without_dropout(model)
    tokenizer = load_tokenizer(name)
    return Policy(adapt(model, lora, seed=seed) if lora else model, tokenizer)


def load_reward(name: str, *, lora: Lora | None = None, trainable: bool = False, seed: int | None = None) -> Policy:
    """A reward model by path or name, weights in float32: one of `train --method reward`, or TRL's. Raises DataError.

    A policy becomes one where a `seed` is given, by which its head is drawn; `lora` adds fresh adapters, and the head
    is then trained in full. The adapters of a LoRA policy become part of its weights.
    """
    place = locate(name)
    adapters = (Path(place) / "adapter_config.json").is_file()
    ready = is_reward(name)
    if not ready and seed is None:
        raise DataError(f"model {name!r}: no reward model; train one with `askwell train --method reward`")
    if adapters and lora is not None:
        raise RecipeError(f"model {name!r} is itself a LoRA {'reward model' if ready else 'policy'}; drop `lora`")
    fields: dict[str, Any] = {"num_labels": 1, "dtype": torch.float32}
    with readable(name, "reward model"), torch.random.fork_rng(), silent():
        torch.manual_seed(seed or 0)
        if adapters and ready:
            from peft import AutoPeftModelForSequenceClassification

            model = AutoPeftModelForSequenceClassification.from_pretrained(place, is_trainable=trainable, **fields)
        elif adapters:
            model = headed(load(name).model.merge_and_unload())
        else:
            model = AutoModelForSequenceClassification.from_pretrained(place, **fields)
    if not hasattr(model, "score"):
        raise DataError(f"model {name!r}: a {type(model).__name__} has no head called `score`; choose a decoder model")
    if trainable:
        without_dropout(model)
    tokenizer = load_tokenizer(name)
    # By it `transformers` finds the end of a sequence, where it reads the reward.
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    return Policy(adapt(model, lora, seed=seed or 0, task="SEQ_CLS") if lora else model, tokenizer)


def device() -> torch.device:
    """This process's GPU, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def without_dropout(model: Any) -> None:
    """Switch off a model's own dropout: a question tree would drop the same of a context for all that continue it, and
    preferences and rollouts compare a policy with what it was. That of adapters stays as their recipe has it."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout) and "lora_dropout" not in name:
            module.p = 0.0


def is_reward(name: str) -> bool:
    """Whether a folder holds a reward model, by its config; a model that is not on disk is asked by its name."""
    place = Path(locate(name))
    if (place / "adapter_config.json").is_file():
        return json.loads((place / "adapter_config.json").read_text(encoding="utf-8")).get("task_type") == "SEQ_CLS"
    if place.is_dir() and not (place / "config.json").is_file():
        return False
    with readable(name):
        kinds = AutoConfig.from_pretrained(str(place) if place.is_dir() else name).architectures
    return any(kind.endswith("ForSequenceClassification") for kind in kinds or ())


def headed(model: Any) -> Any:
    """A causal language model's body with a fresh head of one label."""
    config = copy.deepcopy(model.config)
    config.num_labels = 1
    reward = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    setattr(reward, reward.base_model_prefix, getattr(model, model.base_model_prefix))
    return reward


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a policy by path or name, without its weights. Raises DataError."""
    with readable(name):
        tokenizer = AutoTokenizer.from_pretrained(locate(name))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@contextmanager
def readable(name: str, kind: str = "causal language model") -> Iterator[None]:
    """Inside, what `transformers` says of a model that it cannot load is a DataError, in one line."""
    try:
        with quiet():
            yield
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"model {name!r}: no {kind} and tokenizer can be loaded: {reason}") from error


def adapt(model: Any, lora: Lora, *, seed: int = 0, task: str = "CAUSAL_LM") -> Any:
    """`model` with fresh LoRA adapters, by `seed`; its own weights are frozen, but for a reward model's head."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        task_type=task,
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets) or "all-linear",
    )
    try:
        with quiet(), torch.random.fork_rng():
            torch.manual_seed(seed)
            return get_peft_model(model, config)
    except ValueError as error:
        raise RecipeError(f"lora.targets {list(lora.targets)!r}: {error}") from error


def create(sizes: ScratchModel, texts: Iterable[str], *, stop_marker: str, seed: int) -> Policy:
    """A fresh small transformer, a pure function of the arguments, and a tokenizer trained on `texts`."""
    tokenizer = scratch_tokenizer(texts, vocabulary=sizes.vocabulary, stop_marker=stop_marker)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=sizes.hidden,
        intermediate_size=sizes.mlp,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.heads,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=cast(int, tokenizer.eos_token_id),
        pad_token_id=cast(int, tokenizer.pad_token_id),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Policy(Qwen2ForCausalLM(config), tokenizer)


def scratch_tokenizer(texts: Iterable[str], *, vocabulary: int, stop_marker: str) -> PreTrainedTokenizerBase:
    """A byte-level BPE with a token for each role, for the end of a turn, and for the stop marker.

    It is trained as a Qwen2Tokenizer splits and normalizes: `AutoTokenizer` loads that class for every Qwen2 model,
    whatever the folder says, and would split text in another way than the BPE was trained on.
    """
    shape = Qwen2Tokenizer()._tokenizer
    core = Tokenizer(models.BPE())
    core.normalizer, core.pre_tokenizer = shape.normalizer, shape.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - 1,
        special_tokens=[PAD, END, *ROLES],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    merges: Any = [tuple(pair) for pair in json.loads(core.to_str())["model"]["merges"]]
    tokenizer = Qwen2Tokenizer(
        vocab=core.get_vocab(),
        merges=merges,
        unk_token=PAD,
        pad_token=PAD,
        eos_token=END,
        extra_special_tokens=list(ROLES),
        model_max_length=POSITIONS,
    )
    tokenizer.add_tokens([AddedToken(stop_marker, special=False, normalized=False)])
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def save(policy: Policy, path: Path) -> None:
    """Write model (safetensors) and tokenizer; of a LoRA policy the adapters alone."""
    with quiet():
        policy.model.save_pretrained(path)
    policy.tokenizer.save_pretrained(path)


def padded(rows: Sequence[Sequence[int]], *, fill: int, left: bool = False) -> torch.Tensor:
    """Rows of unlike length as one tensor (B, T), filled up on the right or the left."""
    width = max(map(len, rows))
    blanks = [[fill] * (width - len(row)) for row in rows]
    return torch.tensor([[*blank, *row] if left else [*row, *blank] for row, blank in zip(rows, blanks, strict=True)])


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, `transformers` draws no progress bars, and PEFT's use of its older names is not our user's business."""
    drawn = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning
            )
            yield
    finally:
        if drawn:
            transformers_logging.enable_progress_bar()


@contextmanager
def silent() -> Iterator[None]:
    """Inside, `transformers` warns of nothing: a fresh head, which no checkpoint holds, is no news to who asks for
    one."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)


@contextmanager
def head_only_at(model: Any, keep: torch.Tensor) -> Iterator[None]:
    """Inside, the model's logits are those at `keep` alone: (1, N, vocabulary) for N true places of keep (B, T).

    The head and its softmax are most of a small model's work, and a response is a few tokens of a long sequence.
    """
    head = model.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _module, inputs: (inputs[0][keep].unsqueeze(0),))
    try:
        yield
    finally:
        handle.remove()
