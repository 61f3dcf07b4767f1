"""`askwell grader`: learn from experts' utterances and their REQUEST acts which slots a question asks for.

Reads the conversations of one or more `askwell ingest` runs: train to learn from, dev to calibrate abstention, test for
the figures. Writes checkpoint/ (see `grading.slots`), report.json and report.md. A run that was cut is done again.

The fold concerns what is learned. Dev gives two numbers alone, and every grader takes them from all of dev.
"""

import logging
import math
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from askwell import runs
from askwell.errors import DataError
from askwell.grading import figures
from askwell.grading.slots import Reading, SlotGrader
from askwell.grading.utterances import Example, examples_of, in_fold
from askwell.recipes import GraderRecipe
from askwell.records import Conversation

log = logging.getLogger(__name__)
MADE_BY = "askwell ingest"
ODD_SHARE = 0.02
"""Share of dev's questions that may be called oddly worded: 1 in 50 of the experts' own, most of all shuffled ones."""


def inputs(recipe: GraderRecipe) -> list[Path]:
    """The runs that are read, refused here where one is not."""
    for path in recipe.input:
        runs.require(path, made_by=MADE_BY)
    return list(recipe.input)


def plan(recipe: GraderRecipe) -> dict[str, object]:
    """What would be learned from, without learning it."""
    examples = read(recipe)
    return counted(examples, learned_from(examples, recipe))


def run(recipe: GraderRecipe, run: runs.Run) -> dict[str, object]:
    """Fit, calibrate, save, report."""
    examples = read(recipe)
    train = learned_from(examples, recipe)
    counts = counted(examples, train)
    log.info("fitting a %s grader on %d utterances", recipe.kind, len(train))
    grader = SlotGrader.fit(recipe.kind, train, seed=recipe.seed)
    calibrate(grader, [example for example in examples if example.split == "dev"], precision=recipe.precision)
    grader.save(run.checkpoint)
    test = [example for example in examples if example.split == "test"]
    report = {
        "kind": recipe.kind,
        "fold": recipe.fold,
        "precision": recipe.precision,
        "threshold": grader.threshold,
        "least": grader.wording.least,
        "counts": counts,
        **figures.of_test(grader, test, seed=recipe.seed),
        "corrupted": figures.of_corrupted(grader, test, random_source=random.Random(recipe.seed)),
    }
    runs.write_json(run.report, report)
    runs.write_text(run.path / "report.md", figures.page(report))
    scored = {key: report["test"]["questions"]["exact"][key] for key in ("scored", "unscored")}
    return {**counts, **{f"test_questions_{key}": count for key, count in scored.items()}}


def read(recipe: GraderRecipe) -> list[Example]:
    """All annotated utterances of experts. A conversation that two runs hold counts once."""
    examples: list[Example] = []
    seen: set[str] = set()
    for path in recipe.input:
        for conversation in runs.records_of(path, Conversation, made_by=MADE_BY):
            if conversation.id not in seen:
                seen.add(conversation.id)
                examples.extend(examples_of(conversation))
    return examples


def learned_from(examples: Sequence[Example], recipe: GraderRecipe) -> list[Example]:
    return [example for example in examples if example.split == "train" and in_fold(example.group, recipe.fold)]


def counted(examples: Sequence[Example], train: Sequence[Example]) -> dict[str, object]:
    """Utterances, and those among them that ask for something, to learn from and in the other splits."""
    parts = {"train": train} | {
        split: [example for example in examples if example.split == split] for split in ("dev", "test")
    }
    counts: dict[str, object] = {"services": len({example.service for example in train if example.asks})}
    for name, part in parts.items():
        counts[f"{name}_utterances"] = len(part)
        counts[f"{name}_questions"] = sum(bool(example.asks) for example in part)
    return counts


def calibrate(grader: SlotGrader, dev: Sequence[Example], *, precision: float) -> None:
    """Set what the grader needs in order not to abstain: familiar wording, then confidence.

    Only questions are looked at: among all utterances the exact match is above 0.95 before anything is left out.
    """
    questions = [example for example in dev if example.asks and example.service in grader.services]
    if not questions:
        raise DataError(
            f"no question of a known service among {len(dev)} dev utterances to calibrate on; "
            "ingest with a larger --split.dev, or more conversations"
        )
    shares = [grader.wording.share(question.text) for question in questions]
    grader.wording.least = float(np.quantile(shares, ODD_SHARE, method="lower"))
    readings = grader.read([(question.service, question.text) for question in questions])
    grader.threshold = threshold(readings, [question.asks for question in questions], precision=precision)


def threshold(readings: Sequence[Reading | None], truth: Sequence[frozenset[str]], *, precision: float) -> float:
    """The lowest confidence from which on `precision` of the sets are exact, for sure: between two that occur.

    What must reach it is one standard error below the share seen (the lower end of Wilson's interval, z = 1). The
    greatest coverage at the bare share takes advantage of luck in dev: set for 0.95, it gave 0.941 and 0.946 on test.
    """
    judged = [(reading[1], reading[0] == asks) for reading, asks in zip(readings, truth, strict=True) if reading]
    judged.sort(reverse=True)
    chosen, best, right = None, 0.0, 0
    for count, (confidence, exact) in enumerate(judged, start=1):
        right += exact
        following = judged[count][0] if count < len(judged) else 0.0
        if following == confidence and count < len(judged):
            continue
        sure = lower_end(right, count)
        best = max(best, sure)
        if sure >= precision:
            chosen = (confidence + following) / 2
    if chosen is None:
        raise DataError(
            f"precision {precision} is out of reach: {best:.3f} at best, one standard error below what "
            f"{len(judged)} dev questions show; lower --precision, or give more conversations"
        )
    return chosen


def lower_end(right: int, count: int) -> float:
    """Lower end of Wilson's interval for `right` of `count`, with z = 1: right / (right + 1) where all are right."""
    share = right / count
    return (share + 0.5 / count - math.sqrt(share * (1 - share) / count + 0.25 / count**2)) / (1 + 1 / count)
