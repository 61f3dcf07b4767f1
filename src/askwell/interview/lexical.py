"""Which facts a text is about, by the words they share: no model, the same every time, a lower bound on understanding.

Words are taken without their endings and without those that any sentence may hold. A word weighs the more the fewer of
the facts at hand have it (inverse document frequency). No I/O.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

WORD = re.compile(r"[a-z]+(?:'[a-z]+)?|\d+(?:[.,/]\d+)*%?")
ENDINGS = ("ations", "ation", "ings", "ing", "ies", "edly", "ed", "ly", "es", "s", "e")
FUNCTION_WORDS = (
    "a about after all also am an and any anything are as at be been before being but by can could did do does doing "
    "done during ever feel felt few for from get got had has have having he her his how i if in into is it its just "
    "last like lot many me more most much my no not now of on one only or other our out over patient patient's person "
    "please recently she should since so some something still such tell than that the their them then there these they "
    "this those to too under up us very was we were what when where which while who whom why will with would year you "
    "your yes"
)
COMMON = frozenset(FUNCTION_WORDS.split())
SAID = 0.75
"""Share of a fact's words, by weight, that a text must hold to state it."""


def squeezed(text: str) -> str:
    """Letters and digits alone, for comparing what was said word for word."""
    return " ".join(re.sub(r"[\W_]+", " ", text).casefold().split())


@lru_cache(maxsize=1 << 14)
def words(text: str) -> frozenset[str]:
    """The words of a text that say what it is about, without their endings."""
    found = WORD.findall(text.lower().replace("’", "'"))
    return frozenset(stem(word.removesuffix("'s")) for word in found if word not in COMMON)


def stem(word: str) -> str:
    """A word without its ending, as far as three letters remain of it."""
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def weights(facts: Iterable[str]) -> dict[str, float]:
    """How much each word tells the facts apart: log((1 + n) / (1 + n with it)) + 1."""
    texts = [words(fact) for fact in facts]
    seen = Counter(word for text in texts for word in text)
    return {word: math.log((1 + len(texts)) / (1 + count)) + 1 for word, count in seen.items()}


def answering(question: str, facts: Sequence[str], *, overlap: float, most: int | None = None) -> tuple[str, ...]:
    """The facts whose words are near a question's (cosine of tf-idf), in the order of the record."""
    weight = weights(facts)
    rare = math.log(1 + len(facts)) + 1
    asked = words(question)
    length = math.sqrt(sum(weight.get(word, rare) ** 2 for word in asked))
    scored: list[tuple[float, int]] = []
    for place, fact in enumerate(facts):
        own = words(fact)
        shared = sum(weight[word] ** 2 for word in own & asked)
        if shared:
            near = shared / (length * math.sqrt(sum(weight[word] ** 2 for word in own)))
            if near >= overlap:
                scored.append((-near, place))
    return tuple(facts[place] for place in sorted(place for _, place in sorted(scored)[:most]))


def stated(text: str, facts: Sequence[str]) -> tuple[str, ...]:
    """The facts that a text states, as far as words show it: those nearly all of whose words, by weight, it has."""
    weight, said = weights(facts), words(text)
    found = []
    for fact in facts:
        own = words(fact)
        if own and sum(weight[word] for word in own & said) >= SAID * sum(weight[word] for word in own):
            found.append(fact)
    return tuple(found)


def verbatim(quotes: Iterable[str], facts: Sequence[str]) -> tuple[tuple[str, ...], int]:
    """The facts that are quoted word for word, in their order, and how many quotes are no fact."""
    by_text = {squeezed(fact): fact for fact in facts}
    found: set[str] = set()
    invented = 0
    for quote in quotes:
        if (fact := by_text.get(squeezed(quote))) is not None:
            found.add(fact)
        else:
            invented += 1
    return tuple(fact for fact in facts if fact in found), invented
