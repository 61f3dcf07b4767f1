"""The records, and the page that shows one of each."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from askwell import jsonl, records
from askwell.records import Message

PAGE = (Path(__file__).parents[1] / "docs" / "records.md").read_text()
EXAMPLES = re.findall(r"## (\w+)\n.*?```json\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize(("name", "text"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_every_example_on_the_page_is_a_record(name, text):
    kind = getattr(records, name)
    record = jsonl.parse(text.encode(), kind, where="docs/records.md")
    assert jsonl.parse(jsonl.dump(record), kind, where="dumped") == record


def test_the_page_shows_every_record_that_a_stage_writes():
    assert [name for name, _ in EXAMPLES] == [
        "Conversation",
        "Thread",
        "Turn",
        "Reply",
        "Grade",
        "QuestionSet",
        "ReplySet",
        "Comparison",
        "Screening",
        "SheetItem",
        "Case",
        "Episode",
    ]


def test_records_are_frozen_and_closed():
    message = Message(role="user", content="hello")
    with pytest.raises(ValidationError):
        message.content = "bye"
    with pytest.raises(ValidationError):
        Message.model_validate({"role": "user", "content": "hello", "mood": "good"})
