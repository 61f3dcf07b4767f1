"""Question sets made by hand, in two attributes and all three directions."""

from training_examples import messages

from askwell.records import Candidate, Preference, QuestionSet

WORDINGS = {
    "clarity": ("What exactly would you like to eat?", "Mumble {number}?"),
    "focus": ("Which city, please?", "Which bus number {number}, and why, and when, and where?"),
}
ORIGINAL = "What would you like to eat?"


def question_set(number, *, split="train", attributes=("clarity", "focus"), verified=None):
    """The original, and an enhanced and a corrupted one for each attribute."""
    candidates, preferences = [Candidate(text=ORIGINAL, origin="human")], []
    for attribute in attributes:
        texts = (text.format(number=number) for text in WORDINGS[attribute])
        more = len(candidates)
        candidates += [
            Candidate(text=text, origin=origin, attribute=attribute)
            for text, origin in zip(texts, ("enhanced", "corrupted"), strict=True)
        ]
        preferences += [
            Preference(attribute=attribute, better=better, worse=worse, verified=verified)
            for better, worse in ((more, more + 1), (more, 0), (0, more + 1))
        ]
    return QuestionSet(
        id=f"c{number}#0",
        conversation_id=f"c{number}",
        group=f"c{number}",
        split=split,
        context=messages(number)[:3],
        candidates=tuple(candidates),
        preferences=tuple(preferences),
    )


SETS = [question_set(number) for number in range(9)]
HELD_OUT = [question_set(number, split="dev") for number in range(9, 14)]
