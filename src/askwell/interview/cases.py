"""Which cases are interviewed, and the order in which their options are shown."""

import hashlib
from pathlib import Path
from random import Random

from askwell import runs
from askwell.errors import DataError
from askwell.records import Case

MADE_BY = ("askwell cases read", "askwell cases build")


def chosen(path: Path, limit: int | None) -> list[Case]:
    """The cases of a finished run; with a limit so many, drawn by the hash of their id, in the order of the file."""
    cases = list(runs.records_of(path, Case, made_by=MADE_BY))
    if not cases:
        raise DataError(f"{path}: no cases in it")
    if limit is None or limit >= len(cases):
        return cases
    kept = set(sorted((case.id for case in cases), key=lambda id: hashlib.sha256(id.encode()).digest())[:limit])
    return [case for case in cases if case.id in kept]


def shuffled(case: Case, seed: int) -> Case:
    """The same case with its options in another order, by seed and id.

    Where options are called by letters, the letters stay in their order and the texts change places, the answer's with
    them; names that mean something stay with their texts.
    """
    names = list(case.options)
    order = Random(f"options {seed} {case.id}").sample(names, len(names))
    if any(len(name) > 1 for name in names):
        return case.model_copy(update={"options": {name: case.options[name] for name in order}})
    options = {name: case.options[other] for name, other in zip(names, order, strict=True)}
    return case.model_copy(update={"options": options, "answer": names[order.index(case.answer)]})
