"""The clinic as judge of pairs: which of two questions is better by an attribute, from the prompt `compare`.

It knows what each question asks for and what is wrong with its wording (`language.Oracle`), and what its answer would
tell after what has been said (`reasoning.information_gain`). By `relevance` the better question gains more; by the
attribute that a fault of wording offends, the one without the fault; `overall` is the gain, halved by any fault. What
nobody can understand is the worst question by every attribute. What it does not know (what a person cares for) is a
tie.

For tests of what an evaluation makes of a bad judge it can be biased: `order` is the share of pairs in which the first
wins for being first, `length` that in which the longer one wins for being longer.
"""

import json
from functools import lru_cache
from typing import Literal, NamedTuple

from askwell import attributes
from askwell.clinic.knowledge import Person, World
from askwell.clinic.language import Oracle, introduced
from askwell.clinic.reasoning import Belief, joint_gain

REMEMBERED = 1 << 12
"""Conversations whose belief is kept: all pairs of a context come with the same one."""
OFFENDS = {
    "vague": "clarity",
    "jargon": "answerability",
    "leading": "avoid_bias",
    "wrong": "accuracy",
    "double": "focus",
    "irrelevant": "relevance",
}
"""The attribute that a fault of wording is a lack of."""
EQUAL = 0.01
"""Nats: a smaller difference in gain is none."""
UNKNOWN = Person(50, "female")
"""Who speaks, where they do not say."""
Verdict = Literal["first", "second", "tie"]
BIASES = ("order", "length")


class Judged(NamedTuple):
    """What is known of a question in its context: `gain` in nats; `fault` None where nothing is wrong with it."""

    gain: float
    fault: str | None
    understood: bool


class PairJudge:
    """Compares questions in a world."""

    def __init__(self, world: World, oracle: Oracle) -> None:
        self.world, self.oracle = world, oracle
        known = map(attributes.load, attributes.names())
        self._names = {attribute.title: attribute.name for attribute in known}
        self._belief = lru_cache(maxsize=REMEMBERED)(self._read)

    def verdict(self, conversation: str, criterion: str, first: str, second: str) -> tuple[Verdict, str]:
        """The verdict and its reason. `conversation` is JSON lines, `criterion` begins with an attribute's title."""
        name = self._names.get(criterion.split("\n", 1)[0], "overall")
        one, other = (self.judged(conversation, text) for text in (first, second))
        ahead = self.worth(one, name) - self.worth(other, name)
        verdict: Verdict = "tie" if abs(ahead) < EQUAL else "first" if ahead > 0 else "second"
        return verdict, f"by {name}: the first {told(one)}, the second {told(other)}"

    def judged(self, conversation: str, text: str) -> Judged:
        """A question in its context."""
        question = self.oracle.question(text)
        if question is None:
            return Judged(0.0, None, understood=False)
        belief = self._belief(conversation)
        return Judged(joint_gain(belief, question.findings), question.fault, understood=True)

    def worth(self, found: Judged, attribute: str) -> float:
        """What a question is worth by an attribute; only the order of worths matters."""
        if not found.understood:
            return -1.0
        if attribute == "relevance":
            return found.gain
        if attribute == "overall":
            return found.gain / (2 if found.fault else 1)
        if attribute in OFFENDS.values():
            return 0.0 if found.fault and OFFENDS[found.fault] == attribute else 1.0
        return 0.0

    def _read(self, conversation: str) -> Belief:
        """What the conversation leaves to believe."""
        person, answers = UNKNOWN, {}
        for message in map(json.loads, conversation.splitlines()):
            if message["speaker"] == "person":
                person = introduced(message["says"]) or person
                answers |= self.oracle.statements(message["says"])
        return Belief.of(self.world, person, answers)


def told(found: Judged) -> str:
    """A judgement in words."""
    if not found.understood:
        return "cannot be understood"
    return f"is to tell {found.gain:.3f} nats and is {found.fault or 'well worded'}"


def biased(first: str, second: str, bias: str) -> Verdict:
    """What a judge says who falls for a place or for length."""
    if bias == "order":
        return "first"
    ahead = len(first.split()) - len(second.split())
    return "tie" if not ahead else "first" if ahead > 0 else "second"
