"""`askwell merge`: several models to one by averaging their weights: ALFA's policy fusion and reward fusion (4.3).

Each tensor is read from one part after another, summed in float32 and kept in the type that it has on disk, a file of
the first part at a time: in memory stands no more than that file and a tensor of each type. (Summed in bfloat16, as in
the published code, the rounding is larger than the mean of small updates.)

Adapters are averaged in what they do, not in their factors: the mean of products w_k s_k B_k A_k is the product of the
factors set side by side, [w_1 s_1 B_1, w_2 s_2 B_2, ...] and [A_1; A_2; ...], an adapter whose rank is the sum of the
parts'. The mean of the A_k times that of the B_k would be another function, with terms that cross from part to part.

Writes checkpoint/, as a training does.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from askwell.errors import DataError
from askwell.recipes import MergeRecipe
from askwell.runs import Run
from askwell.training import parts
from askwell.training.parts import Part

if TYPE_CHECKING:
    import torch

Shares = list[tuple[Part, float]]


def inputs(recipe: MergeRecipe) -> list[Path]:
    """The parts, which must fit."""
    parts.read(list(recipe.shares))
    return list(recipe.shares)


def plan(recipe: MergeRecipe) -> dict[str, object]:
    """What would be averaged, without loading torch."""
    found = parts.read(list(recipe.shares))
    return {
        "parts": len(found),
        "kind": "adapters" if found[0].adapters else "models",
        "tensors": len(found[0].tensors),
    }


def run(recipe: MergeRecipe, run: Run) -> dict[str, object]:
    """Average, and leave the result in checkpoint/."""
    from safetensors.torch import save_file

    found = parts.read(list(recipe.shares))
    shares = list(zip(found, recipe.shares.values(), strict=True))
    first = found[0]
    shutil.rmtree(run.checkpoint, ignore_errors=True)
    run.checkpoint.mkdir()
    for file in sorted(entry for entry in first.folder.iterdir() if entry.is_file()):
        if file.suffix not in (".safetensors", ".bin"):
            shutil.copy(file, run.checkpoint / file.name)
    for index in run.checkpoint.glob("*.safetensors.index.json"):
        listed = json.loads(index.read_text(encoding="utf-8"))
        listed["weight_map"] = {name: place.file.name for name, place in first.tensors.items()}
        index.write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")
    parameters = 0
    kinds: set[str] = set()
    for file, names in files(first):
        joined = {name: (mean if parts.factor(name) is None else side_by_side)(shares, name) for name in names}
        parameters += sum(tensor.numel() for tensor in joined.values())
        kinds |= {str(tensor.dtype).removeprefix("torch.") for tensor in joined.values()}
        save_file(joined, run.checkpoint / file.name, metadata={"format": "pt"})
    if first.adapters:
        rank = sum(part.config["r"] for part in found)
        config = {**first.config, "r": rank, "lora_alpha": rank, "use_rslora": False}
        (run.checkpoint / parts.ADAPTER_CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    return {**plan(recipe), "parameters": parameters, "types": sorted(kinds)}


def files(part: Part) -> Iterator[tuple[Path, list[str]]]:
    """The files of a part, each with the names of the tensors in it."""
    for file in sorted({place.file for place in part.tensors.values()}):
        yield file, [name for name, place in part.tensors.items() if place.file == file]


def mean(shares: Shares, name: str) -> "torch.Tensor":
    """The weighted mean of a tensor, summed in float32; what is no floating-point number must be the same in all."""
    import torch

    first = tensor_of(shares[0][0], name)
    if not first.is_floating_point():
        for part, _ in shares[1:]:
            if not torch.equal(tensor_of(part, name), first):
                raise DataError(f"{part.path}: tensor {name!r} of {first.dtype} differs, and cannot be averaged")
        return first
    kind = first.dtype
    total = torch.zeros(first.shape, dtype=torch.promote_types(kind, torch.float32))
    for part, share in shares:
        tensor = tensor_of(part, name)
        kind = torch.promote_types(kind, tensor.dtype)
        total.add_(tensor.to(total.dtype), alpha=share)
    return total.to(kind)


def side_by_side(shares: Shares, name: str) -> "torch.Tensor":
    """The parts' factors of an adapter as one of all their ranks; B carries share and scale of each part."""
    import torch

    along = parts.factor(name)
    assert along is not None
    factors = []
    for part, share in shares:
        tensor = tensor_of(part, name)
        scale = share * part.scale if along else 1.0
        factors.append((tensor.float() * scale).to(tensor.dtype))
    return torch.cat(factors, along)


def tensor_of(part: Part, name: str) -> "torch.Tensor":
    """A tensor from disk. The file is closed at once: an open one keeps every page that was read in memory."""
    from safetensors import safe_open

    with safe_open(part.tensors[name].file, framework="pt") as opened:
        return opened.get_tensor(name)
