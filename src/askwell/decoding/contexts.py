"""Contexts to batches that a model can go on from: token ids in, keys and values out. No files.

The contexts of a dialogue's turns begin with one another: only the longest goes through the model, and the keys and
values of the others are the beginning of its own. A context is kept once, however many replies are drawn from it, with
room for them, so that no later token moves what is there.

This holds for models whose layers attend to all that came before. Others (sliding windows, recurrent layers, learned
distances) read every context, and keep a row a reply in a cache of their own kind.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from transformers import Cache, DynamicCache

from askwell import weights
from askwell.decoding.cache import Room, RoomyLayer, States, attends_to_all, device_of, room_of

T = TypeVar("T")
Context = tuple[int, ...]


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


def read(model: Any, contexts: Sequence[Context], *, group: int, spare: int) -> Iterator[Batch]:
    """Batches of contexts of like length, in which each can be followed by `group` replies of at most `spare` tokens.

    Raises DataError for a model that cannot be used so.
    """
    if attends_to_all(model):
        return shared(model, contexts, room_of(model), spare=group * spare, slots=group)
    return apart(model, contexts, room_of(model), spare=spare, rows=group)


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
