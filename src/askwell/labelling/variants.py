"""What can be wrong with a variant of a question before anyone judges it, and whether two of them are the same.

Read off the words alone, without a model, so that a fault costs nothing: a variant that is no question, that is a
rewriter's refusal, that comes with a preamble or a remark, that asks for more than the original did, or that gives away
what it turned out to be.
"""

import itertools
import re
from collections.abc import Iterable
from difflib import SequenceMatcher

MANY = ("focus", "overall")
"""Attributes in which a worse question may ask for several things."""
PREAMBLE = re.compile(
    r"^\W*(?:sure|certainly|of course|okay|here(?:'s| is| are)|below is|(?:the )?(?:rewritten|revised|enhanced|improved"
    r"|corrupted|new|better|worse)\s+(?:question|version))\b[^?\n]{0,80}[:\n]|^\W*(?:question|rewrite|output|answer)\s*:"
    r"|^\W*(?:sure|certainly|absolutely|of course)!|^\W*(?:rewritten|revised|enhanced|improved|corrupted)\W*:"
    r"|^\W*(?:(?:a|the|an) )?(?:more|less) \w+ (?:question|version)\b[^?\n]{0,20}:",
    re.IGNORECASE,
)
REMARK = re.compile(
    r"\n\W*(?:note|explanation|rationale|reason(?:ing)?|changes?)\b[^\n?]{0,30}:"
    r"|\bi(?:['’]ve| have)? (?:made (?:it|the question)|reworded|rewrote"
    r"|(?:removed|added|replaced|changed) the (?:question|wording|time|place|amount|term|word|phrase))",
    re.IGNORECASE,
)
"""A rewriter's account of the change, which would tell a judge what to say."""
REFUSAL = re.compile(
    r"\b(?:as an ai|sorry,? but)\b"
    r"|\b(?:i|we|i['’]m|i am) (?:can['’]t|cannot|won['’]t|will not|unable to|not able to) (?:\w+ ){0,2}"
    r"(?:help|assist|comply|rewrite|reword|make|write|create|provide|produce|generate|do (?:that|this))\b",
    re.IGNORECASE,
)
"""Of a text that asks nothing; a judge would rank it last, and so confirm that it is worse."""
AROUND = re.compile(r"[\"“”]")
WORD = re.compile(r"\w+")
TURNS = re.compile(r"\d+|n't\b|\b(?:no|not|nor|never|none|nobody|nothing|without|cannot)\b")
TERMS = re.compile(r"[,;/()]|\b(?:or|and|vs|versus|possible|possibly|probable|likely|suspected)\b", re.IGNORECASE)
PLAIN = frozenset(
    ("a", "an", "the", "of", "in", "on", "to", "with", "due", "by", "from", "for", "at", "is", "was", "it")
)
COMMON = frozenset(
    ("that", "this", "than", "with", "have", "your", "about", "from", "been", "them", "they", "first", "less", "more")
)


def tidied(text: str) -> str:
    """A question without white space and quotation marks around it."""
    text = text.strip()
    while len(text) > 1 and AROUND.fullmatch(text[0]) and AROUND.fullmatch(text[-1]):
        text = text[1:-1].strip()
    return text


def fault_of(
    text: str,
    original: str,
    *,
    origin: str,
    attribute: str,
    outcome: str | None = None,
    conclusion: str | None = None,
    known: Iterable[str] = (),
) -> str | None:
    """What is wrong with a variant, None if nothing. `outcome` and `conclusion` are what may not be given away, unless
    `known`, all that was said before, or the original says it."""
    if not any(character.isalpha() for character in text):
        return "no question"
    if "?" not in text and REFUSAL.search(text):
        return "refusal"
    if PREAMBLE.search(text):
        return "preamble"
    if REMARK.search(text):
        return "remark"
    if questions_in(text) > max(1, questions_in(original)) and not (origin == "corrupted" and attribute in MANY):
        return "more than one question"
    if origin == "enhanced":
        before = [*known, original]
        if gives_away(text, outcome or "", before) or repeats(text, conclusion or "", before):
            return "gives the outcome away"
    return None


def questions_in(text: str) -> int:
    """How many question marks a text has, several in a row counting as one."""
    return len(re.findall(r"\?+", text))


def gives_away(text: str, outcome: str, known: Iterable[str]) -> bool:
    """Whether a text holds all words of one of the terms that an outcome is made of, and what was known before does
    not. "Viral gastritis, possibly an ulcer" is two terms."""
    said, before = words_of(text), set[str]().union(*map(words_of, known))
    terms = [words_of(term) - PLAIN for term in TERMS.split(outcome)]
    return any(term <= said and not term <= before for term in terms if term)


def repeats(text: str, conclusion: str, known: Iterable[str]) -> bool:
    """Whether a text takes a phrase from a conclusion that was not known before. A conclusion is prose, whose words by
    themselves are anyone's."""
    return bool((phrases(text) & phrases(conclusion)).difference(*map(phrases, known)))


def phrases(text: str) -> set[tuple[str, str]]:
    """What two words next to each other say, common and short ones aside."""
    words = [singular(word) for word in WORD.findall(text.lower())]
    return {pair for pair in itertools.pairwise(words) if min(map(len, pair)) > 3 and COMMON.isdisjoint(pair)}


def words_of(text: str) -> set[str]:
    """The words of a text, without the s of most plurals."""
    return set(map(singular, WORD.findall(text.lower())))


def singular(word: str) -> str:
    """A word without the s of most plurals."""
    return word[:-1] if len(word) > 4 and word.endswith("s") and not word.endswith("ss") else word


def alike(one: str, other: str, *, near: float) -> bool:
    """Whether two wordings are the same question, or nearly so: letters and figures alone count. Never where one has a
    negation or a number that the other has not: "don't you" leads the person, and is two letters from "do you"."""
    first, second = (" ".join(WORD.findall(text.casefold())) for text in (one, other))
    if first == second:
        return True
    if near == 1 or turns(one) != turns(other):
        return False
    if 2 * min(len(first), len(second)) < near * (len(first) + len(second)):
        return False
    match = SequenceMatcher(None, first, second, autojunk=False)
    return match.quick_ratio() >= near and match.ratio() >= near


def turns(text: str) -> list[str]:
    """The negations and numbers of a text, which turn its sense, in the order of the alphabet."""
    return sorted(TURNS.findall(text.casefold().replace("’", "'")))
