"""The clinic as judge of pairs: which of two questions is better by an attribute, from the prompt `compare`.

It knows how good each question is (`quality.Quality`). What nobody can understand is the worst question by every
attribute. What it does not know (what a person cares for) is a tie.

For tests of what an evaluation makes of a bad judge it can be biased: `order` is the share of pairs in which the first
wins for being first, `length` that in which the longer one wins for being longer.
"""

from collections.abc import Sequence
from typing import Literal

from askwell import attributes
from askwell.clinic.quality import ATTRIBUTES, Quality, messages_in
from askwell.records import Message

EQUAL = 0.002
"""A smaller difference in score is none."""
UNREADABLE = -1.0
Verdict = Literal["first", "second", "tie"]
BIASES = ("order", "length")


class PairJudge:
    """Compares questions by their exact quality."""

    def __init__(self, quality: Quality) -> None:
        self.quality = quality
        known = map(attributes.load, attributes.names())
        self._names = {attribute.title: attribute.name for attribute in known}

    def verdict(self, conversation: str, criterion: str, first: str, second: str) -> tuple[Verdict, str]:
        """The verdict and its reason. `conversation` is JSON lines, `criterion` begins with an attribute's title."""
        name = self._names.get(criterion.split("\n", 1)[0], "overall")
        context = messages_in(conversation)
        one, other = (self.worth(context, text, name) for text in (first, second))
        ahead = 0.0 if one is None or other is None else one - other
        verdict: Verdict = "tie" if abs(ahead) < EQUAL else "first" if ahead > 0 else "second"
        return verdict, f"by {name}: the first {told(one)}, the second {told(other)}"

    def worth(self, context: Sequence[Message], text: str, attribute: str) -> float | None:
        """The score of a question, in [0, 1]; below 0 where nobody can understand it, None where nobody can tell."""
        if attribute not in (*ATTRIBUTES, "overall"):
            return None
        if self.quality.read(text) is None:
            return UNREADABLE
        return self.quality.scores(context, text)[attribute]


def told(worth: float | None) -> str:
    """A judgement in words."""
    if worth is None:
        return "is neither good nor bad"
    return "cannot be understood" if worth < 0 else f"is worth {worth:.2f}"


def biased(first: str, second: str, bias: str) -> Verdict:
    """What a judge says who falls for a place or for length."""
    if bias == "order":
        return "first"
    ahead = len(first.split()) - len(second.split())
    return "tie" if not ahead else "first" if ahead > 0 else "second"
