"""A conversation to the ids that a model reads, through its tokenizer's chat template.

Pretrained and scratch policies, training and generation share this one path. Text from logs is data: a special token in
it is broken up, so that it cannot end a turn or begin one.
"""

import bisect
import re
from collections.abc import Sequence
from functools import lru_cache

from jinja2 import TemplateError
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from askwell.errors import DataError
from askwell.records import Message
from askwell.texts import prompt_file

NO_STOP = "_no_stop"


def system_prompt(name: str, *, stop_marker: str) -> str:
    """The text of a prompt file, its `{stop_marker}` filled in one pass; empty for no name.

    A prompt without the marker is refused, unless its name ends in NO_STOP: then it never mentions stopping.
    """
    if not name:
        return ""
    file = prompt_file(name)

    def fill(match: re.Match[str]) -> str:
        if match[1] != "stop_marker":
            raise DataError(f"{file}: unknown placeholder {match[0]!r}; only {{stop_marker}} is filled in")
        return stop_marker

    text, found = re.subn(r"\{(\w+)\}", fill, file.read_text(encoding="utf-8").strip())
    if not found and not name.endswith(NO_STOP):
        raise DataError(
            f"{file}: names no {{stop_marker}}, so the policy could not know how to stop; add it, or let the name end "
            f"in {NO_STOP} if it is not to stop"
        )
    return text


def render(
    tokenizer: PreTrainedTokenizerBase, context: Sequence[Message], response: str | None, *, prompt: str
) -> tuple[list[int], list[int]]:
    """Ids of the context up to where the assistant speaks, and ids of its response with the end-of-turn token.

    `prompt` is the system prompt's text, empty for none. Without a response the second list is empty.
    """
    messages, before, prompt_ids = opening(tokenizer, tuple(context), prompt)
    if response is None:
        return list(prompt_ids), []
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
    return list(prompt_ids), ids[: end + 1]


@lru_cache(maxsize=16)
def opening(
    tokenizer: PreTrainedTokenizerBase, context: tuple[Message, ...], prompt: str
) -> tuple[list[dict[str, str]], str, list[int]]:
    """A context's messages, its text and its ids up to where the assistant speaks: one work for all replies to it."""
    messages = chat(tokenizer, context, prompt)
    before = template(tokenizer, messages, generate=True)
    return messages, before, encode(tokenizer, before)


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
    engine = engine_of(tokenizer)
    if engine is None:
        return tokenizer(text, add_special_tokens=False)["input_ids"]
    return engine.encode(text, add_special_tokens=False).ids


@lru_cache(maxsize=16)
def engine_of(tokenizer: PreTrainedTokenizerBase) -> Tokenizer | None:
    """A fast tokenizer's own engine, which neither cuts nor pads; None for others. Called twice for every turn, it
    takes half the time of the tokenizer around it."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return None
    engine = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    engine.no_truncation()
    engine.no_padding()
    return engine
