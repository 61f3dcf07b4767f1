"""Policies on disk and as token ids: load, create from scratch, save; a conversation to the ids that a model reads.

A policy is a Hugging Face causal language model and its tokenizer, in one folder as `save_pretrained` leaves it; a
LoRA policy's folder holds the adapters and names their base. A policy from scratch is a small Qwen2 with a byte-level
BPE of the corpus; its folder is read by plain `transformers` like any other. Pretrained and scratch policies share
one path from messages to ids: the tokenizer's chat template.
"""

import bisect
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

from askwell.errors import DataError, MissingExtra, RecipeError
from askwell.recipes import Lora, ScratchModel
from askwell.records import Message
from askwell.texts import prompt_file

try:
    import torch
    from jinja2 import TemplateError
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import (
        AddedToken,
        AutoModelForCausalLM,
        AutoTokenizer,
        PreTrainedTokenizerBase,
        Qwen2Config,
        Qwen2ForCausalLM,
        Qwen2Tokenizer,
    )
    from transformers.utils import logging as transformers_logging
except ModuleNotFoundError as missing:
    raise MissingExtra(
        f"policies need {missing.name!r}, which is not installed; install it with `pip install 'askwell[train]'`"
    ) from missing

PAD, END = "<|pad|>", "<|end|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
POSITIONS = 4096
"""Longest sequence that a scratch model declares; rope itself has no limit."""


class Policy(NamedTuple):
    """A causal language model (plain or with LoRA adapters) and its tokenizer."""

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


def load(name: str, *, lora: Lora | None = None, trainable: bool = False) -> Policy:
    """A policy by path or name, weights in float32; `lora` adds fresh adapters to it. Raises DataError."""
    place = locate(name)
    adapters = (Path(place) / "adapter_config.json").is_file()
    if adapters and lora is not None:
        raise RecipeError(f"model {name!r} is itself a LoRA policy; drop `lora` to go on training its adapters")
    try:
        with quiet():
            if adapters:
                from peft import AutoPeftModelForCausalLM

                model = AutoPeftModelForCausalLM.from_pretrained(place, is_trainable=trainable, dtype=torch.float32)
            else:
                model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(place)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"model {name!r}: no causal language model and tokenizer can be loaded: {reason}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Policy(adapt(model, lora) if lora else model, tokenizer)


def adapt(model: Any, lora: Lora) -> Any:
    """`model` with fresh LoRA adapters; its own weights are frozen."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets) or "all-linear",
    )
    try:
        with quiet():
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


def system_prompt(name: str, *, stop_marker: str) -> str:
    """The text of a prompt file, its `{stop_marker}` filled in one pass; empty for no name."""
    if not name:
        return ""
    file = prompt_file(name)

    def fill(match: re.Match[str]) -> str:
        if match[1] != "stop_marker":
            raise DataError(f"{file}: unknown placeholder {match[0]!r}; only {{stop_marker}} is filled in")
        return stop_marker

    text, found = re.subn(r"\{(\w+)\}", fill, file.read_text(encoding="utf-8").strip())
    if not found:
        raise DataError(f"{file}: names no {{stop_marker}}, so the policy could not know how to stop; add it")
    return text


def render(
    tokenizer: PreTrainedTokenizerBase, context: Sequence[Message], response: str | None, *, prompt: str
) -> tuple[list[int], list[int]]:
    """Ids of the context up to where the assistant speaks, and ids of its response with the end-of-turn token.

    `prompt` is the system prompt's text, empty for none. Without a response the second list is empty.
    """
    messages = chat(tokenizer, context, prompt)
    before = template(tokenizer, messages, generate=True)
    prompt_ids = encode(tokenizer, before)
    if response is None:
        return prompt_ids, []
    reply = {"role": "assistant", "content": plain(tokenizer, response)}
    whole = template(tokenizer, [*messages, reply], generate=False)
    if not whole.startswith(before):
        raise DataError(
            f"chat template of {tokenizer.name_or_path!r}: the prompt that ends in {before[-40:]!r} is not the "
            "beginning of the same conversation with its reply, so training and generation would read different text; "
            "give the tokenizer a chat_template that only ever appends"
        )
    ids = encode(tokenizer, whole[len(before) :])
    special = special_ids(tokenizer)
    end = next((place for place, token in enumerate(ids) if token in special), None)
    if end is None:
        raise DataError(
            f"chat template of {tokenizer.name_or_path!r}: no end-of-turn token follows a reply, so a policy could not "
            "learn to end one; give the tokenizer a chat_template that closes each message with a special token"
        )
    return prompt_ids, ids[: end + 1]


def fit(
    tokenizer: PreTrainedTokenizerBase, context: Sequence[Message], response: str | None, *, prompt: str, room: int
) -> tuple[list[int], list[int], int] | None:
    """`render` within `room` tokens: the oldest messages are left out, how many is the third value.

    What remains begins with a user's message, as many templates demand. None: not even from the last one on it fits.
    """
    starts = [0, *(place for place, message in enumerate(context) if place and message.role == "user")]

    def rendered(start: int) -> tuple[list[int], list[int]]:
        return render(tokenizer, context[start:], response, prompt=prompt)

    whole = rendered(0)
    if len(whole[0]) + len(whole[1]) <= room:
        return *whole, 0
    place = bisect.bisect_left(starts, True, lo=1, key=lambda start: sum(map(len, rendered(start))) <= room)
    return (*rendered(starts[place]), starts[place]) if place < len(starts) else None


def transcript(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, prompt: str) -> list[int]:
    """Ids of a whole conversation."""
    return encode(tokenizer, template(tokenizer, chat(tokenizer, messages, prompt), generate=False))


def chat(tokenizer: PreTrainedTokenizerBase, context: Sequence[Message], prompt: str) -> list[dict[str, str]]:
    """Messages for a chat template: the system prompt first, consecutive messages of one role joined by a newline."""
    merged: list[dict[str, str]] = [{"role": "system", "content": prompt}] if prompt else []
    for message in context:
        text = plain(tokenizer, message.content)
        if merged and merged[-1]["role"] == message.role:
            merged[-1]["content"] += "\n" + text
        else:
            merged.append({"role": message.role, "content": text})
    if merged and merged[0]["role"] == "system" and not has_system_role(tokenizer):
        system, *rest = merged
        at = next((place for place, message in enumerate(rest) if message["role"] == "user"), None)
        if at is None:
            return [{"role": "user", "content": system["content"]}, *rest]
        rest[at] = {"role": "user", "content": f"{system['content']}\n\n{rest[at]['content']}"}
        return rest
    return merged


@lru_cache(maxsize=16)
def has_system_role(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the chat template takes a system message: some refuse it, some leave it out."""
    probe = [{"role": "system", "content": "probe"}, {"role": "user", "content": "hello"}]
    try:
        return "probe" in str(tokenizer.apply_chat_template(probe, tokenize=False))
    except TemplateError:
        return False


def template(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], *, generate: bool) -> str:
    """The chat template's text. Raises DataError where there is no template or it refuses the messages."""
    if not tokenizer.chat_template:
        raise DataError(
            f"tokenizer of {tokenizer.name_or_path!r} has no chat template; choose an instruction-tuned model, or save "
            "a chat_template with the tokenizer"
        )
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generate))
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise DataError(
            f"chat template of {tokenizer.name_or_path!r} refuses a conversation of the roles {roles}: {error}; give "
            "the tokenizer a chat_template that accepts them"
        ) from error


@lru_cache(maxsize=16)
def special_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids of the special tokens, those of roles and ends of turns among them."""
    added = {token for token, entry in tokenizer.added_tokens_decoder.items() if entry.special}
    return frozenset(added | set(tokenizer.all_special_ids))


@lru_cache(maxsize=16)
def specials(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """Matches the text of any special token."""
    texts = tokenizer.convert_ids_to_tokens(sorted(special_ids(tokenizer)))
    return re.compile("|".join(re.escape(text) for text in texts) or r"(?!)")


def plain(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """`text` from a log, with any special token in it broken by a space: data must not end a turn."""
    return specials(tokenizer).sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of a text that the chat template has already given its special tokens."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


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
