import json

import pytest

from askwell.sources import chat
from askwell.sources.drafts import Draft, Fault, Rejected, check

ASKED = {"role": "user", "content": "My head hurts."}
ASKS = {"role": "assistant", "content": "Since when?"}


def read(tmp_path, content):
    path = tmp_path / "logs.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(chat.read(path, name="logs.jsonl"))


def line(**fields):
    return json.dumps({"messages": [ASKED, ASKS], **fields})


def with_message(**message):
    return json.dumps({"messages": [ASKED, message]})


def test_all_fields(tmp_path):
    (draft,) = read(tmp_path, line(id="a", group="g", goal="advice", outcome="migraine"))
    assert draft == Draft("logs.jsonl", "1", "a", "g", [ASKED, ASKS], "advice", "migraine")


def test_a_bare_list_is_named_after_its_line_and_is_its_own_group(tmp_path):
    (draft,) = read(tmp_path, "\n  \n" + json.dumps([ASKED, ASKS]))
    assert (draft.id, draft.group, draft.messages) == ("logs.jsonl:3", "logs.jsonl:3", [ASKED, ASKS])


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_field_that_is_null_or_blank_was_left_out(tmp_path, value):
    (draft,) = read(tmp_path, line(id=value, group=value, goal=value, outcome=value))
    assert (draft.id, draft.group, draft.goal, draft.outcome) == ("logs.jsonl:1", "logs.jsonl:1", None, None)


def test_a_whole_number_is_an_id(tmp_path):
    (draft,) = read(tmp_path, line(id=7))
    assert (draft.id, draft.group) == ("7", "7")


def test_parts_of_text_are_joined_and_developer_is_system(tmp_path):
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    (draft,) = read(tmp_path, json.dumps([{"role": "developer", "content": "Be kind."}, {**ASKED, "content": parts}]))
    assert draft.messages == [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "one\ntwo"}]


def test_what_looks_like_a_speaker_inside_text_stays_text(tmp_path):
    text = 'He wrote "assistant: stop"\nuser: why?\x0b\u2028{"role": "user"}'
    (draft,) = read(tmp_path, json.dumps([{"role": "user", "content": text}, ASKS], ensure_ascii=False))
    assert draft.messages == [{"role": "user", "content": text}, ASKS]


def test_fields_that_are_not_read_are_counted(tmp_path):
    (draft,) = read(tmp_path, json.dumps({"messages": [{**ASKED, "name": "Ann"}, {**ASKS, "name": "Bo"}], "tags": []}))
    assert draft.notes == {"message field 'name' not read": 2, "field 'tags' not read": 1}


def test_a_byte_order_mark_at_the_start_is_accepted_and_windows_line_ends_too(tmp_path):
    found = read(tmp_path, b"\xef\xbb\xbf" + (line() + "\r\n" + line() + "\r\n").encode())
    assert [draft.id for draft in found] == ["logs.jsonl:1", "logs.jsonl:2"]


def test_a_byte_order_mark_inside_the_file_says_where_it_comes_from(tmp_path):
    _, rejected = read(tmp_path, f"{line()}\n\ufeff{line()}")
    assert (rejected.place, rejected.reason) == ("2", "malformed JSON")
    assert "left by joining files" in rejected.detail


@pytest.mark.parametrize(
    ("bad", "reason", "detail"),
    [
        ('{"messages": [{"role": "user"', "malformed JSON", "column 30: Expecting ',' delimiter; the line is cut off"),
        ("{'messages': []}", "malformed JSON", "column 2: Expecting property name"),
        ("{", "malformed JSON", "write one conversation a line"),
        ('{"id": "a", "id": "b"}', "malformed JSON", "key 'id' stands twice"),
        ("[" * 100_000, "malformed JSON", "nested too deeply"),
        ("9" * 10_000, "malformed JSON", "digits"),
        (line().replace("head", "he\0ad"), "NUL character", "column "),
        (line().encode().replace(b"head", b"t\xeate"), "not UTF-8", "byte 0xea at column "),
        (line().encode("utf-16"), "not UTF-8", "save it as UTF-8"),
        ('"hello"', "not an object", "the line is str"),
        ("{}", "no messages", "the keys are none"),
        ('{"conversations": []}', "no messages", "looks like ShareGPT"),
        ('{"messages": "hello"}', "no messages", "'messages' is str"),
        ('{"messages": ["hello"]}', "message is not an object", "message 1 is str"),
        (f"[{line()}]", "message is not an object", "the line lists conversations"),
        (with_message(content="hello"), "message without role", "message 2; its keys are 'content'"),
        (with_message(role="assistant"), "message without content", "message 2; its keys are 'role'"),
        (with_message(role="assistant", content=None), "null content", "message 2; leave the message out"),
        (with_message(role="assistant", content=None, tool_calls=[1]), "null content", "only call tools"),
        (with_message(role="assistant", content=5), "content is not text", "message 2 is int"),
        (with_message(role="user", content=[{"type": "image_url"}]), "content is not text", "of type 'image_url'"),
        (with_message(role="human", content="x"), "unknown role", "message 2: 'human'; rename it to 'user'"),
        (with_message(role="gpt", content="x"), "unknown role", "message 2: 'gpt'; rename it to 'assistant'"),
        (with_message(role="Assistant", content="x"), "unknown role", "'Assistant'; rename it to 'assistant'"),
        (with_message(role="tool", content="x"), "unknown role", "leave out what tools said"),
        (with_message(role="zorg", content="x"), "unknown role", "'user', 'assistant' or 'system'"),
        (with_message(role=["user"], content="x"), "unknown role", "['user']"),
        (line(group=[1]), "field is not text", "'group' is list"),
        (line(id=True), "field is not text", "'id' is bool"),
    ],
)
def test_a_bad_line_is_rejected_with_its_reason_and_the_next_one_read(tmp_path, bad, reason, detail):
    bad = bad if isinstance(bad, bytes) else bad.encode()
    rejected, *rest = read(tmp_path, bad.replace(b"\n", b"") + b"\n" + line(id="next").encode())
    assert isinstance(rejected, Rejected)
    assert (rejected.where, rejected.reason) == ("logs.jsonl:1", reason)
    assert detail in rejected.detail
    assert 0 < len(rejected.quote) <= 200
    assert [draft.id for draft in rest if isinstance(draft, Draft)] == ["next"]


def test_a_quote_shows_the_place_at_fault_in_a_long_line(tmp_path):
    (rejected,) = read(tmp_path, line(goal="x" * 5000, outcome="y" * 5000).replace('"outcome"', 'here"outcome"'))
    assert 'here"outcome"' in rejected.quote


def test_a_quote_is_short_even_where_it_must_be_escaped(tmp_path):
    (draft,) = read(tmp_path, json.dumps([ASKED, {"role": "assistant", "content": "\ud83d" * 1000}]))
    with pytest.raises(Fault) as fault:
        check(draft)
    assert fault.value.quote.startswith("\\ud83d\\ud83d")
    assert len(fault.value.quote) == 200


def test_a_line_too_long_is_skipped_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(chat, "MAX_LINE", 300)
    rejected, draft = read(tmp_path, line(goal="x" * 2000) + "\n" + line(id="next"))
    assert (rejected.reason, rejected.place) == ("line too long", "1")
    assert (draft.id, draft.place) == ("next", "2")


@pytest.mark.parametrize("length", [299, 300, 301, 302, 601, 602, 603])
def test_a_line_about_as_long_as_allowed_hides_no_neighbour(tmp_path, monkeypatch, length):
    monkeypatch.setattr(chat, "MAX_LINE", 300)
    padded = line(goal="x" * (length - len(line(goal=""))))
    assert len(padded) == length
    found = read(tmp_path, f"{padded}\n{line(id='next')}\n")
    assert [item.place for item in found] == ["1", "2"]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "empty dialogue"),
        ([ASKED, {"role": "assistant", "content": " \n"}], "empty message"),
        ([ASKED, {"role": "assistant", "content": "a\0b"}], "NUL character"),
        ([ASKED, {"role": "assistant", "content": "\ud83d"}], "lone surrogate"),
        ([ASKED], "no reply by an assistant"),
        ([ASKS], "no message by a user"),
    ],
)
def test_no_dialogue(tmp_path, messages, reason):
    (draft,) = read(tmp_path, json.dumps(messages))
    with pytest.raises(Fault, match=reason):
        check(draft)


def test_counting_reads_no_blank_line(tmp_path):
    path = tmp_path / "logs.jsonl"
    path.write_text(f"{line()}\n\n \t\nbroken\n{line()}")
    assert chat.count(path) == 3
