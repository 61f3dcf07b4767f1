"""A linear reading of questions: TF-IDF of word and character n-grams, logistic regressions.

One regression over all services says whether a text asks for anything at all; then one for each slot of the service,
learned from questions alone (with offers and confirmations among them, which name the same slots, the regressions of
rare slots learn to say no), and, with less weight, from those of other services that have a slot of this name. The
confidence of a set is the product over its decisions.
"""

import random
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from askwell.grading.utterances import Example, joined, words

Reading = tuple[frozenset[str], float]
INVERSE_PENALTY = 30.0
# Measured on held-out dialogues of train: 0.2 scores 0.87 of the questions at an exact match of 0.95, none 0.84.
BORROWED = 0.2


def spaced(text: str) -> str:
    """What the n-grams are taken from: the same words for all graders."""
    return " ".join(words(text))


def vectorizers(vocabularies: Sequence[Mapping[str, int] | None] = (None, None)) -> list[TfidfVectorizer]:
    """Word n-grams and character n-grams; empty, or of known vocabularies."""
    common = {"preprocessor": spaced, "sublinear_tf": True, "dtype": np.float64}
    return [
        TfidfVectorizer(ngram_range=(1, 3), min_df=2, token_pattern=r"\S+", vocabulary=vocabularies[0], **common),
        TfidfVectorizer(ngram_range=(2, 5), min_df=3, analyzer="char_wb", vocabulary=vocabularies[1], **common),
    ]


def regression(
    features: sparse.csr_matrix, truth: Sequence[bool], weights: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Weights and, last, the intercept. A slot that every question asks for, or none, gets the intercept alone."""
    if len(set(truth)) == 1:
        constant = np.zeros(features.get_shape()[1] + 1)
        constant[-1] = 20.0 if truth[0] else -20.0
        return constant
    model = LogisticRegression(C=INVERSE_PENALTY, solver="liblinear", random_state=0)
    model.fit(features, truth, sample_weight=weights)
    return np.append(model.coef_[0], model.intercept_)


class Linear:
    """Fitted weights: the row 0 says whether a text asks at all, then one row for each (service, slot)."""

    def __init__(
        self, slots: dict[str, tuple[str, ...]], vectors: Sequence[TfidfVectorizer], weights: NDArray[np.float64]
    ) -> None:
        self.slots = slots
        self._vectors = vectors
        self._weights = weights

    @classmethod
    def fit(cls, examples: Sequence[Example], slots: dict[str, tuple[str, ...]], *, seed: int) -> "Linear":
        """Learn from examples of the services in `slots`."""
        questions = [example for example in examples if example.asks]
        questions += joined(questions, count=len(questions), random_source=random.Random(seed))
        vectors = vectorizers()
        for vector in vectors:
            vector.fit([question.text for question in questions])
        asking = regression(matrix(vectors, [example.text for example in examples]), [bool(e.asks) for e in examples])
        rows = [asking]
        features = matrix(vectors, [question.text for question in questions])
        services = np.array([question.service for question in questions])
        for service, names in slots.items():
            for slot in names:
                kin = [other for other, theirs in slots.items() if slot in theirs]
                mine = np.flatnonzero(np.isin(services, kin))
                truth = [slot in questions[place].asks for place in mine]
                rows.append(regression(features[mine], truth, np.where(services[mine] == service, 1.0, BORROWED)))
        return cls(slots, vectors, np.stack(rows))

    def read(self, questions: Sequence[tuple[str, str]]) -> list[Reading]:
        """The most likely set for each (service, text), and its probability by these weights."""
        if not questions:
            return []
        features = matrix(self._vectors, [text for _, text in questions])
        scores = features @ self._weights[:, :-1].T + self._weights[:, -1]
        likely = 1 / (1 + np.exp(-np.clip(scores, -30, 30)))
        rows = rows_of(self.slots)
        return [
            decided(self.slots[service], float(line[0]), line[rows[service]])
            for (service, _), line in zip(questions, likely, strict=True)
        ]

    def state(self) -> tuple[dict[str, object], dict[str, NDArray]]:
        """What JSON holds of the model, and what arrays do."""
        vocabularies = [sorted(vector.vocabulary_, key=vector.vocabulary_.__getitem__) for vector in self._vectors]
        kept = sparse.csr_matrix(self._weights)
        arrays: dict[str, NDArray] = {f"idf_{number}": vector.idf_ for number, vector in enumerate(self._vectors)}
        arrays |= {"data": kept.data, "indices": kept.indices, "indptr": kept.indptr, "shape": np.asarray(kept.shape)}
        return {"vocabularies": vocabularies}, arrays

    @classmethod
    def restore(
        cls, slots: dict[str, tuple[str, ...]], values: Mapping[str, list[list[str]]], arrays: Mapping[str, NDArray]
    ) -> "Linear":
        """The inverse of `state`."""
        vectors = vectorizers([{term: place for place, term in enumerate(terms)} for terms in values["vocabularies"]])
        for number, vector in enumerate(vectors):
            vector.idf_ = arrays[f"idf_{number}"]
        parts = (arrays["data"], arrays["indices"], arrays["indptr"])
        return cls(slots, vectors, sparse.csr_matrix(parts, shape=tuple(arrays["shape"])).toarray())


def matrix(vectors: Sequence[TfidfVectorizer], texts: Sequence[str]) -> sparse.csr_matrix:
    return sparse.csr_matrix(sparse.hstack([vector.transform(texts) for vector in vectors]))


def rows_of(slots: Mapping[str, tuple[str, ...]]) -> dict[str, slice]:
    """Where each service's slots stand among the rows of the weights, after the row that says whether it asks."""
    places, start = {}, 1
    for service, names in slots.items():
        places[service] = slice(start, start + len(names))
        start += len(names)
    return places


def decided(names: Sequence[str], asks: float, likely: NDArray[np.float64]) -> Reading:
    """A set and its probability. A text that asks, but for no slot in particular, is never sure: half at most."""
    if asks < 0.5:
        return frozenset(), 1 - asks
    found = frozenset(name for name, probability in zip(names, likely, strict=True) if probability >= 0.5)
    sure = float(np.prod(np.maximum(likely, 1 - likely)))
    return found, asks * sure if found else min(1 - asks, 0.5)
