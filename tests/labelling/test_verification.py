"""A judge's ranking, and what it says of each preference."""

import pytest
from pydantic import ValidationError

from askwell.labelling.verification import ORIGINS, Ranking, Verdict, shown, verdict_of, verified

ORDER = ("corrupted", "enhanced", "original")  # A, B, C


def word(ranking, direction):
    return verified(verdict_of(Ranking(reason="r", verdict=ranking), ORDER), direction)


@pytest.mark.parametrize(
    ("ranking", "expected"),
    [
        ("B > C > A", [(True, None)] * 3),
        ("A > C > B", [(False, None)] * 3),  # a swap flips every verdict
        ("B = C > A", [(True, None), (None, "tie"), (True, None)]),
        ("A=B=C", [(None, "tie")] * 3),
        ("C > B = A", [(None, "tie"), (False, None), (True, None)]),
        ("B > A", [(None, "judge: off_menu")] * 3),
        ("B > A > D", [(None, "judge: off_menu")] * 3),
    ],
)
def test_a_preference_is_verified_iff_the_verdict_has_its_direction(ranking, expected):
    assert [word(ranking, direction) for direction in ("E-C", "E-O", "O-C")] == expected


@pytest.mark.parametrize("text", ["", "A > A", "B is best", "1 > 2", "A, B", "B > A C", "A > > B", "> A"])
def test_what_is_no_ranking_is_refused(text):
    with pytest.raises(ValidationError, match="must name each letter once"):
        Ranking(reason="r", verdict=text)


def test_a_failure_is_unscored():
    assert verified(Verdict(order=ORDER, failure="unreadable"), "E-C") == (None, "judge: unreadable")


def test_the_order_is_shuffled_by_the_question_and_tells_no_origin():
    wordings = {"original": "one?", "enhanced": "two?", "corrupted": "three?"}
    seen = [shown(wordings, seed=f"0/q{i}/clarity") for i in range(300)]
    first = [view.order[0] for view in seen]
    assert all(70 < first.count(origin) < 130 for origin in ORIGINS)
    assert shown(wordings, seed="0/q1/clarity") == seen[1]
    assert not any(origin in seen[0].text for origin in ORIGINS)
    view = seen[0]
    place = view.order.index("enhanced")
    assert "two?" in view.text.split("ABC"[place] + ":")[1].split("</data")[0]
