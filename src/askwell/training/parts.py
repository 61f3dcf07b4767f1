"""What `askwell merge` averages: checkpoints on disk, by the headers of their files, and whether they fit. No torch.

Parts fit where an average of their weights means something: the same architecture, tensors of the same shapes, the
same tokenizer, and one base from which all were trained, for only then are their weights near each other.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import safe_open

from askwell import runs
from askwell.errors import DataError, RecipeError

ADAPTER_CONFIG = "adapter_config.json"
PASSING = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache"}
"""Fields of a model's config that say nothing of what it computes."""
TOKENIZER = ("added_tokens", "normalizer", "pre_tokenizer", "model", "post_processor", "decoder")
"""What in tokenizer.json decides which ids a text becomes."""


class Place(NamedTuple):
    """Where a tensor stands, and its shape."""

    file: Path
    shape: tuple[int, ...]


class Part(NamedTuple):
    """A checkpoint: the path that named it, its folder, its model's (or adapters') config, its tensors by name."""

    path: Path
    folder: Path
    config: dict[str, Any]
    tensors: dict[str, Place]

    @property
    def adapters(self) -> bool:
        """Whether these are LoRA adapters, not a whole model."""
        return (self.folder / ADAPTER_CONFIG).is_file()

    @property
    def scale(self) -> float:
        """What the product of an adapter's factors is multiplied by."""
        rank = self.config["r"]
        return self.config["lora_alpha"] / (rank**0.5 if self.config.get("use_rslora") else rank)


def read(paths: Sequence[Path]) -> list[Part]:
    """The parts at these paths. Raises DataError for what cannot be read, RecipeError where they do not fit."""
    parts = [part_of(path) for path in paths]
    drop_tied(parts)
    for part in parts[1:]:
        compare(parts[0], part)
    common_base(parts)
    return parts


def part_of(path: Path) -> Part:
    """The checkpoint of a run directory, or in a folder. Raises DataError."""
    folder = path
    if (path / "checkpoint").is_dir() and not (path / "config.json").is_file():
        if not (path / "manifest.json").is_file():
            raise DataError(f"{path}: an unfinished run (no manifest.json); repeat its command, which resumes it")
        folder = path / "checkpoint"
    adapters = (folder / ADAPTER_CONFIG).is_file()
    files = sorted(folder.glob("adapter_model.safetensors" if adapters else "*.safetensors"))
    config = folder / (ADAPTER_CONFIG if adapters else "config.json")
    if not files or not config.is_file():
        raise DataError(
            f"{path}: no {config.name} with *.safetensors; name run directories of `askwell train`, or folders as "
            "`save_pretrained` leaves them (a model's name on a hub is none: download it first)"
        )
    tensors: dict[str, Place] = {}
    for file in files:
        with safe_open(file, framework="numpy") as opened:
            for name in opened.keys():  # noqa: SIM118, no mapping
                tensors[name] = Place(file, tuple(opened.get_slice(name).get_shape()))
    part = Part(path, folder, json.loads(config.read_text(encoding="utf-8")), tensors)
    if adapters:
        linear(part)
    return part


def linear(part: Part) -> None:
    """Refuse adapters whose effect is more than the product of two factors."""
    rules = {
        "peft_type": ("LORA",),
        "use_dora": (False, None),
        "bias": ("none",),
        "lora_bias": (False, None),
        "rank_pattern": ({}, None),
        "alpha_pattern": ({}, None),
        # Other ways to begin take a part of the base away when adapters are loaded, by their rank.
        "init_lora_weights": (True, False, None, "gaussian", "orthogonal", "eva"),
        # Factors of several experts in one tensor.
        "target_parameters": (None, []),
        "use_bdlora": (None, False),
        "kasa_config": (None,),
        "monteclora_config": (None,),
    }
    for field, allowed in rules.items():
        if (value := part.config.get(field)) not in allowed:
            raise RecipeError(
                f"{part.path}: adapters with {field} {value!r} are not plain LoRA, whose average is exact; merge them "
                "into their base (`merge_and_unload` of PEFT) and average whole models"
            )


def drop_tied(parts: Sequence[Part]) -> None:
    """Leave out a head that only some parts store beside the embeddings that it shares: loading ties it again."""
    everywhere = set.intersection(*(set(part.tensors) for part in parts))
    embeddings = {parts[0].tensors[name].shape for name in everywhere if "embed" in name}
    for part in parts:
        if part.config.get("tie_word_embeddings"):
            for name in part.tensors.keys() - everywhere:
                if part.tensors[name].shape in embeddings:
                    del part.tensors[name]


def compare(one: Part, other: Part) -> None:
    """Refuse two parts that cannot be averaged: kind, architecture, tensors, tokenizer."""
    if one.adapters != other.adapters:
        names = [str(part.path) for part in sorted((one, other), key=lambda part: part.adapters)]
        raise RecipeError(f"{names[0]} is a whole model and {names[1]} are adapters; average one kind with its own")
    if one.adapters:
        bases = [part.config.get("base_model_name_or_path") for part in (one, other)]
        if bases[0] != bases[1]:
            raise RecipeError(f"{one.path} adapts {bases[0]}, {other.path} adapts {bases[1]}; adapters need one base")
    else:
        fields = sorted((one.config.keys() | other.config.keys()) - PASSING)
        if changed := [name for name in fields if one.config.get(name) != other.config.get(name)]:
            values = f"{one.config.get(changed[0])!r} and {other.config.get(changed[0])!r}"
            raise RecipeError(
                f"{one.path} and {other.path}: their config.json differs in {', '.join(changed)} ({values}); average "
                "models of one architecture"
            )
    if missing := sorted(one.tensors.keys() ^ other.tensors.keys()):
        lacking = other if missing[0] in one.tensors else one
        raise RecipeError(
            f"{lacking.path}: no tensor {missing[0]!r} ({len(missing)} are in one of {one.path} and {other.path} "
            "alone); average models of one architecture"
        )
    for name, place in one.tensors.items():
        if extent(name, place) != extent(name, other.tensors[name]):
            raise RecipeError(
                f"tensor {name!r} is {list(place.shape)} in {one.path} and {list(other.tensors[name].shape)} in "
                f"{other.path}; average models of the same sizes"
            )
    if (what := tokenizers_differ(one.folder, other.folder)) is not None:
        raise RecipeError(
            f"{one.path} and {other.path} differ in their {what}: the same id would mean two things; average models "
            "that share a tokenizer"
        )


def factor(name: str) -> int | None:
    """The dimension of an adapter's tensor that is its rank: 0 of the factor A, 1 of B; None for other tensors."""
    return 0 if "lora_A" in name or "lora_embedding_A" in name else 1 if "lora_" in name else None


def extent(name: str, place: Place) -> tuple[int, ...]:
    """A tensor's shape, less its rank, in which adapters may differ."""
    along = factor(name)
    return tuple(size for dimension, size in enumerate(place.shape) if dimension != along)


def tokenizers_differ(one: Path, other: Path) -> str | None:
    """In what the tokenizers of two folders differ: tokenizer or chat template; None where they do not."""
    fast = [folder / "tokenizer.json" for folder in (one, other)]
    if all(file.is_file() for file in fast):
        read = [json.loads(file.read_text(encoding="utf-8")) for file in fast]
        if any(read[0].get(name) != read[1].get(name) for name in TOKENIZER):
            return "tokenizer"
    elif contents(one, "vocab*", "merges.txt", "*.model") != contents(other, "vocab*", "merges.txt", "*.model"):
        return "tokenizer"
    return "chat template" if contents(one, "*.jinja") != contents(other, "*.jinja") else None


def contents(folder: Path, *patterns: str) -> dict[str, bytes]:
    """The files of a folder that match one of the patterns."""
    return {file.name: file.read_bytes() for pattern in patterns for file in folder.glob(pattern)}


def common_base(parts: Sequence[Part]) -> None:
    """Refuse parts that no training connects. What is not known, such as of a folder that is no run, passes."""
    lines = {part.path: ancestors(part.path) for part in parts}
    known = {path: line for path, line in lines.items() if len(line) > 1 or runs.recipe_of(Path(line[0]))}
    for path, line in known.items():
        first = next(iter(known))
        if not set(line) & set(known[first]):
            raise RecipeError(
                f"{first} was trained from {known[first][-1]}, {path} from {line[-1]}; weights of unlike origin have "
                "no meaningful average: train the parts from one base"
            )


def ancestors(path: Path) -> list[str]:
    """A run and those that it was trained from, one after another, as far as their recipes say."""
    line = [str(path)]
    while True:
        here = Path(line[-1])
        if here.is_dir():
            here = here.resolve()
            here = here.parent if here.name == "checkpoint" else here
            line[-1] = str(here)
        recipe = runs.recipe_of(here)
        parent = (recipe.get("parts") or [recipe.get("model")])[0]
        if parent in (None, "scratch") or parent in line:
            return line
        line.append(str(parent))


def training_of(path: Path) -> dict[str, Any]:
    """The recipe of the training that a model comes from, of a merged one that of its first part; empty if unknown."""
    for place in ancestors(path):
        told = runs.recipe_of(Path(place))
        if told.get("command") != "merge":
            return told if told.get("command") == "train" else {}
    return {}
