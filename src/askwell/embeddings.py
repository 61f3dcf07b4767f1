"""Texts to vectors by an encoder on this machine: cosine says how near two of them are in meaning.

Any encoder that `transformers` loads. Where its folder is that of a sentence-transformers model, its pooling and its
prompts for questions and passages are read from there, else a text is the mean of its tokens; a model with layers of
another kind behind the pooling is refused. That is all that is needed of that library here, so it is no dependency.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from huggingface_hub import snapshot_download
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerBase

from askwell import weights
from askwell.errors import DataError

FILES = ("*.json", "*.txt", "*.model", "*.safetensors")
"""What is fetched of a model that is not on this machine."""
POOLINGS = ("mean", "cls", "lasttoken")
PLAIN = ("Transformer", "Pooling", "Normalize")
"""Parts of a sentence-transformers model that are understood."""
PROMPTS = {"question": ("query",), "passage": ("document", "passage", "corpus")}
"""Names under which such a model has what is put before a text, the first that it has."""
BATCH = 64


class Encoder(NamedTuple):
    """A loaded encoder, on a GPU where there is one."""

    model: Any
    tokenizer: PreTrainedTokenizerBase
    pooling: str
    prompts: dict[str, str]

    def vectors(self, texts: Sequence[str], kind: Literal["question", "passage"]) -> NDArray[np.float32]:
        """A row of length 1 for each text, (n, d); a text that is too long is cut."""
        names = [name for name in PROMPTS[kind] if name in self.prompts]
        whole = [(self.prompts[names[0]] if names else "") + text for text in texts]
        found = [self._pooled(whole[start : start + BATCH]) for start in range(0, len(whole), BATCH)]
        return np.concatenate(found) if found else np.zeros((0, 0), dtype=np.float32)

    @torch.inference_mode()
    def _pooled(self, texts: Sequence[str]) -> NDArray[np.float32]:
        room = min(self.tokenizer.model_max_length, getattr(self.model.config, "max_position_embeddings", 512))
        read = self.tokenizer(list(texts), padding=True, truncation=True, max_length=room, return_tensors="pt")
        read = read.to(self.model.device)
        states, mask = self.model(**read).last_hidden_state, read["attention_mask"]  # (B, T, d), (B, T)
        rows = torch.arange(len(texts), device=mask.device)
        if self.pooling == "cls":
            pooled = states[rows, mask.argmax(dim=1)]
        elif self.pooling == "lasttoken":
            pooled = states[rows, mask.shape[1] - 1 - mask.flip(1).argmax(dim=1)]
        else:
            pooled = (states * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return torch.nn.functional.normalize(pooled.float(), dim=1).cpu().numpy()


def load(name: str) -> Encoder:
    """An encoder by path or name on the Hub, weights in float32. Raises DataError."""
    with weights.readable(name, "encoder"):
        place = Path(name if Path(name).is_dir() else snapshot_download(name, allow_patterns=list(FILES)))
        pooling, prompts = pooling_of(place, name), json_in(place / "config_sentence_transformers.json").get("prompts")
        model = AutoModel.from_pretrained(place, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(place)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Encoder(model.to(weights.device()).eval(), tokenizer, pooling, prompts or {})


def pooling_of(place: Path, name: str) -> str:
    """How an encoder makes one vector of those of its tokens: as its folder says, else their mean."""
    modules = json_in(place / "modules.json") or []
    kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    folders = [module["path"] for module, kind in zip(modules, kinds, strict=True) if kind == "Pooling"]
    config = json_in(place / folders[0] / "config.json") if folders else {}
    own = config.get(
        "pooling_mode", [key for key, chosen in config.items() if key.startswith("pooling_mode_") and chosen]
    )
    modes = [own] if isinstance(own, str) else [str(mode) for mode in own]
    plain = [mode.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token") for mode in modes]
    if others := [kind for kind in kinds if kind not in PLAIN] + [mode for mode in plain if mode not in POOLINGS]:
        raise DataError(
            f"model {name!r}: an encoder with {', '.join(others)}, which askwell does not know; choose one made of "
            f"{', '.join(PLAIN)}, with pooling {' or '.join(POOLINGS)}"
        )
    return plain[0] if plain else "mean"


def json_in(file: Path) -> Any:
    """What a JSON file holds; an empty object where there is none."""
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
