"""Which slots of the conversation's service does a text ask for? Learned from experts; unsure, it abstains.

A checkpoint is grader.json (kind, slots, wording, thresholds, vocabulary) and weights.npz, which holds plain arrays;
nothing in it can execute code.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from askwell import runs
from askwell.errors import DataError
from askwell.grading.utterances import Example, Wording, wordless

Kind = Literal["linear", "convolutional"]
Reading = tuple[frozenset[str], float]


class Model(Protocol):
    """What reads a question: the set it is likely to ask for, and how likely that is."""

    slots: dict[str, tuple[str, ...]]

    def read(self, questions: Sequence[tuple[str, str]]) -> list[Reading]: ...

    def state(self) -> tuple[dict[str, object], dict[str, NDArray]]: ...


def model_class(kind: Kind) -> type:
    """Imported when needed: a linear grader is read without torch."""
    if kind == "linear":
        from askwell.grading.linear import Linear

        return Linear
    from askwell.grading.convolution import Convolutional

    return Convolutional


class SlotGrader:
    """Reads slots in texts, and abstains below `threshold`, or where a text is worded like nothing experts say."""

    def __init__(self, kind: Kind, model: Model, wording: Wording, *, threshold: float) -> None:
        self.kind: Kind = kind
        self.wording = wording
        self.threshold = threshold
        self._model = model

    @classmethod
    def fit(cls, kind: Kind, examples: Sequence[Example], *, seed: int) -> "SlotGrader":
        """Learn from `examples`; of services that ask for nothing in them, it will say nothing.

        The grader does not abstain yet: `wording.least` and `threshold` are 0 until they are calibrated.
        """
        found: dict[str, set[str]] = {}
        for example in examples:
            if example.asks:
                found.setdefault(example.service, set()).update(example.asks)
        if not found:
            raise DataError(f"no request among {len(examples)} training utterances; give runs of annotated dialogues")
        slots = {service: tuple(sorted(found[service])) for service in sorted(found)}
        model = model_class(kind).fit([example for example in examples if example.service in slots], slots, seed=seed)
        return cls(kind, model, Wording.learn(example.text for example in examples), threshold=0.0)

    @property
    def services(self) -> tuple[str, ...]:
        return tuple(self._model.slots)

    def slots(self, service: str) -> frozenset[str]:
        """All slots of a service that experts were seen to ask for; empty for an unknown service."""
        return frozenset(self._model.slots.get(service, ()))

    def asked(self, questions: Sequence[tuple[str, str]]) -> list[frozenset[str] | None]:
        """The slots that each (service, text) asks for, or None where the grader abstains.

        A text without a letter or digit asks for nothing, whatever the service.
        """
        readings = self.read(questions)
        return [
            frozenset() if wordless(text) else reading[0] if reading and reading[1] >= self.threshold else None
            for (_, text), reading in zip(questions, readings, strict=True)
        ]

    def read(self, questions: Sequence[tuple[str, str]]) -> list[Reading | None]:
        """The likely set and its confidence, whatever the threshold; None for unknown services and odd wording."""
        fit = [
            place
            for place, (service, text) in enumerate(questions)
            if service in self._model.slots and self.wording.familiar(text) and not wordless(text)
        ]
        readings: list[Reading | None] = [None] * len(questions)
        for place, reading in zip(fit, self._model.read([questions[place] for place in fit]), strict=True):
            readings[place] = reading
        return readings

    def save(self, directory: Path) -> None:
        """Write grader.json and weights.npz, each whole or not at all."""
        directory.mkdir(parents=True, exist_ok=True)
        values, arrays = self._model.state()
        temporary = directory / ".weights.tmp.npz"
        with temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(directory / "weights.npz")
        described = {
            "kind": self.kind,
            "threshold": self.threshold,
            "slots": self._model.slots,
            "longest": self.wording.longest,
            "least": self.wording.least,
            "pairs": followers(self.wording),
            "model": values,
        }
        runs.write_json(directory / "grader.json", described)

    @classmethod
    def load(cls, directory: Path) -> "SlotGrader":
        """Read what `save` wrote; the answers are the same."""
        file, weights = directory / "grader.json", directory / "weights.npz"
        for path in (file, weights):
            if not path.is_file():
                raise DataError(f"{path}: no such file; a grader is the checkpoint folder of an `askwell grader` run")
        described = json.loads(file.read_text(encoding="utf-8"))
        slots = {service: tuple(names) for service, names in described["slots"].items()}
        pairs = ((first, second) for first, seconds in described["pairs"].items() for second in seconds)
        wording = Wording(pairs, longest=described["longest"], least=described["least"])
        with np.load(weights, allow_pickle=False) as arrays:
            model = model_class(described["kind"]).restore(slots, described["model"], dict(arrays))
        return cls(described["kind"], model, wording, threshold=described["threshold"])


def followers(wording: Wording) -> Mapping[str, list[str]]:
    """The pairs by their first word, in order: half the size of a list of pairs, and the same file every time."""
    found: dict[str, list[str]] = {}
    for first, second in sorted(wording.pairs):
        found.setdefault(first, []).append(second)
    return found
