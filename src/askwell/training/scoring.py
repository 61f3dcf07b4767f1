"""Log-probabilities and rewards at chosen tokens, every shared prefix computed once. The forward pass of all training.

    batch = lay_out(pieces, Layout())     # rows of question trees, or padded sequences where shared=False
    scores = score(model, batch)          # one log-probability a scored token, in the order of pieces

`rewards` reads a reward model's head in the same way: one number a sequence, or a token. The head runs at the scored
places alone, in chunks that bound memory whatever the vocabulary. Any decoder model of `transformers` that takes a 4-D
attention mask and positions will do; `check` asks the model itself and refuses others with the setting that turns trees
off.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from accelerate.utils import extract_model_from_parallel
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from askwell.errors import RecipeError
from askwell.recipes import TrainRecipe
from askwell.training.trees import Piece, Row, nodes, rows_of

T = TypeVar("T")
LOGITS = 2**26
"""Logits that stand in memory at once, in float32 256 MB."""
BLOCK = 128
"""FlexAttention's block: rows are padded to a multiple, so that few shapes are compiled."""
TOLERANCE = 1e-3
"""Difference (nats) that a probe may show: rounding gives 1e-6, an ignored mask 1e-2 even with untrained weights."""
WAY_OUT = "set `--trees false`, which pads every sequence"


class Batch(NamedTuple):
    """R rows of N nodes, and the S scored tokens of all pieces, one piece after another in their order."""

    input_ids: torch.Tensor  # (R, N)
    position_ids: torch.Tensor  # (R, N)
    ends: torch.Tensor | None  # (R, N), where each node's subtree closes; None: plain causal rows
    at: torch.Tensor  # (S,) place in the flattened rows of the node that predicts each scored token, or its own node
    targets: torch.Tensor  # (S,)

    @classmethod
    def of(cls, tensors: Mapping[str, torch.Tensor]) -> "Batch":
        """From a mapping that may hold more."""
        ids, positions, at, targets = (tensors[name] for name in ("input_ids", "position_ids", "at", "targets"))
        return cls(ids, positions, tensors.get("ends"), at, targets)

    def tensors(self) -> dict[str, torch.Tensor]:
        """As a mapping, which is what data loaders move between devices."""
        return {field: part for field, part in self._asdict().items() if part is not None}


class Scores(NamedTuple):
    """For each scored token its log-probability, and where asked for the entropy of its distribution, in nats, and the
    hidden state that predicts it, as the head is given it."""

    logprobs: torch.Tensor  # (S,)
    entropies: torch.Tensor | None  # (S,), without gradient
    hidden: torch.Tensor | None = None  # (S, width)


class Layout(NamedTuple):
    """How sequences become rows: shared prefixes in rows of about `budget` nodes, or a padded row a sequence."""

    budget: int = 512
    shared: bool = True
    multiple: int = 1
    """Rows are padded to a multiple of it."""

    def size(self, pieces: Sequence[Piece]) -> int:
        """Tokens that are computed for these sequences, padding aside."""
        return nodes(pieces) if self.shared else sum(len(piece.ids) for piece in pieces)


def layout_of(model: Any, recipe: TrainRecipe, *, longest: int) -> Layout:
    """The recipe's layout, and `model` set to its kind of attention. Raises RecipeError where trees are not exact."""
    if recipe.attention != inner(model).config._attn_implementation:
        model.set_attn_implementation(recipe.attention)
    if recipe.trees:
        check(model, longest=longest)
    multiple = BLOCK if recipe.attention == "flex_attention" else 1
    return Layout(recipe.row_tokens, recipe.trees, multiple)


def lay_out(pieces: Sequence[Piece], layout: Layout, *, own: bool = False) -> Batch:
    """The rows of these sequences as tensors; one blank row where there are none.

    `own`: the batch's places are those of the scored tokens themselves, not of the tokens before them.
    """
    shared = layout.shared
    rows = rows_of(pieces, budget=layout.budget) if shared else [alone(*numbered) for numbered in enumerate(pieces)]
    rows = rows or [Row([0], [0], [1], {})]
    width = -(-max(len(row.ids) for row in rows) // layout.multiple) * layout.multiple
    places = {number: (index * width, path) for index, row in enumerate(rows) for number, path in row.paths.items()}
    at, targets = [], []
    for number, piece in enumerate(pieces):
        start, path = places[number]
        at += [start + path[place if own else place - 1] for place in piece.scored]
        targets += [piece.ids[place] for place in piece.scored]
    blank = list(range(1, width + 1))
    return Batch(
        torch.tensor([row.ids + [0] * (width - len(row.ids)) for row in rows]),
        torch.tensor([row.positions + [0] * (width - len(row.ids)) for row in rows]),
        # A padding node attends to itself alone: a row of a mask that allows nothing would be NaN.
        torch.tensor([row.ends + blank[len(row.ids) :] for row in rows]) if shared else None,
        torch.tensor(at, dtype=torch.long),
        torch.tensor(targets, dtype=torch.long),
    )


def alone(number: int, piece: Piece) -> Row:
    """A row that shares nothing."""
    size = len(piece.ids)
    return Row(list(piece.ids), list(range(size)), [size] * size, {number: list(range(size))})


def at_places(model: Any, batch: Batch, head: Any, read: Callable[[torch.Tensor, Batch], T]) -> T:
    """What `read` makes of the hidden states (S, width) at the batch's places, where `model` would call its `head`.

    Within the model's own forward pass, so that data-parallel and sharded wrappers have its weights at hand. The head
    itself runs only where `read` calls it.
    """
    device = next(model.parameters()).device
    batch = Batch.of({name: part.to(device) for name, part in batch.tensors().items()})
    found: list[T] = []

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        found.append(read(hidden.reshape(-1, hidden.shape[-1])[batch.at], batch))
        return hidden[..., :1]

    head.forward = forward
    try:
        model(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            attention_mask=attention(model, batch.ends),
            use_cache=False,
        )
    finally:
        del head.forward
    if not found:
        raise RecipeError(f"{type(inner(model)).__name__}: its output layer is never called as a module; {WAY_OUT}")
    return found[0]


def score(
    model: Any, batch: Batch, *, temperature: float = 1.0, entropies: bool = False, hidden: bool = False
) -> Scores:
    """Log-probabilities (of logits over `temperature`) of the batch's scored tokens under `model`, plain or wrapped."""
    head = inner(model).get_output_embeddings()
    plain = head.forward
    config = inner(model).config.get_text_config()

    def chunk(states: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = finished(plain(states), config).float() / temperature
        logprobs = -cross_entropy(logits, targets, reduction="none")
        if not entropies:
            return logprobs, logprobs.detach()
        with torch.no_grad():
            logs = logits.log_softmax(-1)
            return logprobs, -(logs.exp() * logs).sum(-1)

    def read(states: torch.Tensor, batch: Batch) -> Scores:
        size = max(1, LOGITS // config.vocab_size)
        if len(states) <= size:
            parts = [chunk(states, batch.targets)]
        else:
            pairs = zip(states.split(size), batch.targets.split(size), strict=True)
            parts = [checkpoint(chunk, *pair, use_reentrant=False) for pair in pairs]
        logprobs, spread = (torch.cat(column) for column in zip(*parts, strict=True))
        return Scores(logprobs, spread if entropies else None, states if hidden else None)

    return at_places(model, batch, head, read)


def rewards(model: Any, batch: Batch) -> torch.Tensor:
    """What a sequence classifier of one label says at each of the batch's places, (S,): a reward, or a value.

    A reward is read at a sequence's `last_places`, with `lay_out(..., own=True)`; a value before each token to be
    drawn, where its log-probability is read too.
    """
    head = inner(model).score
    plain = head.forward
    return at_places(model, batch, head, lambda states, _: plain(states).float().squeeze(-1))


def last_places(model: Any, pieces: Sequence[Piece]) -> list[Piece]:
    """The same sequences, scored where `transformers` reads a reward: at the last token that is not the padding one."""
    pad = inner(model).config.get_text_config().pad_token_id
    lasts = (next((at for at in reversed(range(len(ids))) if ids[at] != pad), 0) for ids, _ in pieces)
    return [Piece(piece.ids, [last]) for piece, last in zip(pieces, lasts, strict=True)]


def attention(model: Any, ends: torch.Tensor | None) -> Any:
    """The mask of trees in the form that the model's attention takes: dense booleans (R, 1, N, N), or FlexAttention's.

    None for plain causal rows, padded on the right: a causal model never looks there.
    """
    if ends is None:
        return None
    if inner(model).config._attn_implementation == "flex_attention":
        from torch.nn.attention.flex_attention import create_block_mask

        rows, width = ends.shape
        return create_block_mask(within(ends), B=rows, H=None, Q_LEN=width, KV_LEN=width, device=str(ends.device))
    i = torch.arange(ends.shape[1], device=ends.device)
    allowed = ((i[:, None] >= i) & (i[:, None] < ends[:, None, :])).unsqueeze(1)
    if inner(model).config._attn_implementation == "eager":
        # Eager attention adds its mask to the scores.
        return torch.zeros(allowed.shape, device=ends.device).masked_fill(~allowed, torch.finfo(torch.float32).min)
    return allowed


def within(ends: torch.Tensor) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]:
    """The rule of the mask as FlexAttention asks for it: may node i of a row attend to node j?"""

    def allowed(row: torch.Tensor, _head: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        return (j <= i) & (i < ends[row, j])

    return allowed


def finished(logits: torch.Tensor, config: Any) -> torch.Tensor:
    """Logits as the model would return them: some families scale or cap what comes from the head."""
    if scale := getattr(config, "logit_scale", None):
        logits = logits * scale
    if scale := getattr(config, "logits_scaling", None):
        logits = logits / scale
    if cap := getattr(config, "final_logit_softcapping", None):
        logits = cap * torch.tanh(logits / cap)
    return logits


def inner(model: Any) -> Any:
    """The model inside data-parallel wrappers; adapters may stay, for they pass on its head and config."""
    return extract_model_from_parallel(model)


def check(model: Any, *, longest: int) -> None:
    """Refuse a model for which trees are not exact, or sequences of `longest` tokens would not be.

    A small tree and its sequences go through the model itself: what ignores the mask or the positions, such as
    recurrent layers or learned distance biases, or changes logits in a way not known here, is seen there. What only
    long sequences show is read in its config.
    """
    config = inner(model).config.get_text_config()
    name = type(inner(model)).__name__
    for field in ("sliding_window", "attention_chunk_size"):
        window = getattr(config, field, None)
        if window and longest > window:
            raise RecipeError(
                f"{name}: its {field} of {window} tokens is shorter than the longest sequence, {longest} tokens, and a "
                f"tree's mask would replace it; lower max_tokens to {window}, or {WAY_OUT}"
            )
    rope = getattr(config, "rope_parameters", None) or {}
    kind, original = rope.get("rope_type"), rope.get("original_max_position_embeddings")
    if kind in ("dynamic", "longrope") and original and longest > original:
        raise RecipeError(
            f"{name}: its {kind} positions change with the length of a batch beyond {original} tokens, and the longest "
            f"sequence has {longest}; lower max_tokens to {original}, or {WAY_OUT}"
        )
    if dropout := getattr(config, "attention_dropout", 0.0):
        raise RecipeError(
            f"{name}: attention_dropout {dropout} would drop the same of a shared prefix for all that continue it; "
            f"set it to 0 in the model's config.json, or {WAY_OUT}"
        )
    off = difference(model)
    if not off < TOLERANCE:
        raise RecipeError(
            f"{name}: a probe's tree and its sequences are {off:.2g} nats apart, so this model does "
            f"not follow a 4-D attention mask with positions; {WAY_OUT}"
        )


def difference(model: Any) -> float:
    """Largest difference between a small tree and what the model itself makes of its sequences: of log-probabilities
    (nats), or of a reward model's scores."""
    vocabulary = inner(model).config.get_text_config().vocab_size
    trunk = [(7 * place + 3) % vocabulary for place in range(8)]
    leaves = [trunk + [(11 * place + 5 + leaf) % vocabulary for place in range(6)] for leaf in range(3)]
    pieces = [Piece(ids, range(1, len(ids))) for ids in (*leaves, [*leaves[0], 1 % vocabulary, 2 % vocabulary])]
    probe = probe_logprobs if inner(model).get_output_embeddings() is not None else probe_rewards
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            tree, alone = probe(model, pieces, Layout(64, multiple=BLOCK))
    except (ValueError, TypeError, IndexError, RuntimeError) as error:
        raise RecipeError(f"{type(inner(model)).__name__}: refuses the mask of a tree ({error}); {WAY_OUT}") from error
    finally:
        model.train(was_training)
    return float((tree - alone).abs().max())


def probe_logprobs(model: Any, pieces: Sequence[Piece], layout: Layout) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of these sequences as a tree, and from the model's own logits of each."""
    device = next(model.parameters()).device
    alone = []
    for ids in (torch.tensor(piece.ids, device=device) for piece in pieces):
        logs = model(input_ids=ids[None], use_cache=False).logits[0].float().log_softmax(-1)
        alone.append(logs[:-1].gather(1, ids[1:, None]).squeeze(1))
    return score(model, lay_out(pieces, layout)).logprobs, torch.cat(alone)


def probe_rewards(model: Any, pieces: Sequence[Piece], layout: Layout) -> tuple[torch.Tensor, torch.Tensor]:
    """The same of a reward model's scores."""
    device = next(model.parameters()).device
    alone = [
        model(input_ids=torch.tensor([piece.ids], device=device), use_cache=False).logits[0].float() for piece in pieces
    ]
    return rewards(model, lay_out(last_places(model, pieces), layout, own=True)), torch.cat(alone)
