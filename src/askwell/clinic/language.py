"""English for the simulated clinic, said and read back.

Everything that is said comes from the sentences of the knowledge files, of `texts/talk.toml` and, on the forum, of
`texts/forum.toml`; the last wording of every list is kept for test. The oracle knows all of them: `Oracle.question` and
`Oracle.statements` map a text to findings and to what is wrong with how it was asked, exactly for the clinic's own
sentences. For other texts it looks for the nearest sentence by its parts (character trigrams weighed by rarity) and
abstains (None) where none is near enough, or where two findings are about as near: what it cannot read is unscored,
never wrong on purpose.
"""

import math
import re
import sys
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from random import Random
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from askwell.clinic.knowledge import LEVELS, Person, World
from askwell.texts import TEXTS

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

Fault = Literal["vague", "jargon", "leading", "wrong", "double", "irrelevant"]
"""What a question lacks: clarity, answerability, freedom from bias, medical accuracy, focus, relevance."""
NEAR = 0.55
"""Cosine below which no sentence is near enough."""
MARGIN = 0.08
"""By how much the nearest finding must be nearer than any other."""
REMEMBERED = 1 << 14
"""Texts whose reading is kept: every turn of a conversation, and every reply to a turn, comes with the same ones."""
WORD = re.compile(r"[a-z0-9']+")
CUT = re.compile(r"(?<=[.!?])\s+")


ANSWERING = re.compile(r"^(?:Yes|No|Nope), ")
INTRODUCTIONS = tuple(
    re.compile(pattern)
    for pattern in (
        r"\bI am an? (?P<age>\d+)[- ]year[- ]old (?P<who>woman|man)\b",
        r"\bI'm (?P<age>\d+), (?P<who>female|male)\b",
        r"\b(?P<age>\d+) years old, (?P<who>female|male)\b",
        r"\b(?P<age>\d+)(?P<who>[FM]) here\b",
        r"\bAbout me: (?P<who>female|male), (?P<age>\d+)\b",
    )
)
"""How people say who they are; the forum's forms are among them."""


class Question(NamedTuple):
    """A question as it was understood: the findings asked about, and what is wrong with it (None: nothing)."""

    findings: tuple[str, ...]
    fault: Fault | None


@lru_cache(maxsize=1)
def talk() -> dict[str, list[str]]:
    """What is said beside the findings, by occasion."""
    return tomllib.loads((TEXTS / "talk.toml").read_text(encoding="utf-8"))


@lru_cache(maxsize=1)
def forum() -> dict[str, list[str]]:
    """What is written on the forum beside the findings, by occasion; some have fields in braces."""
    return tomllib.loads((TEXTS / "forum.toml").read_text(encoding="utf-8"))


def pick(texts: Sequence[str], draw: Random, *, unseen: bool = False) -> str:
    """One of the wordings; the last is kept for test (`unseen`)."""
    return texts[-1] if unseen else draw.choice(texts[:-1])


def ask(world: World, finding: str, draw: Random, *, level: str = "good", unseen: bool = False) -> str:
    """A question for a finding, worded at a level of LEVELS."""
    return pick(getattr(world.findings[world.place[finding]].questions, level), draw, unseen=unseen)


def ask_both(world: World, first: str, second: str, draw: Random, *, unseen: bool = False) -> str:
    """A double-barrelled question."""
    one, other = (ask(world, finding, draw, unseen=unseen) for finding in (first, second))
    return draw.choice(talk()["joins"]).format(first=one, second=lowered(other))


def tell(world: World, finding: str, present: bool, draw: Random, *, unseen: bool = False) -> str:
    """What a patient says of a finding."""
    entry = world.findings[world.place[finding]]
    return pick(entry.yes if present else entry.no, draw, unseen=unseen)


def told_unasked(world: World, finding: str, present: bool, draw: Random, *, unseen: bool = False) -> str:
    """The same where nobody has asked."""
    return unanswering(tell(world, finding, present, draw, unseen=unseen))


def unanswering(text: str) -> str:
    """A sentence without the yes or no before it."""
    plain = ANSWERING.sub("", text)
    return plain[:1].upper() + plain[1:]


def introduction(person: Person) -> str:
    """Who a patient is."""
    return introducing(person, "I am {article} {age}-year-old {person}.")


def introducing(person: Person, form: str) -> str:
    """The same in one of the forum's forms."""
    age, female = person.age, person.sex == "female"
    article = "an" if age in (8, 11, 18) or 80 <= age <= 89 else "a"
    who = {"person": "woman" if female else "man", "letter": "F" if female else "M", "sex": person.sex}
    return form.format(age=age, article=article, **who)


def introduced(text: str) -> Person | None:
    """Who a patient says to be, anywhere in a text."""
    for form in INTRODUCTIONS:
        if found := form.search(text):
            return Person(int(found["age"]), "female" if found["who"] in ("woman", "female", "F") else "male")
    return None


def lowered(text: str) -> str:
    """A sentence as it stands behind another word: its first letter small, unless it is the word I."""
    return text if re.match(r"I\b", text) else text[:1].lower() + text[1:]


def squeezed(text: str) -> str:
    """Words and figures alone: letter case, spaces and punctuation do not matter."""
    return " ".join(WORD.findall(text.lower().replace("’", "'")))


def sentences(text: str) -> list[str]:
    """A text cut behind its marks."""
    return [part for part in CUT.split(text.strip()) if squeezed(part)]


class Oracle:
    """Reads what is said in the clinic."""

    def __init__(self, world: World) -> None:
        self.world = world
        said = talk()
        questions: dict[str, Question] = {}
        for finding in world.findings:
            for level in LEVELS:
                fault: Fault | None = None if level == "good" else level  # type: ignore[assignment]
                for text in getattr(finding.questions, level):
                    questions.setdefault(squeezed(text), Question((finding.id,), fault))
        questions |= {squeezed(text): Question((), "irrelevant") for text in said["irrelevant"]}
        self._questions = questions
        self._statements = {
            squeezed(text): (finding.id, present)
            for finding in world.findings
            for present, texts in ((True, finding.yes), (False, finding.no))
            for text in texts
        }
        idle = (*said["greetings"], *said["thanks"], *said["chatter"], *said["fillers"], *said["goodbyes"])
        self._idle = {squeezed(text) for text in (*idle, *said["patient_greetings"])}
        written = (text.replace("{complaint}", "") for texts in forum().values() for text in texts)
        self._idle |= {squeezed(sentence) for text in written for sentence in sentences(text)}
        self._joints = tuple(squeezed(text) for text in ("and", "also", "oh and", *said["fillers"]))
        self._near_question = Nearest({text: read.findings for text, read in questions.items()})
        self._near_statement = Nearest(self._statements)
        self._statements |= {
            squeezed(unanswering(text)): (finding.id, present)
            for finding in world.findings
            for present, texts in ((True, finding.yes), (False, finding.no))
            for text in texts
        }
        self._question_in = lru_cache(maxsize=REMEMBERED)(self._read_question)
        self._statements_in = lru_cache(maxsize=REMEMBERED)(self._read_statements)

    def question(self, text: str) -> Question | None:
        """What a text asks for; None where it cannot be read. A text without a question asks for nothing: None too."""
        return self._question_in(text)

    def statements(self, text: str) -> dict[str, bool]:
        """The findings that a patient's words state, and whether they are there; what cannot be read is left out."""
        return dict(self._statements_in(text))

    def _read_question(self, text: str) -> Question | None:
        found: list[Question] = []
        for sentence in sentences(text):
            words = squeezed(sentence)
            if words in self._idle or introduced(sentence):
                continue
            read = self._one(words)
            if read is None and "?" not in sentence:
                continue  # a remark, not a question
            if read is None:
                return None
            found.append(read)
        if not found:
            return None
        findings = tuple(dict.fromkeys(name for read in found for name in read.findings))
        if len(findings) > 1 or len(found) > 1:
            return Question(findings, "double")
        return Question(findings, found[0].fault)

    def _one(self, words: str) -> Question | None:
        """One sentence, squeezed: exactly, without a joint before it, or the nearest."""
        for candidate in (words, *self._unjoined(words)):
            if (known := self._questions.get(candidate)) is not None:
                return known
        near = self._near_question(words)
        return None if near is None else self._questions[near]

    def _unjoined(self, words: str) -> Iterator[str]:
        for joint in self._joints:
            if words.startswith(joint + " "):
                yield words[len(joint) + 1 :]

    def _read_statements(self, text: str) -> dict[str, bool]:
        found: dict[str, bool] = {}
        for sentence in sentences(text):
            words = squeezed(sentence)
            known = next((text for text in (words, *self._unjoined(words)) if text in self._statements), None)
            if known is None and words not in self._idle and not introduced(sentence):
                known = self._near_statement(words)
            if known is not None:
                finding, present = self._statements[known]
                found[finding] = present
        return found


@lru_cache(maxsize=4)
def oracle_of(world: World) -> Oracle:
    """A world's oracle: one for all who ask, as it takes a fifth of a second to make."""
    return Oracle(world)


class Nearest:
    """Which known sentence is nearest to a text: cosine over character trigrams, rare ones weighing more.

    `meanings` maps each sentence to what it means: a text is read only where one meaning is clearly nearer than others.
    """

    def __init__(self, meanings: Mapping[str, Hashable]) -> None:
        self.texts = tuple(meanings)
        numbers: dict[Hashable, int] = {}
        self._meaning = np.array([numbers.setdefault(meaning, len(numbers)) for meaning in meanings.values()])
        parts = [Counter(trigrams(text)) for text in self.texts]
        held = Counter(part for counts in parts for part in counts)
        self._rarity = {part: math.log(1 + len(parts) / times) for part, times in held.items()}
        self._place = {part: i for i, part in enumerate(held)}
        self._weights = np.zeros((len(held), len(parts)), dtype=np.float32)  # a row a trigram, a column a sentence
        for i, counts in enumerate(parts):
            places, weights = self._vector(counts)
            self._weights[places, i] = weights

    def __call__(self, text: str) -> str | None:
        """The nearest sentence; None where it is not near, or another meaning is about as near."""
        scores = self.scores(text)
        best = int(scores.argmax())
        others = scores[self._meaning != self._meaning[best]]
        rival = float(others.max()) if len(others) else 0.0
        return None if scores[best] < NEAR or scores[best] - rival < MARGIN else self.texts[best]

    def _vector(self, counts: Mapping[str, int]) -> tuple[list[int], NDArray[np.float32]]:
        """The places and the weights of the trigrams that some sentence holds; together of length 1."""
        known = [part for part in counts if part in self._place]
        weights = np.array([(1 + math.log(counts[part])) * self._rarity[part] for part in known], dtype=np.float32)
        length = float(np.linalg.norm(weights))
        return [self._place[part] for part in known], weights / length if length else weights

    def scores(self, text: str) -> NDArray[np.float32]:
        """Cosine with every known sentence. What a text has and no sentence holds makes it less like all of them."""
        counts = Counter(trigrams(text))
        unknown = sum(times for part, times in counts.items() if part not in self._place)
        share = 1 - unknown / max(1, counts.total())
        places, weights = self._vector(counts)
        return weights @ self._weights[places] * share


def trigrams(text: str) -> Iterable[str]:
    """The character trigrams of a text's words, with their edges."""
    for word in text.split():
        padded = f" {word} "
        yield from (padded[i : i + 3] for i in range(len(padded) - 2))
