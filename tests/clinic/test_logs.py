"""Experts' conversations: what a visit is made of, and what it does not depend on."""

from askwell.clinic import knowledge, logs


def test_a_visit_is_the_same_whatever_was_computed_before(world):
    """Tables are kept by person: none of them may be changed by the conversations that use it."""
    fresh = knowledge.load.__wrapped__()
    numbers = range(60)
    once = [logs.visit(fresh, 0, number, "average") for number in numbers]
    assert once == [logs.visit(fresh, 0, number, "average") for number in numbers]
    assert once == [logs.visit(world, 0, number, "average") for number in reversed(numbers)][::-1]
