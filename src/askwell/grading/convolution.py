"""A convolutional reading of questions: word vectors, windows of one, three and five words, the maximum over the text.

One network serves all services: what words mean is learned from all of them, and an embedding of the service, with one
output for each (service, slot), says what they ask for there. The confidence of a set is the product over its slots.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from askwell.errors import DataError
from askwell.grading.utterances import Example, joined, words

Reading = tuple[frozenset[str], float]
WIDTH, FILTERS, SERVICE_WIDTH, HIDDEN = 96, 96, 32, 256
WINDOWS = (1, 3, 5)
SIZES = [WIDTH, FILTERS, SERVICE_WIDTH, HIDDEN, *WINDOWS]
PADDING, UNKNOWN = 0, 1
EPOCHS, STEPS_AT_LEAST, BATCH, PEAK_RATE = 6, 120, 128, 6e-3
# A quarter of the offers and confirmations an epoch: all of them took four times as long and read no better.
NEGATIVES, JOINED, FORGOTTEN = 0.25, 0.3, 0.05
BATCHES_SORTED, READ_AT_ONCE = 20, 512


class Network(nn.Module):
    """Words and service to one logit for each (service, slot)."""

    def __init__(self, vocabulary: int, services: int, outputs: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary + 2, WIDTH, padding_idx=PADDING)
        self.windows = nn.ModuleList(nn.Conv1d(WIDTH, FILTERS, size, padding=size // 2) for size in WINDOWS)
        self.service = nn.Embedding(services, SERVICE_WIDTH)
        self.hidden = nn.Linear(len(WINDOWS) * FILTERS + SERVICE_WIDTH, HIDDEN)
        self.deep = nn.Linear(HIDDEN, outputs)
        self.shallow = nn.Linear(len(WINDOWS) * FILTERS, outputs)
        self.drop = nn.Dropout(0.3)
        nn.init.normal_(self.words.weight, 0, 0.1)

    def forward(self, tokens: Tensor, services: Tensor) -> Tensor:
        """(B, T) words and (B,) services to (B, outputs) logits."""
        vectors = self.drop(self.words(tokens)).transpose(1, 2)
        real = (tokens != PADDING)[:, None]
        found = [functional.relu(window(vectors)).masked_fill(~real, 0).amax(2) for window in self.windows]
        features = self.drop(torch.cat(found, 1))
        hidden = functional.relu(self.hidden(torch.cat([features, self.service(services)], 1)))
        return self.deep(self.drop(hidden)) + self.shallow(features)


def batched(examples: Sequence[Example], random_source: random.Random) -> list[list[Example]]:
    """Batches in random order; among some thousand examples those of one length go together, to save padding."""
    shuffled = random_source.sample(examples, len(examples))
    batches = []
    for start in range(0, len(shuffled), BATCH * BATCHES_SORTED):
        alike = sorted(shuffled[start : start + BATCH * BATCHES_SORTED], key=lambda example: len(example.text))
        batches += [alike[first : first + BATCH] for first in range(0, len(alike), BATCH)]
    random_source.shuffle(batches)
    return batches


class Convolutional:
    """A fitted network with its vocabulary."""

    def __init__(self, slots: dict[str, tuple[str, ...]], vocabulary: Sequence[str]) -> None:
        self.slots = slots
        self._vocabulary = {word: place for place, word in enumerate(vocabulary, start=UNKNOWN + 1)}
        self._services = {service: place for place, service in enumerate(slots)}
        self._outputs = [(service, slot) for service, names in slots.items() for slot in names]
        self._owner = torch.tensor([self._services[service] for service, _ in self._outputs])
        self._network = Network(len(vocabulary), len(slots), len(self._outputs))

    @classmethod
    def fit(cls, examples: Sequence[Example], slots: dict[str, tuple[str, ...]], *, seed: int) -> "Convolutional":
        """Learn from examples of the services in `slots`; torch's global random state is left as it was."""
        seen = Counter(word for example in examples for word in set(words(example.text)))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = cls(slots, sorted(word for word, count in seen.items() if count > 1))
            model._train(examples, random.Random(seed))
        return model

    def _train(self, examples: Sequence[Example], random_source: random.Random) -> None:
        questions = [example for example in examples if example.asks]
        others = [example for example in examples if not example.asks]
        rest, pairs = int(len(others) * NEGATIVES), int(len(questions) * JOINED)
        optimizer = torch.optim.AdamW(self._network.parameters(), lr=PEAK_RATE, weight_decay=0.01)
        in_epoch = -(-(len(questions) + rest + pairs) // BATCH)
        epochs = max(EPOCHS, -(-STEPS_AT_LEAST // in_epoch))
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, PEAK_RATE, total_steps=epochs * in_epoch + 1, pct_start=0.1
        )
        places = {output: place for place, output in enumerate(self._outputs)}
        self._network.train()
        for _ in range(epochs):
            epoch = questions + random_source.sample(others, rest)
            epoch += joined(questions, count=pairs, random_source=random_source)
            for batch in batched(epoch, random_source):
                truth = torch.zeros(len(batch), len(self._outputs))
                for row, example in enumerate(batch):
                    truth[row, [places[example.service, slot] for slot in example.asks]] = 1
                tokens, services = self._encode([(example.service, example.text) for example in batch])
                tokens[(torch.rand(tokens.shape) < FORGOTTEN) & (tokens != PADDING)] = UNKNOWN
                theirs = (self._owner == services[:, None]).float()
                loss = functional.binary_cross_entropy_with_logits(
                    self._network(tokens, services), truth, weight=theirs, reduction="sum"
                )
                optimizer.zero_grad()
                (loss / len(batch)).backward()
                nn.utils.clip_grad_norm_(self._network.parameters(), 1.0)
                optimizer.step()
                schedule.step()
        self._network.eval()

    def _encode(self, questions: Sequence[tuple[str, str]]) -> tuple[Tensor, Tensor]:
        """(B, T) words, padded with 0, and (B,) services."""
        rows = [[self._vocabulary.get(word, UNKNOWN) for word in words(text)] for _, text in questions]
        tokens = np.full((len(rows), max(map(len, rows)) or 1), PADDING, dtype=np.int64)
        for place, row in enumerate(rows):
            tokens[place, : len(row)] = row
        return torch.from_numpy(tokens), torch.tensor([self._services[service] for service, _ in questions])

    @torch.no_grad()
    def read(self, questions: Sequence[tuple[str, str]]) -> list[Reading]:
        """The most likely set for each (service, text), and its probability by the network."""
        # Texts of one length together: padding would cost more than the texts.
        order = sorted(range(len(questions)), key=lambda place: len(questions[place][1]))
        readings: list[Reading] = [(frozenset(), 0.0)] * len(questions)
        for start in range(0, len(order), READ_AT_ONCE):
            places = order[start : start + READ_AT_ONCE]
            tokens, services = self._encode([questions[place] for place in places])
            likely = torch.sigmoid(self._network(tokens, services).double()).numpy()
            for place, service, line in zip(places, services.tolist(), likely, strict=True):
                mine = np.flatnonzero(self._owner.numpy() == service)
                found = frozenset(self._outputs[output][1] for output in mine if line[output] >= 0.5)
                readings[place] = found, float(np.prod(np.maximum(line[mine], 1 - line[mine])))
        return readings

    def state(self) -> tuple[dict[str, object], dict[str, NDArray]]:
        """What JSON holds of the model, and what arrays do."""
        arrays = {name: tensor.numpy() for name, tensor in self._network.state_dict().items()}
        return {"vocabulary": list(self._vocabulary), "sizes": SIZES}, arrays

    @classmethod
    def restore(
        cls, slots: dict[str, tuple[str, ...]], values: Mapping[str, Any], arrays: Mapping[str, NDArray]
    ) -> "Convolutional":
        """The inverse of `state`. Raises DataError where the network had other sizes when it was saved."""
        if values["sizes"] != SIZES:
            raise DataError(
                f"the grader is a network of sizes {values['sizes']}, this version's is of {SIZES}; "
                "make it again with `askwell grader`"
            )
        with torch.random.fork_rng(devices=[]):
            model = cls(slots, values["vocabulary"])
        model._network.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
        model._network.eval()
        return model
