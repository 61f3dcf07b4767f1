"""Threads of a medical forum as ALFA publishes them (MediQ-AskDocs): JSONL, a follow-up question a line.

    {"qid": "t_ab-0-c2-q1", "thread_id": "t_ab-0", "id_post": "xy", "title": "...", "post": "...", "question": "...",
     "patient_answer": "...", "prev_additional_contexts": [{"question": "...", "patient_answer": "..."}],
     "hypotheses": ["..."], "final_diagnosis": "...", "conclusion": "...", "comment_author_flair_text": "Physician",
     "pos_post_author_feedback": 1.0}

Needed are qid, id_post (the group), post and question. A simulated question may have its `truth` beside it, as records
have it. Fields that are not named here are not read. `c` in an id counts
the comments of its thread and `q` the questions of its comment: those of one comment were asked at once, so none is in
another's context. A diagnosis "None" is none, and entities are read as a page shows them.

Two faults of the published file are mended. Its list of earlier questions always leaves out the last one, and where a
thread branches off another those of the comment that they share: 47 of 136 later questions name any, and not all.
The file's other lines hold them, which gives 116 a history. And its `additional_context`, a model's retelling of the
answer, invents one where the patient gave none (170 of 620 questions); it is not read. What cannot be mended: posts
stand as they were last edited (28 of 192 bear an edit or an update), so that some tell what was asked later.
"""

import html
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from askwell.records import QuestionTruth
from askwell.sources.chat import count, lines, parse, text_of
from askwell.sources.drafts import Beside, Draft, Fault, Rejected, Said, shown

__all__ = ["NAMES", "count", "read"]

NAMES = ("*.jsonl",)
QID = re.compile(r"(?P<thread>(?P<root>.+)-\d+)-c(?P<comment>\d+)-q(?P<number>\d+)")
"""Threads of one root begin with the same comment."""
ENTITY = re.compile(r"&#?\w+;")
Exchange = tuple[str, str | None]
"""A question, and its answer where there was one."""


class Asked(NamedTuple):
    """A question of the file; they sort as they were asked in a thread."""

    comment: int
    number: int
    thread: str
    question: str
    answer: str


Threads = Mapping[str, Mapping[str, Asked]]
"""The questions of a file by their root and id."""


def read(path: Path, *, name: str) -> Iterator[Draft | Rejected]:
    """The questions of one file, each in its context, and what is none."""
    threads = threads_of(path)
    for number, line in lines(path):
        try:
            found = draft_of(parse(line), threads, file=name, place=str(number))
        except Fault as fault:
            found = fault.rejects(name, str(number))
        yield found


def threads_of(path: Path) -> Threads:
    """What may be the history of a file's questions; of two lines with one id the first counts."""
    threads: defaultdict[str, dict[str, Asked]] = defaultdict(dict)
    for _, line in lines(path):
        try:
            fields = parse(line)
            here = place_of(fields) if isinstance(fields, dict) else None
            if here is not None and (question := words(fields, "question")):
                answer = words(fields, "patient_answer") or ""
                asked = Asked(int(here["comment"]), int(here["number"]), here["thread"], question, answer)
                threads[here["root"]].setdefault(here[0], asked)
        except Fault:
            continue  # `read` rejects the line
    return threads


def place_of(fields: dict[str, Any]) -> re.Match[str] | None:
    """Where in its thread a question stands; None where its id does not say."""
    return QID.fullmatch(text_of(fields, "qid") or "")


def draft_of(fields: Any, threads: Threads, *, file: str, place: str) -> Draft:
    """A line's question."""
    if not isinstance(fields, dict):
        raise Fault("not an object", f"the line is {type(fields).__name__}", shown(fields))
    identity, group = needed(fields, "qid", text_of), needed(fields, "id_post", text_of)
    post, question = needed(fields, "post", words), needed(fields, "question", words)
    title, flair, outcome = (words(fields, key) for key in ("title", "comment_author_flair_text", "final_diagnosis"))
    told = exchanges_of(fields)
    history = mended(told, earlier(fields, threads))
    messages: list[Said] = [{"role": "user", "content": f"{title}\n\n{post}" if title else post}]
    for asked, answer in history:
        messages.append({"role": "assistant", "content": asked})
        if answer:
            messages.append({"role": "user", "content": answer})
    messages.append({"role": "assistant", "content": question})
    beside: Beside = {
        "conversation_id": text_of(fields, "thread_id") or identity,
        "answer": words(fields, "patient_answer"),
        "hypotheses": hypotheses_of(fields),
        "outcome": None if outcome == "None" else outcome,
        "conclusion": words(fields, "conclusion"),
        "flair": flair,
        "expert": flair is not None and not re.search(r"\bnot\b", flair, re.IGNORECASE),
        "thanked": thanked(fields),
        "truth": truth_of(fields),
    }
    notes = Counter({"earlier questions taken from other lines": 1} if len(history) > len(told) else {})
    return Draft(file, place, identity, group, messages, notes=notes, beside=beside)


def needed(fields: dict[str, Any], key: str, text_in: Callable[[dict[str, Any], str], str | None]) -> str:
    """A text without which a line is no question."""
    if fields.get(key) is None:
        keys = ", ".join(map(repr, list(fields)[:8])) or "none"
        raise Fault(f"no {key}", f"the keys are {keys}", shown(fields))
    if (text := text_in(fields, key)) is None:
        raise Fault(f"empty {key}", "it is blank, or was removed", shown(fields))
    return text


def words(fields: dict[str, Any], key: str) -> str | None:
    """What a field says, None where that is nothing."""
    return displayed(text_of(fields, key) or "")


def displayed(text: str) -> str | None:
    """A text as a page shows it. Entities are read twice: the forum escapes what authors have escaped themselves."""
    for _ in range(2):
        text = ENTITY.sub(lambda entity: html.unescape(entity[0]), text)
    return None if text.strip() in ("", "[deleted]", "[removed]") else text.strip()


def exchanges_of(fields: dict[str, Any]) -> list[Exchange]:
    """The earlier questions that a line names itself."""
    value = fields.get("prev_additional_contexts") or []
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise Fault("history cannot be read", "'prev_additional_contexts' is no list of objects", shown(value))
    found = [(words(entry, "question"), words(entry, "patient_answer")) for entry in value]
    return [(question, answer) for question, answer in found if question]


def earlier(fields: dict[str, Any], threads: Threads) -> list[Exchange]:
    """What the file holds of the thread's earlier comments and of the first one of its root, in order."""
    here = place_of(fields)
    if here is None:
        return []
    asked = sorted(threads.get(here["root"], {}).values())
    before = [found for found in asked if found.comment < int(here["comment"])]
    return [(it.question, it.answer or None) for it in before if it.thread == here["thread"] or it.comment == 0]


def mended(told: list[Exchange], found: list[Exchange]) -> list[Exchange]:
    """`told`, with each of `found` that it leaves out before the one that was asked next, or at the end."""
    whole, end = list(told), len(told)
    for question, answer in reversed(found):
        place = next((i for i in reversed(range(end)) if whole[i][0] == question), None)
        if place is None:
            whole.insert(end, (question, answer))
        else:
            end = place
    return whole


def hypotheses_of(fields: dict[str, Any]) -> list[str]:
    """What the asker suspects."""
    value = fields.get("hypotheses") or []
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise Fault("hypotheses cannot be read", "'hypotheses' is no list of strings", shown(value))
    return [text for text in map(displayed, value) if text]


def thanked(fields: dict[str, Any]) -> bool | None:
    """Whether the post's author was pleased; None where the file does not say."""
    value = fields.get("pos_post_author_feedback")
    if value not in (None, 0, 1):
        raise Fault("feedback cannot be read", "'pos_post_author_feedback' is none of 0, 1 and null", shown(value))
    return None if value is None else bool(value)


def truth_of(fields: dict[str, Any]) -> QuestionTruth | None:
    """What a simulation knows of a question."""
    value = fields.get("truth")
    try:
        return None if value is None else QuestionTruth.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise Fault("truth cannot be read", f"'truth': {where}: {first['msg']}", shown(value)) from None
