"""Contexts to batches that a model can go on from: token ids in, keys and values out. No files.

The contexts of a dialogue's turns begin with one another: only the longest goes through the model, and the keys and
values of the others are the beginning of its own. A context is kept once, however many replies are drawn from it, with
room for them, so that no later token moves what is there.

So for models whose layers attend to all that came before. Others (sliding windows, recurrent layers, learned
distances) read every context, and keep a row a reply in a cache of their own kind.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from askwell import weights
from askwell.errors import DataError, MissingExtra

try:
    import torch
    from transformers import Cache, DynamicCache
    from transformers.cache_utils import DynamicLayer
except ModuleNotFoundError as missing:
    raise MissingExtra(
        f"policies need {missing.name!r}, which is not installed; install it with `pip install 'askwell[train]'`"
    ) from missing

T = TypeVar("T")
Context = tuple[int, ...]
States = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of a context in one layer, each (heads, tokens, width)."""
FORWARD = {"cpu": 1024, "cuda": 8192}
"""Tokens of contexts in a forward pass: more leave the caches of a CPU, less leave a GPU idle."""
ROOM = 2**28
"""Bytes of keys and values in a batch on a CPU; on a GPU it is an eighth of the memory."""


class Batch(NamedTuple):
    """R rows of contexts that the model has read, padded on the left, and what may come next.

    A context's replies share one row, or have a row each; rows and replies are in the order of contexts.
    """

    places: list[int]
    """Of each context, its place among those asked for."""
    slots: int
    """Replies that a row stands for: the group, or 1."""
    seen: torch.Tensor  # (R, width), where a row has a token
    cache: Any
    logits: torch.Tensor  # (R, V)


class Prefix(NamedTuple):
    """What remains of a context that the model has read."""

    layers: list[States]
    logits: torch.Tensor  # (V,)


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


def read(model: Any, contexts: Sequence[Context], *, group: int, spare: int) -> Iterator[Batch]:
    """Batches of contexts of like length, in which each can be followed by `group` replies of at most `spare` tokens.

    Raises DataError for a model that cannot be used so.
    """
    room = room_of(model)
    if attends_to_all(model):
        return shared(model, contexts, room, spare=group * spare, slots=group)
    return apart(model, contexts, room, spare=spare, rows=group)


def shared(model: Any, contexts: Sequence[Context], room: Room, *, spare: int, slots: int) -> Iterator[Batch]:
    """A row a context, which is read as the beginning of the longest that begins with it."""
    hosts = hosts_of(contexts)
    guests: dict[Context, list[int]] = {}
    for place, context in enumerate(contexts):
        guests.setdefault(hosts[context], []).append(place)

    def size(place: int) -> int:
        return len(contexts[place])

    for block in stretches(sorted(guests), len, lambda sizes: sum(sizes) * room.token <= room.bytes):
        prefixes: dict[Context, Prefix] = {}
        for some in stretches(sorted(block, key=len), len, room.reads):
            prefixes.update(beginnings(model, {host: sorted({size(place) for place in guests[host]}) for host in some}))
        order = sorted((place for host in block for place in guests[host]), key=lambda place: (size(place), place))
        for places in stretches(order, size, lambda sizes: room.holds(sizes, spare=spare)):
            chosen = [prefixes[contexts[place]] for place in places]
            layers: list[Any] = [
                RoomyLayer(parts, spare=spare) for parts in zip(*(prefix.layers for prefix in chosen), strict=True)
            ]
            logits = torch.stack([prefix.logits for prefix in chosen])
            seen = tokens_at([size(place) for place in places]).to(logits.device)
            yield Batch(places, slots, seen, Cache(layers=layers), logits)


def hosts_of(contexts: Iterable[Context]) -> dict[Context, Context]:
    """Of each context one that begins with it and that no other begins with."""
    order = sorted(set(contexts), reverse=True)
    hosts: dict[Context, Context] = {}
    # Those that begin with a context come right behind it, or here before it.
    for after, context in zip([(), *order], order, strict=False):
        hosts[context] = hosts[after] if after[: len(context)] == context else context
    return hosts


def beginnings(model: Any, hosts: dict[Context, list[int]]) -> Iterator[tuple[Context, Prefix]]:
    """One forward pass over contexts; of each, its beginnings of these lengths."""
    # Padded on the right, where a causal model never looks.
    ids = weights.padded(list(hosts), fill=0).to(device_of(model))
    keep = torch.zeros_like(ids, dtype=torch.bool)
    for row, lengths in enumerate(hosts.values()):
        keep[row, [length - 1 for length in lengths]] = True
    cache: Any = DynamicCache()
    with weights.head_only_at(model, keep):
        logits = iter(model(input_ids=ids, past_key_values=cache, use_cache=True).logits[0].float())
    for row, (host, lengths) in enumerate(hosts.items()):
        for length in lengths:
            layers = [(layer.keys[row, :, :length], layer.values[row, :, :length]) for layer in cache.layers]
            yield host[:length], Prefix(layers, next(logits))


def apart(model: Any, contexts: Sequence[Context], room: Room, *, spare: int, rows: int) -> Iterator[Batch]:
    """`rows` rows a context, each of which is read, in a cache of the model's own kind."""

    def size(place: int) -> int:
        return len(contexts[place])

    def fits(sizes: Sequence[int]) -> bool:
        return room.reads(sizes) and room.holds(sizes, spare=spare, rows=rows)

    order = sorted(range(len(contexts)), key=lambda place: (size(place), place))
    for places in stretches(order, size, fits):
        ids = weights.padded([contexts[place] for place in places], fill=0, left=True).to(device_of(model))
        seen = tokens_at([size(place) for place in places]).to(ids.device)
        cache: Any = DynamicCache(config=model.config)
        logits = model(
            input_ids=ids,
            attention_mask=seen.long(),
            position_ids=(seen.cumsum(1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        copies = torch.arange(len(places), device=ids.device).repeat_interleave(rows)
        cache.reorder_cache(copies)
        yield Batch(places, 1, seen[copies], cache, logits[copies].float())


def stretches(items: Sequence[T], size: Callable[[T], int], fits: Callable[[list[int]], bool]) -> Iterator[list[T]]:
    """Items cut, in their order, into stretches whose sizes fit; one that fits nowhere is alone."""
    start, sizes = 0, []
    for place, item in enumerate(items):
        if sizes and not fits([*sizes, size(item)]):
            yield list(items[start:place])
            start, sizes = place, []
        sizes.append(size(item))
    if sizes:
        yield list(items[start:])


def tokens_at(lengths: Sequence[int]) -> torch.Tensor:
    """Where rows of these lengths, padded on the left, have a token, (B, width)."""
    width = max(lengths)
    return torch.arange(width) >= width - torch.tensor(lengths)[:, None]


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
