"""Public formats and people's own logs to conversations: `askwell ingest`.

Reads a file, or all files of the format under a folder in the order of their names (hidden ones aside). Writes
records.jsonl (Conversation) and rejected.jsonl (Rejected): what stands in the input is in one or the other. Groups
go to train, dev and test by their hash, so that a split never depends on order, machine or what else is read. With
`redact`, both files hold redacted text alone; the split is that of the group as it was.
"""

import hashlib
import json
import logging
import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from askwell import jsonl
from askwell.errors import DataError
from askwell.recipes import IngestRecipe, Shares
from askwell.records import Conversation, Split
from askwell.runs import Run
from askwell.sources.drafts import QUOTE, Draft, Fault, Rejected, check, printable
from askwell.sources.formats import FORMATS, files_of
from askwell.sources.redaction import redact_all, redact_conversation

log = logging.getLogger(__name__)

REJECTED = "rejected.jsonl"
SHOWN = 3
"""Rejections of one reason that are logged; all are in rejected.jsonl."""
# In a quote: JSON's escapes, and what its ends may have cut in two. Both hide an address or a name.
ESCAPE = re.compile(r"\\(?:[nrt]|u[0-9a-fA-F]{4})")
CUT = re.compile(r"\A[\w.@+%'’/-]+|[\w.@+%'’/-]+\Z")


class Tally:
    """What has been accepted and rejected so far."""

    def __init__(self) -> None:
        self.messages = 0
        self.splits: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        self.redacted: Counter[str] = Counter()
        self.first: dict[str, Rejected] = {}

    def accept(self, conversation: Conversation) -> None:
        self.splits[conversation.split] += 1
        self.messages += len(conversation.messages)

    def reject(self, rejected: Rejected) -> None:
        self.rejected[rejected.reason] += 1
        self.first.setdefault(rejected.reason, rejected)
        if self.rejected[rejected.reason] <= SHOWN:
            log.warning("%s rejected: %s: %s: %r", rejected.where, rejected.reason, rejected.detail, rejected.quote)

    def counts(self) -> dict[str, object]:
        return {
            "conversations": self.splits.total(),
            "messages": self.messages,
            "rejected": dict(self.rejected.most_common()),
            **{split: self.splits[split] for split in ("train", "dev", "test")},
            "notes": dict(self.notes.most_common()),
        }

    def enforce(self, recipe: IngestRecipe, rejected: Path) -> None:
        """Raise DataError where nothing was accepted, or more was rejected than the recipe allows."""
        bad, good = self.rejected.total(), self.splits.total()
        if not bad and not good:
            raise DataError(f"{recipe.input}: no conversation in it, every file is empty")
        if good and bad <= recipe.max_rejected * (bad + good):
            return
        share = bad / (bad + good)
        reason, times = self.rejected.most_common(1)[0]
        first = self.first[reason]
        rule = f"where --max_rejected allows {recipe.max_rejected:.1%}" if good else "and none accepted"
        way_out = f", or repeat with --max_rejected {math.ceil(1000 * share) / 1000}" if good else ""
        raise DataError(
            f"{recipe.input}: {bad} of {bad + good} conversations rejected ({share:.1%}), {rule}; commonest: {reason} "
            f"({times}), first at {first.where}: {first.detail}: {first.quote!r}; mend what {rejected} lists{way_out}"
        )


def inputs(recipe: IngestRecipe) -> list[Path]:
    """The files that the stage reads."""
    return [path for path, _ in files_of(recipe)]


def plan(recipe: IngestRecipe) -> dict[str, object]:
    """Files with their bytes, and how many conversations they hold at most."""
    files = files_of(recipe)
    held = sum(FORMATS[recipe.source].held(path) for path, _ in files)
    return {
        "files": {name: path.stat().st_size for path, name in files},
        "conversations": held if recipe.limit is None else min(held, recipe.limit),
    }


def run(recipe: IngestRecipe, run: Run) -> dict[str, object]:
    """Write what is accepted and what is rejected. Started again, it starts over: reading is cheap."""
    tally = Tally()
    jsonl.write(run.records, accepted(recipe, tally, run.path / REJECTED))
    return tally.counts() | ({"redacted": dict(tally.redacted.most_common())} if recipe.redact else {})


def accepted(recipe: IngestRecipe, tally: Tally, rejected: Path) -> Iterator[Conversation]:
    """Yield the accepted and write the rejected; an error at the end keeps the records from being written."""
    temporary = rejected.with_name(f".{rejected.name}.tmp")
    with temporary.open("wb") as file:
        for found in sifted(recipe, tally.notes):
            if recipe.redact:
                found = redacted(found, tally.redacted)
            if isinstance(found, Rejected):
                tally.reject(found)
                file.write(jsonl.dump(found))
            else:
                tally.accept(found)
                yield found
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(rejected)
    for note, times in tally.notes.most_common():
        log.info("%s: %d", note, times)
    tally.enforce(recipe, rejected)


def sifted(recipe: IngestRecipe, notes: Counter[str]) -> Iterator[Conversation | Rejected]:
    """Everything in the input, in order, until `recipe.limit` are accepted; adds up the notes of those."""
    seen: dict[str, str] = {}
    for draft in drafts(recipe):
        found = draft if isinstance(draft, Rejected) else validated(draft, recipe, seen)
        yield found
        if isinstance(draft, Draft) and isinstance(found, Conversation):
            notes.update(draft.notes)
            seen[draft.id] = f"{draft.file}:{draft.place}"
            if len(seen) == recipe.limit:
                return


def drafts(recipe: IngestRecipe) -> Iterator[Draft | Rejected]:
    for path, name in files_of(recipe):
        log.info("reading %s", path)
        try:
            yield from FORMATS[recipe.source].read(path, name=name)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def validated(draft: Draft, recipe: IngestRecipe, seen: dict[str, str]) -> Conversation | Rejected:
    """A draft as a conversation in its split, or why it is none."""
    try:
        check(draft)
        if draft.id in seen:
            raise Fault(
                "duplicate id", f"{draft.id!r} stands at {seen[draft.id]} already", draft.messages[0]["content"]
            )
    except Fault as fault:
        return fault.rejects(draft.file, draft.place)
    return Conversation.model_validate(
        {
            "id": draft.id,
            "group": draft.group,
            "split": split_of(draft.group, recipe.split),
            "source": recipe.source,
            "messages": draft.messages,
            "goal": draft.goal,
            "outcome": draft.outcome,
        }
    )


def redacted(found: Conversation | Rejected, counts: Counter[str]) -> Conversation | Rejected:
    """What is written of a conversation or a rejection; adds up what was replaced in conversations."""
    if isinstance(found, Rejected):
        (detail, quote), _ = redact_all([found.detail, whole_words(found.quote)])
        return found.model_copy(update={"detail": detail, "quote": quote})
    conversation, kinds = redact_conversation(found)
    counts.update(kinds)
    return conversation


def whole_words(quote: str) -> str:
    """A quote with its escapes read, and without its ends where they may be half a word."""
    text = printable(ESCAPE.sub(lambda found: json.loads(f'"{found[0]}"'), quote))
    return CUT.sub("…", text) if len(quote) >= QUOTE // 2 else text


def split_of(group: str, shares: Shares) -> Split:
    """The split of a group, by a number in [0, 1) from its sha256: the low end is test, the high end dev.

    The two ends leave each other alone: another share of dev moves no group into test or out of it.
    """
    number = int.from_bytes(hashlib.sha256(group.encode()).digest()[:6], "big") / 2**48
    if number < shares.test:
        return "test"
    return "dev" if number >= 1 - shares.dev else "train"
