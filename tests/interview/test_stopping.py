"""Stops against the reference asker's: by hand, by brute force, and in the clinic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from interview_examples import case_of

from askwell import recipes, runs
from askwell.clinic.reasoning import Reference
from askwell.evaluation import interviews as stage
from askwell.evaluation.stopping import course, of_courses, stops
from askwell.interview.clinic import ClinicPatient, ExactDecisionMaker, SpeakingAsker, visitors
from askwell.interview.loop import interviews

COST = 0.03


class Going:
    """Asks as another does, and so many questions more; or stops so many earlier."""

    def __init__(self, asker, shift):
        self.asker, self.shift, self.over = asker, shift, 0

    def next(self, belief, asked):
        if self.shift < 0 and len(asked) >= -self.shift:
            return None
        if (finding := self.asker.next(belief, asked)) is not None:
            return finding
        self.over += 1
        return Reference(0.0).next(belief, asked) if self.over <= self.shift else None


@pytest.fixture(scope="module")
def clinic(world, oracle):
    return world, oracle, ExactDecisionMaker(world, oracle), visitors(world, 12, seed=4)


def found(clinic, shift, most=40):
    """The interviews of such an asker, one by one, and its figures."""
    world, oracle, maker, people = clinic
    episodes = []
    for visitor in people:
        asker = SpeakingAsker(world, oracle, Going(Reference(COST), shift))
        episodes += interviews([visitor.case], [ClinicPatient(world, oracle, visitor)], asker, maker, most=most)
    cases = [visitor.case for visitor in people]
    return episodes, stops(episodes, cases, maker, Reference(COST))


def test_the_reference_asker_itself_is_always_in_time(clinic):
    _, made = found(clinic, 0)
    assert (made.soon.value, made.late.value, made.timely.value, made.beyond.value) == (0, 0, 1, 0)
    assert made.timely.scored == 12


def test_one_who_asks_two_more_is_late_and_one_who_never_asks_is_early(clinic):
    episodes, made = found(clinic, 2)
    assert made.late.value == 1 and made.timely.value == 0 and 1 <= made.beyond.value <= 2
    _, made = found(clinic, -1)
    assert made.soon.value > 0.5 and made.late.value == 0 and made.soon.value + made.timely.value == 1
    # Ended from outside, they made no stop that could be judged; what they asked in vain still shows.
    cut = [episode.model_copy(update={"end": "most questions"}) for episode in episodes]
    _, _, maker, people = clinic
    made = stops([*cut[:11], None], [visitor.case for visitor in people], maker, Reference(COST))
    assert made.late.value is None and made.late.unscored == 12
    assert made.beyond.scored == 11 and made.beyond.value >= 1


def test_what_was_brought_to_light_by_then_is_what_counts(clinic):
    """Each point is judged with the answers before it and none after it."""
    _, _, maker, people = clinic
    episodes, _ = found(clinic, 2)
    for episode, visitor in list(zip(episodes, people, strict=True))[:4]:
        points = course(episode, visitor.case, maker, Reference(COST))
        assert len(points) == len(episode.exchanges) + 1
        for count in range(0, len(points), 2):
            shorter = episode.model_copy(update={"exchanges": episode.exchanges[:count]})
            assert course(shorter, visitor.case, maker, Reference(COST)) == points[: count + 1]


COURSES = st.lists(
    st.none() | st.tuples(st.lists(st.booleans(), min_size=1, max_size=4), st.booleans()), min_size=1, max_size=8
)


@given(COURSES)
def test_by_brute_force(entries):
    made = of_courses(
        [entry and entry[0] for entry in entries],
        [bool(entry and entry[1]) for entry in entries],
        [case_of(str(number)) for number in range(len(entries))],
    )
    own = [points for points, stopped in filter(None, entries) if stopped]
    counts = {
        "soon": sum(not points[-1] for points in own),
        "late": sum(True in points[:-1] for points in own),
        "timely": sum(points.index(True) == len(points) - 1 for points in own if True in points),
    }
    for name, count in counts.items():
        estimate = getattr(made, name)
        assert estimate.value == (pytest.approx(count / len(own)) if own else None)
        assert (estimate.scored, estimate.unscored) == (len(own), len(entries) - len(own))
    held = [points for points, _ in filter(None, entries)]
    vain = sum(point for points in held for point in points[:-1])
    assert made.beyond.value == (pytest.approx(vain / len(held)) if held else None)


@pytest.mark.parametrize("bounds", [True, False])
def test_the_report_has_them_where_bounds_are_wanted(tmp_path, bounds):
    recipe = recipes.EvaluateInterviewsRecipe(
        output=tmp_path / "run", policy="clinic:reference", limit=5, most=30, cost=COST, bounds=bounds
    )
    with runs.start(recipe, "evaluate interviews", inputs=stage.inputs(recipe)) as run:
        run.finish(stage.run(recipe, run))
    made, page = stage.load(recipe.output)["stops"], (recipe.output / "report.html").read_text()
    if not bounds:
        assert made is None and "Too soon" not in page
        return
    assert made["timely"]["value"] == 1 and "Too soon, or too late?" in page
    assert "share of own stops at the first point" in (recipe.output / "report.md").read_text()
