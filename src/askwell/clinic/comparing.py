"""The clinic as judge of pairs: which of two questions is better by an attribute, from the prompt `compare`.

It knows the exact score of every question in each attribute (`clinic.quality`), and by one the higher score wins. What
nobody can understand is the worst question by every attribute; what it does not know (what a person cares for) is a
tie.

For tests of what an evaluation makes of a bad judge it can be biased: `order` is the share of pairs in which the first
wins for being first, `length` that in which the longer one wins for being longer.
"""

from typing import Literal

from askwell import attributes
from askwell.clinic.quality import Quality, messages_in

EQUAL = 0.01
"""Of scores in [0, 1]: a smaller difference is none."""
Verdict = Literal["first", "second", "tie"]
BIASES = ("order", "length")


class PairJudge:
    """Compares questions by their exact scores."""

    def __init__(self, quality: Quality) -> None:
        self.quality = quality
        self._names = {attribute.title: attribute.name for attribute in map(attributes.load, attributes.names())}

    def verdict(self, conversation: str, criterion: str, first: str, second: str) -> tuple[Verdict, str]:
        """The verdict and its reason. `conversation` is JSON lines, `criterion` begins with an attribute's title."""
        name = self._names.get(criterion.split("\n", 1)[0], "overall")
        one, other = (self.worth(conversation, text, name) for text in (first, second))
        verdict: Verdict = "tie" if abs(one - other) < EQUAL else "first" if one > other else "second"
        return verdict, f"by {name}: the first {told(one)}, the second {told(other)}"

    def worth(self, conversation: str, text: str, attribute: str) -> float:
        """The score in an attribute, in [0, 1]; 0 where it abstains, and below that what cannot be read."""
        scores = self.quality.scores(messages_in(conversation), text)
        return -1.0 if scores["clarity"] is None else scores.get(attribute) or 0.0


def told(worth: float) -> str:
    """A score in words."""
    return "cannot be understood" if worth < 0 else f"scores {worth:.2f}"


def biased(first: str, second: str, bias: str) -> Verdict:
    """What a judge says who falls for a place or for length."""
    if bias == "order":
        return "first"
    ahead = len(first.split()) - len(second.split())
    return "tie" if not ahead else "first" if ahead > 0 else "second"
