"""`askwell cases read`: published multiple-choice cases to records, for `askwell evaluate interviews`.

Writes records.jsonl (Case) in the order of the input and rejected.jsonl with what is no case and why: together they are
all that the input holds. Started again, it starts over.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from askwell import jsonl
from askwell.errors import DataError
from askwell.recipes import CasesReadRecipe
from askwell.records import Case
from askwell.runs import Run
from askwell.sources import mediq
from askwell.sources.drafts import Rejected
from askwell.sources.formats import fits

log = logging.getLogger(__name__)
MADE_BY = "askwell cases read"


def inputs(recipe: CasesReadRecipe) -> list[Path]:
    """The files that are read."""
    if recipe.input.is_file():
        return [recipe.input]
    found = sorted(path for path in recipe.input.glob("*") if path.is_file() and fits(path.name, mediq.NAMES))
    if not found:
        raise DataError(f"{recipe.input}: no file called {' or '.join(mediq.NAMES)} in it; --input names what to read")
    return found


def plan(recipe: CasesReadRecipe) -> dict[str, object]:
    """How many cases the files hold at most."""
    return {"files": {path.name: path.stat().st_size for path in inputs(recipe)}, "cases": len(list(found(recipe)))}


def run(recipe: CasesReadRecipe, run: Run) -> dict[str, object]:
    """Write what is a case and what is none."""
    rejected: list[Rejected] = []
    cases: dict[str, Case] = {}
    for entry in found(recipe):
        if isinstance(entry, Rejected):
            rejected.append(entry)
        elif entry.id in cases:
            raise DataError(f"{recipe.input}: two cases are called {entry.id!r}; ids must be unique within a file")
        else:
            cases[entry.id] = entry
    reasons = Counter(entry.reason for entry in rejected)
    for entry in rejected:
        log.warning("%s rejected: %s: %s: %r", entry.where, entry.reason, entry.detail, entry.quote)
    if not cases:
        raise DataError(f"{recipe.input}: no case in it: {dict(reasons) or 'every file is empty'}")
    faults = reasons.total() - reasons["nothing to ask"]
    if faults > recipe.max_rejected * (len(cases) + faults):
        raise DataError(
            f"{recipe.input}: {faults} of {len(cases) + faults} lines are no cases, where --max_rejected allows "
            f"{recipe.max_rejected:.1%}: {dict(reasons.most_common())}; mend them, or raise it"
        )
    jsonl.write(run.path / "rejected.jsonl", rejected)
    jsonl.write(run.records, cases.values())
    return {
        "cases": len(cases),
        "groups": len({case.group for case in cases.values()}),
        "facts": sum(len(case.facts) for case in cases.values()),
        "rejected": dict(reasons.most_common()),
    }


def found(recipe: CasesReadRecipe) -> Iterator[Case | Rejected]:
    """Cases and what is none, file by file."""
    for path in inputs(recipe):
        yield from mediq.read(path, name=path.name, compat=recipe.compat, keep=recipe.keep_unaskable)
