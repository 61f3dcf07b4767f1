"""Typed JSONL: round trips, errors with file and line, whole files or none, torn last lines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from askwell import jsonl
from askwell.errors import DataError
from askwell.records import Act, Message

text = st.text(alphabet=st.characters(exclude_categories=["Cs"]))
messages = st.builds(
    Message,
    role=st.sampled_from(["user", "assistant"]),
    content=text,
    acts=st.lists(st.builds(Act, act=text, slot=text, service=text), max_size=2).map(tuple),
)


@given(st.lists(messages, max_size=5))
def test_what_is_written_is_read(tmp_path_factory, records):
    path = tmp_path_factory.mktemp("jsonl") / "m.jsonl"
    assert jsonl.write(path, records) == len(records)
    assert list(jsonl.read(path, Message)) == records


def test_a_bad_line_is_named_with_file_and_line(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"role":"user","content":"a"}\n{"role":"king","content":"b"}\n')
    with pytest.raises(DataError, match=r"m\.jsonl:2: not a Message: role"):
        list(jsonl.read(path, Message))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="absent.jsonl: no such file"):
        list(jsonl.read(tmp_path / "absent.jsonl", Message))


def test_a_failing_source_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "m.jsonl"
    jsonl.write(path, [Message(role="user", content="old")])

    def broken():
        yield Message(role="user", content="new")
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError):
        jsonl.write(path, broken())
    assert [record.content for record in jsonl.read(path, Message)] == ["old"]
    assert list(tmp_path.iterdir()) == [path]


@given(st.lists(messages, min_size=1, max_size=4), st.data())
def test_an_appender_owes_a_torn_last_line_again(tmp_path_factory, records, data):
    path = tmp_path_factory.mktemp("jsonl") / "m.jsonl"
    jsonl.write(path, records)
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    with jsonl.Appender(path, Message) as appender:
        assert appender.done == records[: len(appender.done)]
        appender.append(records[len(appender.done) :])
    assert path.read_bytes() == whole
