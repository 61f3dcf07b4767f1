import json
from pathlib import Path

import pytest

from askwell.errors import DataError
from askwell.records import Act
from askwell.sources import sgd

DATA = Path(__file__).parents[3] / "shared" / "data" / "sgd"


def turn(speaker, utterance, *frames):
    return {
        "speaker": speaker,
        "utterance": utterance,
        "frames": [
            {"service": service, "state": {}, "actions": [{"act": a, "slot": s, "values": v} for a, s, v in actions]}
            for service, actions in frames
        ],
    }


DIALOGUE = {
    "dialogue_id": "1_00000",
    "services": ["Banks_1", "Restaurants_1"],
    "turns": [
        turn("USER", "Eat, please.", ("Restaurants_1", [("INFORM_INTENT", "intent", ["FindRestaurants"])])),
        turn("SYSTEM", "Where?", ("Restaurants_1", [("REQUEST", "city", [])])),
        turn(
            "USER",
            "In Rome, with my savings.",
            ("Restaurants_1", [("INFORM", "city", ["Rome"]), ("INFORM_INTENT", "intent", ["FindRestaurants"])]),
            ("Banks_1", [("INFORM", "account_type", ["savings"])]),
        ),
        turn("SYSTEM", "Book a table?", ("Restaurants_1", [("OFFER_INTENT", "intent", ["ReserveRestaurant"])])),
        turn("USER", "Yes.", ("Restaurants_1", [("AFFIRM_INTENT", "", [])])),
        turn("SYSTEM", "Pay now?", ("Banks_1", [("OFFER_INTENT", "intent", ["TransferMoney"])])),
        turn("USER", "No.", ("Banks_1", [("NEGATE_INTENT", "", [])])),
    ],
}


def read(tmp_path, dialogues):
    folder = tmp_path / "train"
    folder.mkdir()
    path = folder / "dialogues_001.json"
    path.write_text(dialogues if isinstance(dialogues, str) else json.dumps(dialogues))
    return list(sgd.read(path, name="dialogues_001.json"))


def test_roles_and_the_acts_of_every_frame(tmp_path):
    (draft,) = read(tmp_path, [DIALOGUE])
    assert [message["role"] for message in draft.messages][:3] == ["user", "assistant", "user"]
    assert draft.messages[1] == {
        "role": "assistant",
        "content": "Where?",
        "acts": (Act(act="REQUEST", slot="city", service="Restaurants_1"),),
    }
    assert draft.messages[2].get("acts") == (
        Act(act="INFORM", slot="city", service="Restaurants_1"),
        Act(act="INFORM_INTENT", slot="intent", service="Restaurants_1"),
        Act(act="INFORM", slot="account_type", service="Banks_1"),
    )


def test_the_goal_is_what_the_user_wanted_and_took_up_but_not_what_was_declined(tmp_path):
    (draft,) = read(tmp_path, [DIALOGUE])
    assert draft.goal == "FindRestaurants, ReserveRestaurant"


def test_the_folder_tells_dialogues_of_the_same_number_apart(tmp_path):
    (draft,) = read(tmp_path, [DIALOGUE])
    assert (draft.id, draft.group) == ("train/1_00000", "train/1_00000")


def test_a_bad_dialogue_is_rejected_and_the_next_one_read(tmp_path):
    strange = {**DIALOGUE, "turns": [{"speaker": "ROBOT", "utterance": "Hi", "frames": []}]}
    rejected, draft = read(tmp_path, [strange, DIALOGUE])
    assert (rejected.where, rejected.reason) == ("dialogues_001.json:dialogue 1", "not a dialogue")
    assert rejected.detail == "turns.0.speaker: Input should be 'USER' or 'SYSTEM'"
    assert draft.place == "dialogue 2"


@pytest.mark.parametrize(
    ("text", "message"), [('[{"dialogue_id"', "not JSON"), ("{}", "not a list of dialogues but dict")]
)
def test_a_file_that_cannot_be_read_is_an_error_not_one_rejection(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, text)


@pytest.mark.skipif(not DATA.is_dir(), reason="the Schema-Guided Dialogue data are not at ../shared/data/sgd")
def test_real_dialogues():
    path = DATA / "dev" / "dialogues_002.json"
    drafts = list(sgd.read(path, name="dialogues_002.json"))
    assert len(drafts) == sgd.count(path) == 98
    assert {draft.id[:7] for draft in drafts if isinstance(draft, sgd.Draft)} == {"dev/20_"}
    assert all(isinstance(draft, sgd.Draft) and draft.goal and len(draft.messages) > 1 for draft in drafts)
