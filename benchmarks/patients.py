"""Whom do patients without a language model answer, and with what? Doctors' real questions against real records.

    python benchmarks/patients.py --data path/to/data [--encoder PATH_OR_NAME]

The 620 follow-up questions of MediQ-AskDocs and the facts of its 302 cases, by the threshold from which a fact answers
a question: the share of questions that a person's own record answers, and that somebody else's does (of another post,
drawn once), which is what chance gives; the facts an answer has; and where nearly all words of a fact are in what the
person really replied, the share of questions whose answer has that fact. `lexical` needs nothing, `embeddings` a
sentence encoder. 95 % intervals by bootstrap over posts. The last line is JSON.
"""

import argparse
import json
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from askwell import embeddings, jsonl, recipes, runs
from askwell.interview import lexical
from askwell.records import Case, Thread
from askwell.sources import cases, ingest
from askwell.statistics import Estimate, mean_interval

Picks = Callable[[str, tuple[str, ...]], tuple[str, ...]]
OVERLAPS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4)
NEAR = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6)


class Asked(NamedTuple):
    """A question, whose post it is of, the facts of its case, those of another, and those that were really replied."""

    question: str
    group: str
    facts: tuple[str, ...]
    others: tuple[str, ...]
    replied: tuple[str, ...]


class Row(NamedTuple):
    """What a threshold gives: shares of questions answered from the own record and from another, facts an answer,
    the share of questions whose answer has the fact that was really replied."""

    kind: str
    threshold: float
    own: Estimate
    other: Estimate
    facts: float
    right: Estimate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with askdocs/test_q.jsonl and mediq")
    parser.add_argument("--encoder", help="path or Hugging Face name of a sentence encoder")
    options = parser.parse_args()
    asked = asked_of(options.data)
    print(
        f"{len(asked)} questions, {sum(bool(each.replied) for each in asked)} with a fact that says what was replied\n"
    )
    print("| patient | from | own record answers | another's | facts an answer | tells what was replied |")
    print("|---|---|---|---|---|---|")
    ways = [("lexical", threshold, by_words(threshold)) for threshold in OVERLAPS]
    if options.encoder:
        nearness = nearness_of(embeddings.load(options.encoder), asked)
        ways += [("embeddings", threshold, by_meaning(nearness, threshold)) for threshold in NEAR]
    rows = [measured(kind, threshold, picks, asked) for kind, threshold, picks in ways]
    print(json.dumps({"questions": len(asked), "rows": [row._asdict() for row in rows]}))


def asked_of(data: Path) -> list[Asked]:
    """The questions below the posts that cases are of."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        source = recipes.IngestRecipe(source="askdocs", input=data / "askdocs", output=folder / "threads")
        runs.carry_out(ingest, source, "ingest")
        threads = list(jsonl.read(source.output / "records.jsonl", Thread))
        read = recipes.CasesReadRecipe(input=data / "mediq" / "askdocs_mcq.jsonl", output=folder / "cases")
        runs.carry_out(cases, read, "cases read")
        known = {case.id.partition("/")[2]: case for case in jsonl.read(read.output / "records.jsonl", Case)}
    draw = random.Random(0)
    found = []
    for thread in threads:
        case = known[thread.conversation_id]
        other = draw.choice([each for each in known.values() if each.group != case.group])
        replied = lexical.stated(thread.answer, case.facts) if thread.answer else ()
        found.append(Asked(thread.question, thread.group, case.facts, other.facts, replied))
    return found


def by_words(overlap: float) -> Picks:
    """What `lexical` says."""
    return lambda question, facts: lexical.answering(question, facts, overlap=overlap)


def nearness_of(encoder: embeddings.Encoder, asked: Sequence[Asked]) -> Callable[[str, str], float]:
    """The cosine of any question and fact."""
    questions = sorted({each.question for each in asked})
    facts = sorted({fact for each in asked for fact in (*each.facts, *each.others)})
    every = encoder.vectors(questions, "question") @ encoder.vectors(facts, "passage").T
    row, column = ({text: place for place, text in enumerate(texts)} for texts in (questions, facts))
    return lambda question, fact: float(every[row[question], column[fact]])


def by_meaning(nearness: Callable[[str, str], float], near: float) -> Picks:
    """What `embeddings` says."""
    return lambda question, facts: tuple(fact for fact in facts if nearness(question, fact) >= near)


def measured(kind: str, threshold: float, picks: Picks, asked: Sequence[Asked]) -> Row:
    """A line of the table, shown."""
    groups = [each.group for each in asked]
    own = [picks(each.question, each.facts) for each in asked]
    other = [picks(each.question, each.others) for each in asked]
    right = [any(fact in said for fact in each.replied) for each, said in zip(asked, own, strict=True) if each.replied]
    row = Row(
        kind,
        threshold,
        mean_interval([bool(said) for said in own], groups),
        mean_interval([bool(said) for said in other], groups),
        float(np.mean([len(said) for said in own if said] or [0])),
        mean_interval(right, [each.group for each in asked if each.replied]),
    )
    shares = " | ".join(f"{share.value:.2f} [{share.low:.2f}, {share.high:.2f}]" for share in (row.own, row.other))
    told = f"{row.right.value:.2f} [{row.right.low:.2f}, {row.right.high:.2f}]"
    print(f"| {kind} | {threshold:.2f} | {shares} | {row.facts:.1f} | {told} |", flush=True)
    return row


if __name__ == "__main__":
    main()
