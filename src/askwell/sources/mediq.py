"""Multiple-choice cases as MediQ and ALFA publish them: JSONL, a case a line, to be interviewed.

iMedQA and iCRAFT-MD (`all_dev_good.jsonl`, `all_craft_md.jsonl`):

    {"id": 0, "question": "...", "context": ["sentence", ...], "options": {"A": "..."}, "answer_idx": "A",
     "facts": ["1. ..."]}

MediQ-AskDocs (`askdocs_mcq.jsonl`): `context` is a thread as text, `atomic_facts` its facts, `original_post` the post.

What is said unasked is the first sentence of the context, for AskDocs the post itself. The published file has a field
`initial_info` for it, which was made up without the post having been read: `compat: as_released` uses it, to measure
what that does. Its 302 cases come from 192 posts, which are their groups. Numbers before facts are left out. A case
whose context has one sentence or none leaves nothing to ask and is rejected, unless it is to be kept.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from askwell.records import Case
from askwell.sources.chat import count, lines, parse, text_of
from askwell.sources.drafts import Fault, Rejected, check_unicode, shown

__all__ = ["NAMES", "count", "read"]

NAMES = ("*.jsonl",)
NUMBER = re.compile(r"^\s*(?:\d+\.|[-*•])\s+")


def read(
    path: Path, *, name: str, compat: Literal["as_released"] | None = None, keep: bool = False
) -> Iterator[Case | Rejected]:
    """The cases of one file, and what is none; `keep` keeps those that leave nothing to ask."""
    for number, line in lines(path):
        try:
            found = case_of(parse(line), file=name, place=str(number), compat=compat, keep=keep)
        except Fault as fault:
            found = fault.rejects(name, str(number))
        yield found


def case_of(
    fields: Any, *, file: str, place: str, compat: Literal["as_released"] | None = None, keep: bool = False
) -> Case:
    """A line's case. Raises Fault."""
    if not isinstance(fields, dict):
        raise Fault("not an object", f"the line is {type(fields).__name__}", shown(fields))
    stem = PurePosixPath(file).stem
    identity = f"{stem}/{text_of(fields, 'id') or place}"
    inquiry, options = text_of(fields, "question"), options_of(fields)
    if inquiry is None:
        raise Fault("no question", "'question' says what is to be found out", shown(fields))
    facts = [
        NUMBER.sub("", fact).strip() for fact in texts_of(fields, "facts" if "facts" in fields else "atomic_facts")
    ]
    post = text_of(fields, "original_post")
    if post is not None:
        record = text_of(fields, "context") or post
        opening = text_of(fields, "initial_info") if compat else post
        group = f"{stem}/{hashlib.sha256(post.encode()).hexdigest()[:12]}"
    else:
        sentences = [sentence for sentence in texts_of(fields, "context") if sentence.strip()]
        if len(sentences) < 2 and not keep:
            raise Fault("nothing to ask", f"its context has {len(sentences)} sentences", inquiry)
        record, opening, group = "\n".join(sentences), (sentences or [""])[0], identity
    for what, text in (("question", inquiry), ("record", record), *(("a fact", fact) for fact in facts)):
        check_unicode(what, text)
    return Case(
        id=identity,
        group=group,
        split="test",
        initial_information=(opening or "").strip(),
        facts=tuple(dict.fromkeys(fact for fact in facts if fact)),
        inquiry=inquiry,
        options=options,
        answer=answer_of(fields, options),
        record=record.strip(),
    )


def options_of(fields: dict[str, Any]) -> dict[str, str]:
    """Two or more texts by letter, or whatever they are called."""
    value = fields.get("options")
    if not isinstance(value, dict) or len(value) < 2 or not all(isinstance(text, str) for text in value.values()):
        raise Fault("no options", "'options' is not an object of two texts or more", shown(value))
    if len({text.strip() for text in value.values()}) < len(value):
        raise Fault("options alike", "two options have the same text", shown(value))
    return {str(name): text.strip() for name, text in value.items()}


def answer_of(fields: dict[str, Any], options: dict[str, str]) -> str:
    """The letter of the answer; where the file gives its text alone, that option's."""
    letter, text = fields.get("answer_idx"), fields.get("answer")
    if isinstance(letter, str) and letter in options:
        return letter
    found = [name for name, option in options.items() if isinstance(text, str) and option == text.strip()]
    if len(found) == 1:
        return found[0]
    raise Fault("no answer", f"neither 'answer_idx' {letter!r} nor 'answer' names one of the options", shown(fields))


def texts_of(fields: dict[str, Any], key: str) -> list[str]:
    """A list of texts; a field that is missing is an empty one."""
    value = fields.get(key) or []
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise Fault("field is not a list of texts", f"{key!r} is {type(value).__name__}", shown(value))
    return value
