"""The share of prompts that repeats an earlier one's beginning, against the plain definition."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from askwell.llm.prefixes import Prefixes, shared


def messages(system, user):
    return ({"role": "system", "content": system}, {"role": "user", "content": user})


def commonprefix(texts):
    one, other = texts
    return one[
        : next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    ]


def test_a_hand_made_case():
    found = Prefixes()
    assert found.repeated is None
    found.add([messages("S" * 10, "post one, enhance"), messages("S" * 10, "post one, corrupt")])
    # 10 characters of system text, a border and 17 of the task; the second shares "S... post one, ".
    assert (found.requests, found.characters, found.new) == (2, 56, 28 + 7)
    found.add([messages("S" * 10, "another post")])
    assert found.new == 35 + 12  # the system text and the border are known; "another post" is new
    assert found.repeated == pytest.approx(1 - 47 / (56 + 23))


@given(st.lists(st.text(alphabet="ab", max_size=12), min_size=1, max_size=12), st.randoms())
def test_within_a_group_it_is_the_longest_beginning_of_any_earlier_request_in_any_order(texts, rng):
    def new(ordered):
        longest = (
            max((len(commonprefix([text, before])) for before in ordered[:i]), default=0)
            for i, text in enumerate(ordered)
        )
        return sum(len(text) - most for text, most in zip(ordered, longest, strict=True))

    found = Prefixes()
    found.add([({"role": "user", "content": text},) for text in texts])
    rng.shuffle(texts)
    assert found.new == new(texts) and found.characters == sum(map(len, texts))


def test_shared_beginnings():
    draw = random.Random(0)
    for _ in range(200):
        one, other = ("".join(draw.choice("ab") for _ in range(draw.randrange(9))) for _ in range(2))
        assert shared(one, other) == len(commonprefix([one, other]))
