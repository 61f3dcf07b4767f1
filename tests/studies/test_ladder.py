"""Who diagnoses best after as many questions: cut to the least that any asks, and two by two."""

import pytest

from askwell.studies import ladder
from askwell.studies.ladder import Talks

PEOPLE = [f"person {number}" for number in range(20)]
RANDOM = Talks([(0.0, 0.0, 0.0, 1.0)] * 20, PEOPLE)  # three questions, right after the third
LEARNED = Talks([(0.0, 1.0)] * 10 + [(0.0, 0.0, 1.0)] * 10, PEOPLE)  # 1.5 questions, all of them right


def test_all_are_cut_to_as_many_questions_and_each_two_to_what_the_lesser_asks():
    found = ladder.climbed({"random": RANDOM, "learned": LEARNED}, [("random", ("learned", "not trained"))], most=4)
    assert [each and each["value"] for each in found["after"]["random"]] == [0.0, 0.0, 1.0, None]
    assert [each and each["value"] for each in found["after"]["learned"]] == [0.5, None, None, None]
    [step] = found["steps"]
    assert (step["better"], step["worse"], step["questions"], step["gain"]["value"]) == ("learned", "random", 1.5, 1.0)
    lines = list(ladder.markdown(found, [{"value": value, "low": value, "high": value} for value in (0.2, 0.8, 1.0)]))
    one, none, sure = "1.000 [1.000, 1.000]", "0.000 [0.000, 0.000]", "0.800 [0.800, 0.800]"
    assert f"| random asker | {none} | {none} | {one} | – |" in lines
    assert f"| best possible asker | {sure} | {one} | – | – |" in lines
    assert [each and each["value"] for each in step["after"]] == [0.5, None, None, None]
    assert any(line.startswith("| learned over random |") and f"{one} after 1.50, holds |" in line for line in lines)


@pytest.mark.parametrize(
    ("low", "high", "word"), [(0.1, 0.2, "holds"), (-0.1, 0.2, "is open"), (-0.2, -0.1, "is reversed")]
)
def test_an_ordering_holds_where_its_interval_says_so(low, high, word):
    assert ladder.verdict({"value": 0, "low": low, "high": high}) == word
