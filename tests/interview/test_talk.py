"""One interview: who speaks when, how it ends, what would be decided at every point, and what it took."""

import asyncio

import pytest
from interview_examples import Echo, Script, case_of, held

from askwell.interview.talk import Asked, Choice, Said, hold
from askwell.llm.client import Failed


def test_an_interview_ends_where_the_rule_says_and_keeps_every_choice_and_degree():
    episode = held(Script(["A?", "B?", "C?"], stops=(2,), choices="ABC", sure=(1.0, 2.0, 4.0)))
    assert [(e.question, e.answer, e.choice, e.sure) for e in episode.exchanges] == [
        ("A?", "You ask: A?", "B", 2.0),
        ("B?", "You ask: B?", "C", 4.0),
    ]
    assert (episode.first_choice, episode.first_sure, episode.decision, episode.end) == ("A", 1.0, "C", "stopped")


def test_an_interview_ends_after_enough_questions():
    episode = held(Script(["A?"] * 9), most=3)
    assert len(episode.exchanges) == 3 and episode.end == "most questions"


def test_an_asker_that_stops_ends_it_and_one_that_says_nothing_too():
    assert held(Script(["A?"])).end == "stopped"

    class Silent(Script):
        async def ask(self, case, said, meter):
            return Asked(None)

    episode = held(Silent([]))
    assert (episode.end, episode.exchanges, episode.decision) == ("no question", (), "A")


def test_a_choice_that_nobody_can_read_is_none_and_counted_not_wrong():
    class Unread(Script):
        async def choose(self, case, said, meter):
            return Choice(None, None) if len(said) == 1 else Choice("B", 0.9)

    episode = held(Unread(["A?", "B?"], stops=(2,)))
    assert [e.choice for e in episode.exchanges] == [None, "B"] and episode.unread == {"choices": 1}


def test_choices_hold_nobody_up():
    """The next question is asked while the choice is still awaited."""
    order = []

    class Slow(Script):
        async def choose(self, case, said, meter):
            await asyncio.sleep(0.01)
            order.append(f"chosen {len(said)}")
            return Choice("A", None)

    class Quick(Echo):
        async def answer(self, case, said, question, meter):
            order.append(f"asked {len(said)}")
            return Said(question, "Yes.", ())

    held(Slow(["A?", "B?"], stops=(2,)), Quick())
    assert order.index("asked 1") < order.index("chosen 0")


@pytest.mark.parametrize("part", ["ask", "choose", "answer"])
def test_what_cannot_be_had_ends_the_interview_without_an_episode(part):
    async def fails(*_):
        raise Failed("reset")

    expert, patient = Script(["A?", "B?"]), Echo()
    setattr(patient if part == "answer" else expert, part, fails)
    with pytest.raises(Failed, match="reset"):
        asyncio.run(hold(case_of(), patient, expert, most=3))
