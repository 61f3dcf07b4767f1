import json
from pathlib import Path

import pytest

from askwell.sources import realmedconv

DATA = Path(__file__).parents[3] / "shared" / "data" / "realmedconv" / "example.jsonl"
MESSAGES = [
    {"role": "user", "content": "Sore throat"},
    {"role": "user", "content": "And a cough"},
    {"role": "assistant", "content": "Since when?"},
]


def read(tmp_path, value):
    path = tmp_path / "part.jsonl"
    path.write_text(json.dumps(value))
    return list(realmedconv.read(path, name="part.jsonl"))


def test_the_diagnosis_is_the_outcome_and_bursts_stay_apart(tmp_path):
    (draft,) = read(tmp_path, {"session_id": 35310, "diagn": "Cold", "messages": MESSAGES, "age": 7})
    assert (draft.id, draft.group, draft.goal, draft.outcome) == ("35310", "35310", None, "Cold")
    assert draft.messages == MESSAGES
    assert draft.notes == {"field 'age' not read": 1}


@pytest.mark.parametrize(
    ("value", "reason", "detail"),
    [
        ({"messages": MESSAGES}, "no session_id", "--source chat"),
        ({"session_id": 1, "diagn": "Cold"}, "no messages", "'session_id', 'diagn'"),
        (MESSAGES, "not an object", "list"),
        ({"session_id": 1, "messages": [{"role": "patient", "content": "x"}]}, "unknown role", "rename it to 'user'"),
    ],
)
def test_rejected(tmp_path, value, reason, detail):
    (rejected,) = read(tmp_path, value)
    assert rejected.reason == reason
    assert detail in rejected.detail


@pytest.mark.skipif(not DATA.is_file(), reason="the RealMedConv example is not at ../shared/data/realmedconv")
def test_real_session():
    (draft,) = realmedconv.read(DATA, name=DATA.name)
    assert isinstance(draft, realmedconv.Draft)
    assert (draft.id, draft.outcome, len(draft.messages)) == ("35310", "Upper Respiratory Tract Infection", 28)
    assert [message["role"] for message in draft.messages[:6]] == ["user"] * 5 + ["assistant"]
