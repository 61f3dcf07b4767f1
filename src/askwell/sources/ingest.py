"""Public formats and people's own logs to conversations, forum threads to questions in context: `askwell ingest`.

Reads a file, or all files of the format under a folder in the order of their names (hidden ones aside). Writes
records.jsonl (Conversation; Thread for askdocs) and rejected.jsonl (Rejected): what stands in the input is in one or
the other, or counted as not drawn. Groups go to train, dev and test by their hash, so that a split never depends on
order, machine or what else is read. With `redact`, both files hold redacted text alone; the split is that of the group
as it was.
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
from askwell.records import Conversation, Split, Thread
from askwell.runs import Run
from askwell.sources.drafts import QUOTE, Draft, Fault, Rejected, check, printable
from askwell.sources.formats import FORMATS, files_of
from askwell.sources.quality import evenly
from askwell.sources.redaction import redact_all, redact_conversation, redact_thread

log = logging.getLogger(__name__)

Found = Conversation | Thread | Rejected

REJECTED = "rejected.jsonl"
SHOWN = 3
"""Rejections of one reason that are logged; all are in rejected.jsonl."""
# In a quote: JSON's escapes, and what its ends may have cut in two. Both hide an address or a name.
ESCAPE = re.compile(r"\\(?:[nrt]|u[0-9a-fA-F]{4})")
CUT = re.compile(r"\A[\w.@+%'’/-]+|[\w.@+%'’/-]+\Z")


class Tally:
    """What has been accepted and rejected so far; `holds` is what the records are called."""

    def __init__(self, holds: str) -> None:
        self.holds = holds
        self.messages = 0
        self.not_drawn = 0
        self.threads: Counter[str] = Counter()
        self.posts: set[str] = set()
        self.splits: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        self.redacted: Counter[str] = Counter()
        self.first: dict[str, Rejected] = {}

    def accept(self, record: Conversation | Thread) -> None:
        self.splits[record.split] += 1
        if isinstance(record, Conversation):
            self.messages += len(record.messages)
            return
        self.posts.add(record.group)
        self.threads["with a history"] += len(record.context) > 1
        self.threads["answered"] += record.answer is not None
        self.threads["concluded"] += record.conclusion is not None
        self.threads["by experts"] += record.expert

    def reject(self, rejected: Rejected) -> None:
        self.rejected[rejected.reason] += 1
        self.first.setdefault(rejected.reason, rejected)
        if self.rejected[rejected.reason] <= SHOWN:
            log.warning("%s rejected: %s: %s: %r", rejected.where, rejected.reason, rejected.detail, rejected.quote)

    def counts(self) -> dict[str, object]:
        drawn = {"not drawn": self.not_drawn} if self.not_drawn else {}
        conversations = self.holds == "conversations"
        told = {"messages": self.messages} if conversations else {"posts": len(self.posts), **self.threads}
        return {
            self.holds: self.splits.total(),
            **told,
            **drawn,
            "rejected": dict(self.rejected.most_common()),
            **{split: self.splits[split] for split in ("train", "dev", "test")},
            "notes": dict(self.notes.most_common()),
        }

    def enforce(self, recipe: IngestRecipe, rejected: Path) -> None:
        """Raise DataError where nothing was accepted, or more was rejected than the recipe allows."""
        bad, good = self.rejected.total(), self.splits.total() + self.not_drawn
        if not bad and not good:
            raise DataError(f"{recipe.input}: no {self.holds.removesuffix('s')} in it, every file is empty")
        if good and bad <= recipe.max_rejected * (bad + good):
            return
        share = bad / (bad + good)
        reason, times = self.rejected.most_common(1)[0]
        first = self.first[reason]
        rule = f"where --max_rejected allows {recipe.max_rejected:.1%}" if good else "and none accepted"
        way_out = f", or repeat with --max_rejected {math.ceil(1000 * share) / 1000}" if good else ""
        raise DataError(
            f"{recipe.input}: {bad} of {bad + good} {self.holds} rejected ({share:.1%}), {rule}; commonest: {reason} "
            f"({times}), first at {first.where}: {first.detail}: {first.quote!r}; mend what {rejected} lists{way_out}"
        )


def inputs(recipe: IngestRecipe) -> list[Path]:
    """The files that the stage reads."""
    return [path for path, _ in files_of(recipe)]


def plan(recipe: IngestRecipe) -> dict[str, object]:
    """Files with their bytes, and how many conversations or questions they hold at most."""
    files, form = files_of(recipe), FORMATS[recipe.source]
    held = sum(form.held(path) for path, _ in files)
    return {
        "files": {name: path.stat().st_size for path, name in files},
        form.holds: min([held, *(most for most in (recipe.limit, recipe.draw) if most is not None)]),
    }


def run(recipe: IngestRecipe, run: Run) -> dict[str, object]:
    """Write what is accepted and what is rejected. Started again, it starts over: reading is cheap."""
    tally = Tally(FORMATS[recipe.source].holds)
    jsonl.write(run.records, accepted(recipe, tally, run.path / REJECTED))
    return tally.counts() | ({"redacted": dict(tally.redacted.most_common())} if recipe.redact else {})


def accepted(recipe: IngestRecipe, tally: Tally, rejected: Path) -> Iterator[Conversation | Thread]:
    """Yield the accepted and write the rejected; an error at the end keeps the records from being written."""
    temporary = rejected.with_name(f".{rejected.name}.tmp")
    with temporary.open("wb") as file:
        for found in drawn(sifted(recipe, tally.notes), recipe, tally):
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


def drawn(found: Iterator[Found], recipe: IngestRecipe, tally: Tally) -> Iterator[Found]:
    """What was found; with `recipe.draw` that many of the questions in it, behind all that is rejected."""
    if recipe.draw is None:
        yield from found
        return
    threads = []
    for item in found:
        if isinstance(item, Thread):
            threads.append(item)
        else:
            yield item
    chosen = evenly(threads, recipe.draw, seed=recipe.seed)
    tally.not_drawn = len(threads) - len(chosen)
    yield from chosen


def sifted(recipe: IngestRecipe, notes: Counter[str]) -> Iterator[Found]:
    """Everything in the input, in order, until `recipe.limit` are accepted; adds up the notes of those."""
    seen: dict[str, str] = {}
    for draft in drafts(recipe):
        found = draft if isinstance(draft, Rejected) else validated(draft, recipe, seen)
        yield found
        if isinstance(draft, Draft) and not isinstance(found, Rejected):
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


def validated(draft: Draft, recipe: IngestRecipe, seen: dict[str, str]) -> Found:
    """A draft as a conversation or a thread in its split, or why it is none."""
    try:
        check(draft)
        if draft.id in seen:
            raise Fault(
                "duplicate id", f"{draft.id!r} stands at {seen[draft.id]} already", draft.messages[0]["content"]
            )
    except Fault as fault:
        return fault.rejects(draft.file, draft.place)
    fields = {
        "id": draft.id,
        "group": draft.group,
        "split": split_of(draft.group, recipe.split),
        "source": recipe.source,
    }
    if draft.beside is not None:
        *context, question = draft.messages
        return Thread.model_validate(fields | draft.beside | {"context": context, "question": question["content"]})
    return Conversation.model_validate(
        fields | {"messages": draft.messages, "goal": draft.goal, "outcome": draft.outcome}
    )


def redacted(found: Found, counts: Counter[str]) -> Found:
    """What is written of a record or a rejection; adds up what was replaced in records."""
    if isinstance(found, Rejected):
        (detail, quote), _ = redact_all([found.detail, whole_words(found.quote)])
        return found.model_copy(update={"detail": detail, "quote": quote})
    record, kinds = redact_thread(found) if isinstance(found, Thread) else redact_conversation(found)
    counts.update(kinds)
    return record


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
