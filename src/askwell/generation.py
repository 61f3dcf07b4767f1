"""What a local policy says, and how likely it finds what was said. Reads a policy's folder, writes nothing."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import torch

from askwell import rendering, weights
from askwell.decoding.replies import sample
from askwell.errors import DataError
from askwell.records import Message

T = TypeVar("T")
Ids = tuple[list[int], list[int]]
"""Ids of a context and of a reply."""
FORWARD = 16
"""Replies measured in a forward pass, those of like length together: less of the work is padding."""


class Said(NamedTuple):
    """A reply as it was drawn: its text, how many tokens it took, its end's included, and whether it reached one."""

    text: str
    tokens: int
    ended: bool


class LocalPolicy:
    """A loaded policy with its system prompt, on a GPU where there is one. `messages_left_out` counts what was cut."""

    def __init__(self, policy: weights.Policy, *, prompt: str = "") -> None:
        self.device = weights.device()
        self.model = policy.model.to(self.device).eval()
        self.tokenizer = policy.tokenizer
        self.pad = cast(int, self.tokenizer.pad_token_id)
        self.prompt = prompt
        self.messages_left_out = 0
        self.room = int(getattr(self.model.config, "max_position_embeddings", weights.POSITIONS))
        self.ends = ends_of(self.model, self.tokenizer)

    @classmethod
    def load(cls, name_or_path: str, *, prompt: str = "", stop_marker: str = "<stop />") -> "LocalPolicy":
        """A policy by path or name; `prompt` names a file of `askwell/texts/prompts`, empty for no system prompt."""
        text = rendering.system_prompt(prompt, stop_marker=stop_marker)
        return cls(weights.load(name_or_path), prompt=text)

    def replies(
        self,
        contexts: Sequence[Sequence[Message]],
        *,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        seed: int,
        samples: int = 1,
    ) -> list[str]:
        """`samples` replies a context, one context's after another's, in this order.

        Greedy at temperature 0, else a pure function of the arguments.
        """
        said = self.said(
            [self.fitted(context, None, spare=max_new_tokens)[0] for context in contexts],
            temperature=temperature,
            top_p=top_p,
            max_new_tokens=max_new_tokens,
            seed=seed,
            samples=samples,
        )
        return [reply.text for reply in said]

    def said(
        self,
        contexts: Sequence[Sequence[int]],
        *,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        seed: int | Sequence[int],
        samples: int = 1,
    ) -> list[Said]:
        """As `replies`, for contexts as token ids that leave the model room; `seed`: one for all, or one a context."""
        drawn = sample(
            self.model,
            contexts,
            group=samples,
            temperature=temperature,
            top_p=top_p,
            max_new_tokens=max_new_tokens,
            ends=self.ends,
            pad=self.pad,
            seed=seed,
        )
        replies = [reply for group in drawn for reply in group]
        texts = self.tokenizer.batch_decode(replies, skip_special_tokens=True)
        return [
            Said(text.strip(), len(reply), reply[-1] in self.ends) for text, reply in zip(texts, replies, strict=True)
        ]

    def nll(self, contexts: Sequence[Sequence[Message]], replies: Sequence[str]) -> list[tuple[float, int]]:
        """Of each reply, its end-of-turn token included: negative log-likelihood (sum, nats) and number of tokens."""
        pairs = [self.fitted(context, reply) for context, reply in zip(contexts, replies, strict=True)]

        def measure(group: Sequence[Ids]) -> list[tuple[float, int]]:
            # Padding on the right needs no mask: a causal model never looks there.
            ids = weights.padded([before + after for before, after in group], fill=0).to(self.device)
            keep = torch.zeros_like(ids, dtype=torch.bool)
            for row, (before, after) in enumerate(group):
                keep[row, len(before) - 1 : len(before) + len(after) - 1] = True
            with weights.head_only_at(self.model, keep):
                logits = self.model(input_ids=ids, use_cache=False).logits[0].float()
            losses = torch.nn.functional.cross_entropy(logits, ids[:, 1:][keep[:, :-1]], reduction="none")
            parts = losses.double().split([len(after) for _, after in group])
            return [(float(part.sum()), len(part)) for part in parts]

        with torch.inference_mode():
            return by_length(pairs, measure)

    def fitted(self, context: Sequence[Message], reply: str | None, *, spare: int = 0) -> Ids:
        """Ids of a context and a reply that leave `spare` of the model's positions free."""
        room = self.room - spare
        found = rendering.fit(self.tokenizer, context, reply, prompt=self.prompt, room=room)
        if found is None:
            raise DataError(
                f"a context of {sum(len(message.content) for message in context)} characters does not fit the model's "
                f"{self.room} positions even without its older messages; shorten the message, or lower max_new_tokens"
            )
        before, after, left_out = found
        self.messages_left_out += left_out
        return before, after


def by_length(items: Sequence[Ids], work: Callable[[Sequence[Ids]], list[T]]) -> list[T]:
    """`work` done on groups of like length; results in the order of `items`."""
    order = sorted(range(len(items)), key=lambda place: sum(map(len, items[place])))
    results: dict[int, T] = {}
    for start in range(0, len(order), FORWARD):
        places = order[start : start + FORWARD]
        results.update(zip(places, work([items[place] for place in places]), strict=True))
    return [results[place] for place in range(len(items))]


def ends_of(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end a reply: what the chat template closes it with, and those that model and tokenizer name."""
    end = rendering.render(tokenizer, [Message(role="user", content="hello")], "hello", prompt="")[1][-1]
    return sorted({end, *listed(tokenizer.eos_token_id), *listed(model.generation_config.eos_token_id)})


def listed(value: Any) -> list[int]:
    """One end token or several, as `transformers` gives them, as a list."""
    return value if isinstance(value, list) else [] if value is None else [value]
