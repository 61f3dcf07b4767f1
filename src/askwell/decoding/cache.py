"""What a model keeps of the tokens that it has read: keys and values, their weight, the room that there is for them."""

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from askwell.errors import DataError

States = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of a context in one layer, each (heads, tokens, width)."""
FORWARD = {"cpu": 1024, "cuda": 8192}
"""Tokens of contexts in a forward pass: more leave the caches of a CPU, less leave a GPU idle."""
ROOM = 2**28
"""Bytes of keys and values in a batch on a CPU; on a GPU it is an eighth of the memory."""


class Room(NamedTuple):
    """What a forward pass and a batch may hold, and what the model's cache takes of it."""

    forward: int
    """Tokens of contexts in a forward pass."""
    bytes: int
    token: int
    """Bytes of a token in the cache."""
    row: int
    """Bytes of a row whatever its length: recurrent states."""

    def reads(self, sizes: Sequence[int]) -> bool:
        """Whether contexts of these sizes may be in one forward pass."""
        return len(sizes) * max(sizes) <= self.forward

    def holds(self, sizes: Sequence[int], *, spare: int, rows: int = 1) -> bool:
        """Whether contexts of these sizes, `rows` of each with `spare` tokens to come, may be in one batch."""
        return len(sizes) * rows * (self.row + (max(sizes) + spare) * self.token) <= self.bytes


class RoomyLayer(DynamicLayer):
    """Keys and values of one layer, (rows, heads, tokens, width), with room for the tokens to come."""

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, parts: Sequence[States], *, spare: int) -> None:
        super().__init__()
        self.length = max(keys.shape[1] for keys, _ in parts)
        self.keys, self.values = (self.laid_out(side, spare) for side in zip(*parts, strict=True))
        self.dtype, self.device, self.is_initialized = self.keys.dtype, self.keys.device, True

    def laid_out(self, parts: Sequence[torch.Tensor], spare: int) -> torch.Tensor:
        """A row a part, ending at `length`."""
        heads, _, width = parts[0].shape
        rows = parts[0].new_empty(len(parts), heads, self.length + spare, width)
        for row, part in zip(rows, parts, strict=True):
            start = self.length - part.shape[1]
            # What a mask leaves out is multiplied by 0, which a stray NaN would survive.
            row[:, :start] = 0
            row[:, start : self.length] = part
        return rows

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> States:
        start, self.length = self.length, self.length + key_states.shape[-2]
        self.keys[:, :, start : self.length] = key_states
        self.values[:, :, start : self.length] = value_states
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def get_seq_length(self) -> int:
        return self.length

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Row i becomes what row beam_idx[i] was; only rows that move are copied."""
        moved = (beam_idx != torch.arange(len(beam_idx), device=beam_idx.device)).nonzero().squeeze(1)
        for rows in (self.keys, self.values):
            rows[moved, :, : self.length] = rows[beam_idx[moved], :, : self.length]
        self.keys, self.values = self.keys[: len(beam_idx)], self.values[: len(beam_idx)]


def device_of(model: Any) -> torch.device:
    return next(model.parameters()).device


def room_of(model: Any) -> Room:
    """What there is on the device, and the weight of one token that goes through the model."""
    device = device_of(model)
    cache = DynamicCache(config=model.config)
    model(input_ids=torch.zeros((1, 1), dtype=torch.long, device=device), past_key_values=cache, use_cache=True)
    token = row = 0
    for layer in map(vars, cache.layers):
        token += sum(layer[side].nbytes for side in ("keys", "values") if layer.get(side) is not None)
        states = [*layer.get("conv_states", {}).values(), *layer.get("recurrent_states", {}).values()]
        row += sum(state.nbytes for state in states if state is not None)
    if device.type == "cuda":
        return Room(FORWARD["cuda"], torch.cuda.get_device_properties(device).total_memory // 8, token, row)
    return Room(FORWARD["cpu"], ROOM, token, row)


def attends_to_all(model: Any) -> bool:
    """Whether every layer attends to all earlier tokens as a mask says, wherever in the cache they are.

    Raises DataError where replies cannot be drawn at all.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    missing = {"position_ids", "past_key_values"} - set(inspect.signature(base.forward).parameters)
    if missing:
        raise DataError(
            f"{type(base).__name__} takes no {' and no '.join(sorted(missing))}, so no replies can be drawn from it; "
            "choose a model that does, such as Qwen2 or Llama"
        )
    config = base.config.get_text_config(decoder=True)
    # Falcon's learned distances and GPT-Neo's windows show in their configs alone.
    special = any(getattr(config, field, None) for field in ("alibi", "attention_layers"))
    follows_masks = config._attn_implementation in ("sdpa", "eager") and not special
    return follows_masks and all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)
