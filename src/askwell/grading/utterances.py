"""Experts' utterances with the slots that they ask for, and whether a text is worded like anything they say. No I/O.

An example is an assistant message of annotated acts: its label is the set of slots of its REQUEST acts, which is empty
for offers, confirmations and goodbyes. A generated text may be word salad, so the share of its neighbouring words that
experts were seen to put side by side, and words repeated on the spot, tell what a grader should not judge.
"""

import hashlib
import itertools
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from askwell.recipes import bounds
from askwell.records import Conversation, Split

WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?|0|[?.!,:]")
DIGITS = re.compile(r"\d+")
SENTENCE_ENDS = frozenset("?.!")


class Example(NamedTuple):
    """One expert utterance; `asks` is empty where it requests nothing."""

    group: str
    split: Split
    service: str
    text: str
    asks: frozenset[str]


def examples_of(conversation: Conversation) -> Iterator[Example]:
    """The assistant messages whose acts all belong to one service; the grader is told one service a question."""
    for message in conversation.messages:
        services = {act.service for act in message.acts if act.service}
        if message.role == "assistant" and len(services) == 1:
            asks = frozenset(act.slot for act in message.acts if act.act == "REQUEST" and act.slot)
            yield Example(conversation.group, conversation.split, services.pop(), message.content, asks)


def in_fold(group: str, fold: str) -> bool:
    """Whether a grader of this fold ("all", "3/4", "0-2/4") may learn from the group; the hash is not the split's."""
    if fold == "all":
        return True
    first, last, parts = bounds(fold)
    return first <= int.from_bytes(hashlib.sha256(f"fold {group}".encode()).digest()[:4], "big") % parts <= last


def words(text: str) -> list[str]:
    """Lower-case words and punctuation; a run of digits is `0`, as no slot depends on which number it is."""
    return WORD.findall(DIGITS.sub("0", text.lower()))


def wordless(text: str) -> bool:
    """Whether a text holds neither letter nor digit: it certainly asks for nothing."""
    return not any(character.isalnum() for character in text)


def joined(questions: Sequence[Example], *, count: int, random_source: random.Random) -> list[Example]:
    """Two questions of one service in one text, asking for what both ask: experts seldom ask for much at once."""
    by_service: dict[str, list[Example]] = {}
    for question in questions:
        by_service.setdefault(question.service, []).append(question)
    pairs = []
    for _ in range(count):
        first = random_source.choice(questions)
        second = random_source.choice(by_service[first.service])
        text = f"{first.text} {second.text}"
        pairs.append(first._replace(text=text, asks=first.asks | second.asks))
    return pairs


class Wording:
    """How experts put words side by side: the pairs of neighbours, beginning and end of a text included."""

    def __init__(self, pairs: Iterable[tuple[str, str]], *, longest: int, least: float = 0.0) -> None:
        self.pairs = frozenset(pairs)
        self.longest = longest
        self.least = least

    @classmethod
    def learn(cls, texts: Iterable[str]) -> "Wording":
        """The pairs and the greatest length, in words, of `texts`."""
        pairs: set[tuple[str, str]] = set()
        longest = 0
        for text in texts:
            spoken = words(text)
            pairs.update(neighbours(spoken))
            longest = max(longest, len(spoken))
        return cls(pairs, longest=longest)

    def share(self, text: str) -> float:
        """Share of a text's neighbouring words that experts were seen to put side by side; 0 for what they never do.

        That is: more than twice the words of their longest, or the same words twice on the spot.
        """
        spoken = words(text)
        if not spoken or len(spoken) > 2 * self.longest or self.stutters(spoken):
            return 0.0
        found = neighbours(spoken)
        return sum(pair in self.pairs for pair in found) / len(found)

    def familiar(self, text: str) -> bool:
        return self.share(text) >= self.least

    def stutters(self, spoken: Sequence[str]) -> bool:
        """Whether words are said twice on the spot ("located located", or a whole question); numbers may be."""
        letters = [word for word in spoken if word != "0"]
        return any(
            letters[start : start + size] == letters[start + size : start + 2 * size]
            for size in range(1, len(letters) // 2 + 1)
            for start in range(len(letters) - 2 * size + 1)
        )


def neighbours(spoken: Sequence[str]) -> list[tuple[str, str]]:
    """Neighbouring words. The empty string stands before the first and after the last of each sentence, so that which
    sentence follows which does not matter.
    """
    bounded = [""]
    for word in spoken:
        bounded.append(word)
        if word in SENTENCE_ENDS:
            bounded.append("")
    if bounded[-1]:
        bounded.append("")
    return list(itertools.pairwise(bounded))
