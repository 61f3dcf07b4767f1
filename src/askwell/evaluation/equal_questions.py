"""Who decides better after as many questions: interviews cut so that their mean number of questions is a given one.

Who asks more often knows more, so accuracies at different numbers of questions say little of how well was asked. Every
interview holds what would have been decided after each of its questions; so all are cut after k of them, and a share
of each after k + 1, until the mean is as wanted. Nothing is asked again, and who stopped before stays stopped. No I/O.
"""

from collections.abc import Sequence

from askwell.statistics import Estimate, difference_interval, mean_interval

Course = Sequence[float | None]
"""Whether an interview would have been decided rightly before its first question and after each; None: unscored."""


def mean_questions(courses: Sequence[Course], most: int | None = None) -> float:
    """The mean number of questions, those beyond `most` cut off."""
    counts = [len(course) - 1 if most is None else min(len(course) - 1, most) for course in courses]
    return sum(counts) / len(counts)


def cut(courses: Sequence[Course], questions: float) -> list[float | None]:
    """Of each interview how rightly it would have been decided after `questions` in the mean of all, in [0, 1].

    Raises ValueError where they do not have as many.
    """
    longest = max(len(course) for course in courses) - 1
    means = [mean_questions(courses, count) for count in range(longest + 1)]
    if questions > means[-1] + 1e-9:
        raise ValueError(f"{questions} questions in the mean, and the interviews have {means[-1]:.3f}")
    count = max(count for count, mean in enumerate(means) if mean <= questions + 1e-9)
    if count == longest:
        return [course[-1] for course in courses]
    share = (questions - means[count]) / (means[count + 1] - means[count])
    return [
        between(course[min(count, len(course) - 1)], course[min(count + 1, len(course) - 1)], share)
        for course in courses
    ]


def between(one: float | None, other: float | None, share: float) -> float | None:
    """A value on the way from one to the other; None where it needs one that is unscored."""
    if not share:
        return one
    return None if one is None or other is None else one + share * (other - one)


def accuracy(courses: Sequence[Course], groups: Sequence[str], questions: float, *, seed: int = 0) -> Estimate:
    """Accuracy after `questions` in the mean. The interval takes the cut as given."""
    return mean_interval(cut(courses, questions), groups, seed=seed)


def gain(
    first: Sequence[Course],
    first_groups: Sequence[str],
    second: Sequence[Course],
    second_groups: Sequence[str],
    *,
    questions: float | None = None,
    seed: int = 0,
) -> tuple[float, Estimate]:
    """Accuracy of `first` less that of `second`, paired by group, after `questions` in the mean: by default as many as
    the one that asks less has. Returns the questions, too."""
    if questions is None:
        questions = min(mean_questions(first), mean_questions(second))
    sides = cut(first, questions), first_groups, cut(second, questions), second_groups
    return questions, difference_interval(*sides, seed=seed)
