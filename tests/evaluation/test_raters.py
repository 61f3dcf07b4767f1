"""Agreement among raters against published worked examples, and against what it means."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from askwell.evaluation import raters
from askwell.evaluation.raters import agreement_of, coefficient, cohen, cohen_interval, fleiss, majority

# Krippendorff's example of four observers and twelve units, some values missing (Computing Krippendorff's
# alpha-reliability, 2011, section C); Gwet's Handbook of 2014 works it through for the other coefficients.
FOUR = ["1 1 1", "2 2 3 2", "3333", "3333", "2222", "1234", "4444", "1121", "2222", "555", "11", "3"]
FOUR = [list(unit.replace(" ", "")) for unit in FOUR]
# Fourteen raters, ten subjects, five categories: the worked example of Fleiss' kappa on Wikipedia.
FOURTEEN = np.array(
    [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
)


def test_published_coefficients_and_standard_errors():
    found = agreement_of(FOUR)
    assert {name: round(value.value, 5) for name, value in found.items()} == {
        "Fleiss' kappa": 0.76117,
        "Gwet's AC1": 0.77544,
        "Krippendorff's alpha": 0.74342,
    }
    assert round(found["Fleiss' kappa"].standard_error, 5) == 0.15302
    assert round(found["Gwet's AC1"].standard_error, 5) == 0.14295
    # irrCAC gives 0.14557, whose terms take the small-sample correction in some places alone; a jackknife gives 0.1463.
    assert found["Krippendorff's alpha"].standard_error == pytest.approx(0.1456, rel=0.03)
    assert found["Krippendorff's alpha"].items == 11


def test_alfas_table_8_is_what_a_table_of_its_raw_agreement_has():
    """Its ratings are not published. With the numbers of raters that its text gives, and the one raw agreement (0.72)
    and sum of squared shares (0.31) that go with both coefficients, these and their errors come out as printed."""
    draw, shares = np.random.default_rng(0), np.array([0.45, 0.25, 0.2, 0.06, 0.04])
    found = []
    for _ in range(20):
        counts = np.zeros((295, 5))
        for row, number in zip(counts, [1] * 20 + [2] * 138 + [3] * 137, strict=True):
            same = draw.random() < (0.72 - 0.31) / (1 - 0.31)
            for rating in [draw.choice(5, p=shares)] * number if same else draw.choice(5, p=shares, size=number):
                row[rating] += 1
        found.append([*coefficient(fleiss(counts), 295)[:2], *coefficient(raters.ac1(counts), 295)[:2]])
    assert np.mean(found, axis=0) == pytest.approx([0.59, 0.035, 0.66, 0.033], rel=0.1)


def test_fleiss_kappa_of_fourteen_raters():
    assert round(coefficient(fleiss(FOURTEEN), 10).value, 3) == 0.210


def test_cohens_kappa_with_its_standard_error():
    # 20 and 15 times both say yes or no, 5 times the first alone says yes, 10 times the second alone.
    first, second = ["yes"] * 25 + ["no"] * 25, ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    found = coefficient(cohen(first, second), 50)
    assert found.value == pytest.approx(0.4)
    # 0.126996 by the delta method (statsmodels), which divides by n where this divides by n - 1.
    assert found.standard_error == pytest.approx(0.126996 * math.sqrt(50 / 49), rel=1e-5)
    interval = cohen_interval(first, second, [f"post {i}" for i in range(50)])
    assert interval.value == found.value and 0.1 < interval.low < 0.4 < interval.high < 0.7


def test_a_rare_category_presses_kappa_down_and_leaves_ac1():
    # The paradox that AC1 was made for: 95 of 100 items agree, nearly all on one category.
    items = [["no", "no"]] * 94 + [["yes", "yes"]] + [["yes", "no"]] * 5
    found = agreement_of(items)
    assert found["Fleiss' kappa"].value < 0.3 < 0.9 < found["Gwet's AC1"].value


def test_the_same_said_twice_is_no_surer():
    """Items of one cluster that say the same: their number changes neither value nor standard error."""
    posts = [f"post {i}" for i in range(len(FOUR))]
    once, twice = agreement_of(FOUR, None, posts), agreement_of(FOUR * 2, None, posts * 2)
    alone = agreement_of(FOUR * 2)
    for name, value in agreement_of(FOUR).items():
        assert once[name] == pytest.approx(value)
        if name != "Krippendorff's alpha":  # which corrects for small samples
            assert twice[name][:2] == pytest.approx(value[:2])
        assert alone[name].standard_error < 0.75 * twice[name].standard_error


def test_what_cannot_be_said_is_none():
    assert agreement_of([["a"], ["b"]])["Fleiss' kappa"].value is None  # nobody to agree with
    one_kind = agreement_of([["a", "a"], ["a", "a"]])
    assert one_kind["Fleiss' kappa"].value is None and one_kind["Gwet's AC1"].value == 1
    assert agreement_of([])["Krippendorff's alpha"].value is None


ITEMS = st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4), min_size=2, max_size=12)


@given(ITEMS)
def test_by_brute_force(items):
    """p_a over all ordered pairs of ratings of an item, p_e from the shares, item by item."""
    paired = [item for item in items if len(item) > 1]
    found = agreement_of(items, "abc")
    if not paired:
        assert found["Fleiss' kappa"].value is None
        return
    equal = sum(
        sum(item[i] == item[j] for i in range(len(item)) for j in range(len(item)) if i != j)
        / (len(item) * (len(item) - 1))
        for item in paired
    ) / len(paired)
    shares = [sum(item.count(kind) / len(item) for item in items) / len(items) for kind in "abc"]
    for name, chance in (
        ("Fleiss' kappa", sum(share**2 for share in shares)),
        ("Gwet's AC1", sum(share * (1 - share) for share in shares) / 2),
    ):
        if chance > 1 - 1e-9:
            assert found[name].value is None
        else:
            assert found[name].value == pytest.approx((equal - chance) / (1 - chance), abs=1e-9)


@given(ITEMS, st.permutations("abc"))
def test_names_of_categories_and_the_order_of_items_do_not_matter(items, other):
    renamed = [[other["abc".index(rating)] for rating in item] for item in reversed(items)]
    for name, value in agreement_of(items, "abc").items():
        again = agreement_of(renamed, "abc")[name]
        assert (value.value is None) == (again.value is None)
        if value.value is not None:
            assert again.value == pytest.approx(value.value, abs=1e-9)


def test_a_majority_is_more_than_anyone_else_has():
    assert majority(["a", "b", "a"]) == "a"
    assert majority(["a", "b"]) is None and majority([]) is None and majority(["a"]) == "a"


def test_the_table_counts():
    assert raters.table([["b", "a", "b"], []], ["a", "b", "c"]).tolist() == [[1, 2, 0], [0, 0, 0]]
