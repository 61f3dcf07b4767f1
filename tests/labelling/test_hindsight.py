"""Turns and targets from the observed future, spelled out on small dialogues and checked on real ones."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from askwell import jsonl, runs
from askwell.errors import DataError
from askwell.labelling import hindsight
from askwell.labelling.hindsight import decision_points, turns
from askwell.recipes import LabelRecipe
from askwell.records import Act, Conversation, Message, Turn
from askwell.sources import sgd

SGD = Path(__file__).parents[3] / "shared" / "data" / "sgd" / "train"


def act(kind, slot="", service="Restaurants"):
    return Act(act=kind, slot=slot, service=service)


def user(content, *acts):
    return Message(role="user", content=content, acts=acts)


def expert(content, *acts):
    return Message(role="assistant", content=content, acts=acts)


def conversation(*messages, id="c"):
    return Conversation(id=id, group=id, split="train", source="test", messages=messages)


DINNER = conversation(
    user("I want to eat.", act("INFORM_INTENT", "intent"), act("INFORM", "party_size")),
    expert("Where, and what?", act("REQUEST", "city"), act("REQUEST", "cuisine")),
    user("In Rome.", act("INFORM", "city")),
    expert("What food?", act("REQUEST", "cuisine")),
    user("Pizza, cheap.", act("INFORM", "cuisine"), act("INFORM", "price")),
    expert("How about Da Remo?", act("OFFER", "restaurant_name")),
    user("Good. Its address?", act("SELECT"), act("REQUEST", "address")),
    expert("Piazza Testaccio.", act("INFORM", "address")),
    user("Book it.", act("INFORM_INTENT", "intent")),
    expert("At what time?", act("REQUEST", "time")),
    user("At eight.", act("INFORM", "time")),
    expert("At eight at Da Remo, right?", act("CONFIRM", "time"), act("CONFIRM", "restaurant_name")),
    user("Yes. Bye.", act("AFFIRM")),
    expert("Bye.", act("GOODBYE")),
)


def test_acts_give_facts_and_one_stop_a_phase():
    found = turns(DINNER)
    assert [(turn.index, turn.target.decision, turn.target.facts) for turn in found] == [
        (0, "continue", ("city", "cuisine")),
        (1, "continue", ("cuisine",)),  # what was told is no longer to be found out
        (2, "stop", ()),
        # point 3, the answer about the address, is no decision to ask: the phase is over
        (4, "continue", ("time",)),
        (5, "stop", ()),
    ]
    assert [turn.expert_reply for turn in found][:3] == ["Where, and what?", "What food?", "How about Da Remo?"]


def test_contexts_hold_the_whole_history_and_what_it_tells():
    last = turns(DINNER)[-1]
    assert [message.content for message in last.context] == [message.content for message in DINNER.messages[:11]]
    assert [message.content for message in last.future] == ["Yes. Bye.", "Bye."]
    assert not any(message.acts for message in last.context)  # acts are the truth, not the input
    assert last.service == "Restaurants"
    # price was told unasked, the address by the expert; the confirmation still lies ahead
    assert last.known == ("address", "city", "cuisine", "party_size", "price", "restaurant_name", "time")
    assert turns(DINNER)[0].known == ("party_size",)


def test_a_slot_asked_for_but_never_told_is_no_fact():
    dialogue = conversation(
        user("Taxi.", act("INFORM_INTENT")),
        expert("Where to, how many?", act("REQUEST", "to"), act("REQUEST", "seats")),
        user("To the station.", act("INFORM", "to"), act("INFORM", "tip")),
        expert("Booked.", act("NOTIFY_SUCCESS")),
    )
    assert [turn.target.facts for turn in turns(dialogue)] == [("to",), ()]


def test_another_services_answers_do_not_count():
    dialogue = conversation(
        user("Taxi.", act("INFORM_INTENT", service="Rides")),
        expert("Where to?", act("REQUEST", "city", service="Rides")),
        user("First a table in Rome.", act("INFORM_INTENT"), act("INFORM", "city")),
        expert("Done.", act("OFFER")),
    )
    found = turns(dialogue)
    assert [(turn.service, turn.target.decision, turn.target.facts) for turn in found] == [
        ("Rides", "continue", ()),
        ("Restaurants", "stop", ()),
    ]
    assert found[1].known == ("city",)


def test_a_question_that_is_put_off_by_an_interlude_is_still_to_come():
    dialogue = conversation(
        user("Taxi.", act("INFORM_INTENT")),
        expert("It rains, by the way.", act("INFORM", "weather")),
        user("I see."),
        expert("Where to?", act("REQUEST", "to")),
        user("Home.", act("INFORM", "to")),
        expert("Booked.", act("NOTIFY_SUCCESS")),
    )
    assert [turn.target.decision for turn in turns(dialogue)] == ["continue", "continue", "stop"]


def test_messages_of_one_role_in_a_row_are_one_block():
    log = conversation(
        expert("Good morning."),
        user("My eye is red."),
        user("Since Monday."),
        expert("One moment."),
        expert("Does it itch?"),
        user("No."),
        expert("Then drops will do."),
    )
    found = turns(log, truth="ending")
    assert [(turn.index, len(turn.context), turn.expert_reply, turn.target.decision) for turn in found] == [
        (0, 3, "One moment.\nDoes it itch?", "continue"),
        (1, 6, "Then drops will do.", "stop"),
    ]
    assert all(turn.target.facts is None for turn in found)


def test_a_log_that_ends_on_the_user_still_stops_once():
    found = turns(conversation(user("a"), expert("b?"), user("c")), truth="ending")
    assert [(turn.target.decision, turn.expert_reply) for turn in found] == [("continue", "b?"), ("stop", "")]


def test_as_released_cuts_contexts_and_adds_a_second_stop():
    log = conversation(user("a"), expert("b?"), user("c"), expert("d?"), user("e"), expert("done"))
    found = turns(log, truth="ending", compat="as_released")
    contexts = [[message.content for message in turn.context] for turn in found]
    assert contexts == [["a"], ["b?", "c"], ["d?", "e"], ["done"]]
    assert [turn.target.decision for turn in found] == ["continue", "continue", "stop", "stop"]
    assert len({turn.id for turn in found}) == 4


def test_as_released_a_message_that_mentions_the_user_flips_the_truth():
    log = conversation(user("a"), expert("b?"), user("c"), expert("Dear user: drops will do."))
    assert [turn.target.decision for turn in turns(log, truth="ending")] == ["continue", "stop"]
    as_released = turns(log, truth="ending", compat="as_released")
    assert [turn.target.decision for turn in as_released] == ["continue", "continue", "stop"]


def test_as_released_cuts_the_contexts_of_annotated_turns_too():
    found = turns(DINNER, compat="as_released")
    assert [len(turn.context) for turn in found] == [1, 2, 2, 2, 2, 1]
    assert [turn.target for turn in found[:-1]] == [turn.target for turn in turns(DINNER)]


roles = st.lists(st.sampled_from(["user", "assistant", "system"]), min_size=1, max_size=12)


@given(roles)
def test_every_ending_log_with_a_user_stops_exactly_once_and_last(roles):
    log = conversation(*(Message(role=role, content=str(i)) for i, role in enumerate(roles)))
    found = turns(log, truth="ending")
    assert [turn.target.decision for turn in found] == ["continue"] * (len(found) - 1) + ["stop"] * bool(found)
    for turn in found:
        assert turn.context[-1].role == "user"
        assert turn.context == log.messages[: len(turn.context)]
    assert len(found) == len(decision_points(log.messages))


@given(roles, st.data())
def test_facts_only_shrink_within_a_phase_and_one_stop_ends_it(roles, data):
    slots = st.sets(st.sampled_from("abc"), max_size=2)
    messages = []
    for i, role in enumerate(roles):
        kind = "INFORM" if role == "user" else "REQUEST"
        acts = [act(kind, slot) for slot in sorted(data.draw(slots))]
        if role == "user" and data.draw(st.booleans()):
            acts.append(act("INFORM_INTENT"))
        messages.append(Message(role=role, content=str(i), acts=tuple(acts)))
    log = conversation(*messages)
    for phase in hindsight.phases(log.messages):
        inside = [turn for turn in turns(log) or [] if phase.start < len(turn.context) <= phase.end]
        for before, after in itertools.pairwise(inside):
            assert set(after.target.facts) <= set(before.target.facts)
        assert [turn.target.decision for turn in inside].count("stop") <= 1
        assert all(turn.target.decision == "continue" for turn in inside[:-1])


def ingested(path, *conversations):
    path.mkdir()
    jsonl.write(path / "records.jsonl", conversations)
    runs.write_json(path / "recipe.json", {"command": "ingest"})
    runs.write_json(path / "manifest.json", {"counts": {"conversations": len(conversations)}, "files": {}})
    return path


def test_the_stage_counts_what_it_drops(tmp_path):
    asked_in_vain = conversation(
        user("Taxi.", act("INFORM_INTENT")), expert("To?", act("REQUEST", "to")), user("Bye."), id="v"
    )
    recipe = LabelRecipe(input=ingested(tmp_path / "in", DINNER, asked_in_vain), output=tmp_path / "out")
    assert hindsight.plan(recipe) == {"conversations": 2, "truth": "acts"}
    with runs.start(recipe, "label", inputs=hindsight.inputs(recipe)) as run:
        counts = hindsight.run(recipe, run)
    assert counts == {
        "turns": 6,
        "conversations": 2,
        "dropped: continue turn without facts": 1,
        "split: train": 6,
        "turns: continue": 3,
        "turns: stop": 3,
    }
    assert len(list(jsonl.read(run.records, Turn))) == 6


def test_a_log_without_acts_is_refused_with_the_way_out(tmp_path):
    plain = conversation(user("a"), expert("b"), id="plain")
    recipe = LabelRecipe(input=ingested(tmp_path / "in", plain), output=tmp_path / "out")
    with runs.start(recipe, "label") as run, pytest.raises(DataError, match="'plain' carries no acts.*--truth ending"):
        hindsight.run(recipe, run)


@pytest.mark.skipif(not SGD.is_dir(), reason="../shared/data/sgd is absent")
def test_real_dialogues_stop_once_a_phase_and_ask_before_it():
    found = 0
    for draft in sgd.read(SGD / "dialogues_001.json", name="dialogues_001.json"):
        log = conversation(*(Message.model_validate(message) for message in draft.messages), id=draft.id)
        for phase in hindsight.phases(log.messages):
            inside = [turn for turn in turns(log) if phase.start < len(turn.context) <= phase.end]
            assert [turn.target.decision for turn in inside] == ["continue"] * (len(inside) - 1) + ["stop"]
            found += len(inside)
    assert found > 1000
