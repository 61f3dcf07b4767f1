"""What the clinic knows, whole and in part."""

import pytest

from askwell.clinic.knowledge import Person, load
from askwell.errors import DataError


def test_a_clinic_of_some_systems_knows_their_conditions_and_what_tells_them_apart(world):
    small = load(systems=("respiratory",))
    assert {"pneumonia", "common_cold"} <= set(small.condition_ids) < set(world.condition_ids)
    assert "cough" in small.finding_ids and "fever" in small.finding_ids
    named = {name for condition in small.conditions for name in condition.findings}
    named |= {modifier.finding for condition in small.conditions for modifier in condition.modifiers}
    assert set(small.finding_ids) == named < set(world.finding_ids)
    person = Person(40, "female")
    for condition in small.condition_ids:
        i, j = small.condition_ids.index(condition), world.condition_ids.index(condition)
        for finding in small.finding_ids:
            one, other = small.likelihood(person)[i], world.likelihood(person)[j]
            assert one[small.place[finding]] == other[world.place[finding]]
    with pytest.raises(DataError, match=r"no body system 'lungs'; known: circulatory"):
        load(systems=("lungs",))
