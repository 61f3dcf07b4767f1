"""What can be wrong with a case, and what a judge's verdicts say of it.

Most of it is read off the words, without a model, so that a fault costs nothing: a fact that stands nowhere, an answer
that was given away, options that say the same. What words cannot show, the judge says.
"""

import re
from collections.abc import Sequence

from askwell.labelling.case_sources import SENTENCE
from askwell.labelling.case_tasks import LETTERS, Draft, Fact, Fault, Judgement
from askwell.labelling.extraction import squeezed
from askwell.labelling.variants import PLAIN, words_of
from askwell.llm.client import Failed
from askwell.records import Message

ANSWERING = re.compile(r"^(?:yes|no|yeah|yep|nope|well|so|and|also|oh|um|hi|hello)\b ?")
IN_BRACKETS = re.compile(r"[(（]([^()（）]*)[)）]")
OF_OTHERS = re.compile(r"\b(?:all|none|both|any|neither|either|some) of (?:the|these|them|those)\b", re.IGNORECASE)
NEAR = 0.8
"""Share of the words of two options in both of them from which they count as the same."""
EMPTY = frozenset(("yes", "no", "yeah", "yep", "nope", "maybe", "ok", "okay", "not", "sure", "i", "do", "have", "don"))


def names(text: str, answer: str) -> bool:
    """Whether a sentence of a text holds all words of an answer, or of what stands in brackets behind it."""
    terms = [IN_BRACKETS.sub(" ", answer), *IN_BRACKETS.findall(answer)]
    if any(not term.isascii() and squeezed(term) and squeezed(term) in squeezed(text) for term in terms):
        return True  # scripts without spaces between words
    wanted = [found for term in terms if (found := words_of(term) - PLAIN)]
    return any(term <= words_of(sentence) for sentence in SENTENCE.split(text) for term in wanted)


def fact_fault(fact: Fact, messages: Sequence[Message]) -> str | None:
    """What is wrong with a fact as it stands, None if nothing."""
    if not 1 <= fact.message <= len(messages) or messages[fact.message - 1].role != "user":
        return "not in a message of the person"
    if not squeezed(fact.quote) or squeezed(fact.quote) not in squeezed(messages[fact.message - 1].content):
        return "quote is not in the message"
    if not words_of(fact.fact) - PLAIN - EMPTY:
        return "says nothing by itself"
    return None


def verbatim(fact: Fact, messages: Sequence[Message]) -> bool:
    """Whether a fact is a whole sentence of its message, a yes or no before it aside; a part of one may mean something
    else."""
    said = {squeezed(sentence) for sentence in SENTENCE.split(messages[fact.message - 1].content)}
    return squeezed(fact.fact) in said | {ANSWERING.sub("", sentence) for sentence in said}


def alike(one: str, other: str) -> bool:
    """Whether two options say the same, or nearly so, by the words that they share."""
    first, second = (words_of(text) - PLAIN or words_of(text) for text in (one, other))
    return squeezed(one) == squeezed(other) or len(first & second) >= NEAR * max(1, len(first | second))


def wording_faults(draft: Draft) -> list[Fault]:
    """What is wrong with the options by their words."""
    found = []
    for place, text in enumerate(draft.options):
        if not any(character.isalnum() for character in text):
            found.append(Fault(option=place, kind="empty option", words="It says nothing."))
        elif OF_OTHERS.search(text):
            found.append(Fault(option=place, kind="refers to others", words="It speaks of the other options."))
        elif twins := [other for other in range(place) if alike(draft.options[other], text)]:
            words = f"It says the same as option {twins[0] + 1}, or nearly so."
            found.append(Fault(option=place, kind="says the same as another", words=words))
    return found


def judged_faults(answered: Judgement, order: Sequence[int]) -> list[Fault]:
    """What is wrong with the options by the judge's verdicts, in the order of the draft. Raises Failed where it names
    others than it was shown, or one twice."""
    verdicts = {verdict.option.strip().upper(): verdict for verdict in answered.verdicts}
    letters = LETTERS[: len(order)]
    if sorted(verdicts) != list(letters) or len(answered.verdicts) != len(letters):
        named = ", ".join(verdict.option for verdict in answered.verdicts)
        raise Failed("off_menu", f"verdicts on {named or 'nothing'}, where {', '.join(letters)} were shown")
    found = []
    for letter, place in zip(letters, order, strict=True):
        said = verdicts[letter]
        if place == 0 and said.verdict != "right":
            found.append(Fault(option=0, kind="answer not supported", words=said.reason))
        elif place > 0 and said.verdict != "wrong":
            kind = "a second right answer" if said.verdict == "right" else "may be right as well"
            found.append(Fault(option=place, kind=kind, words=said.reason))
        elif place > 0 and not said.plausible:
            found.append(Fault(option=place, kind="implausible", words=said.reason))
    return sorted(found, key=lambda fault: fault.option)
