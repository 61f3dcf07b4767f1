import json
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from llm_examples import Verdict, endpoint_of, question
from pydantic import BaseModel

from askwell.llm import chat
from askwell.llm.chat import Answer, Failure, Request


def response(content="hello", finish="stop", **fields):
    message = {"role": "assistant", "content": content, **fields}
    value = {
        "choices": [{"message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
    }
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        (response(), "ok", "hello"),
        (response("cut of", "length"), "length", "cut of"),
        (response("", "content_filter"), "content_filter", ""),
        (response(""), "empty", ""),
        (response(" \n"), "empty", " \n"),
        (response(None), "empty", ""),
        (response(None, refusal="I cannot."), "refusal", "I cannot."),
    ],
)
def test_an_answer_is_stored_as_what_it_is(body, kind, text):
    assert chat.read(200, {}, body) == Answer(text, kind, 7, 3)


@pytest.mark.parametrize(
    ("status", "body", "kind", "retry", "fatal"),
    [
        (200, b'{"choices": [{"mess', "torn", True, False),
        (200, b"\xff\xfe", "torn", True, False),
        (200, b"[]", "torn", True, False),
        (200, b'{"choices": []}', "torn", True, False),
        (200, b'{"error": {"message": "overloaded"}}', "error_body", True, False),
        (400, b"too long", "refused", False, False),
        (422, b"what?", "refused", False, False),
        (401, b"no key", "unauthorized", False, True),
        (404, b"no model", "not_found", False, True),
        (429, b"slow down", "throttled", True, False),
        (429, b'{"error": {"code": "insufficient_quota"}}', "quota", False, True),
        (500, b"", "server", True, False),
        (502, b"", "server", True, False),
        (503, b"", "unavailable", True, False),
        (301, b"", "refused", False, False),
    ],
)
def test_a_failure_says_whether_another_attempt_can_help(status, body, kind, retry, fatal):
    found = chat.read(status, {}, body)
    assert isinstance(found, Failure)
    assert (found.kind, found.retry, found.fatal) == (kind, retry, fatal)


def test_usage_that_is_no_count_is_no_usage():
    body = json.loads(response())
    for usage in (None, {}, {"prompt_tokens": -1, "completion_tokens": "3"}, {"prompt_tokens": True}, []):
        body["usage"] = usage
        found = chat.read(200, {}, json.dumps(body).encode())
        assert (found.prompt_tokens, found.completion_tokens) == (None, None)


def from_now(**span):
    return format_datetime(datetime.now(timezone.utc) + timedelta(**span))


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        (None, 0, 0),
        ("", 0, 0),
        ("0", 0, 0),
        ("-1", 0, 0),
        ("1.5", 1.5, 1.5),
        ("1e9", 60, 60),
        ("inf", 60, 60),
        ("-inf", 0, 0),
        ("NaN", 0, 0),
        ("soon", 0, 0),
        (lambda: from_now(seconds=30), 20, 30),
        (lambda: from_now(days=-1), 0, 0),
        (lambda: from_now(days=9999), 60, 60),
        ("Wed, 99 Foo 2025 25:61:61 GMT", 0, 0),
    ],
)
def test_a11_retry_after_is_never_slept_past_the_cap(text, least, most):
    # A date counts from the moment of the test, not from when the suite was collected.
    assert least <= chat.seconds_of(text() if callable(text) else text) <= most


def test_the_body_holds_what_the_recipe_says():
    endpoint = endpoint_of(temperature=0.3, extra_body={"max_tokens": None, "max_completion_tokens": 9, "top_k": 5})
    fields = chat.settings(endpoint, Verdict, "json_schema")
    body = json.loads(chat.body_of(fields, Request(question(1), Verdict)))
    assert body["model"] == "mock" and body["temperature"] == 0.3 and body["top_k"] == 5
    assert "max_tokens" not in body and body["max_completion_tokens"] == 9
    assert body["messages"] == list(question(1))
    assert body["response_format"]["json_schema"]["schema"] == chat.schema_of(Verdict)
    assert "response_format" not in chat.settings(endpoint, Verdict, "text")
    assert "response_format" not in chat.settings(endpoint, None, "json_schema")


def test_where_there_is_a_seed_each_sample_has_its_own():
    fields = chat.settings(endpoint_of(extra_body={"seed": 7}), None)
    bodies = [json.loads(chat.body_of(fields, Request(question(1), sample=sample))) for sample in (0, 1, 2)]
    assert [body["seed"] for body in bodies] == [7, 8, 9]
    plain = chat.settings(endpoint_of(), None)
    assert chat.body_of(plain, Request(question(1), sample=1)) == chat.body_of(plain, Request(question(1)))


def test_half_a_character_is_sent_as_an_escape():
    request = Request(({"role": "user", "content": "a\ud800é"},))
    assert json.loads(chat.body_of({}, request))["messages"][0]["content"] == "a\ud800é"


def test_an_error_quotes_little_of_a_long_page():
    assert len(chat.read(500, {}, b"<html>" * 10_000).detail) < 250


def test_a_schema_keeps_the_order_of_its_fields_in_what_is_sent():
    """Decoding that is held to a schema writes the fields in its order: the reason must stand before the verdict."""

    class Zealous(BaseModel):
        reason: str
        a_verdict: bool

    fields = chat.settings(endpoint_of(), Zealous, "json_schema")
    body = chat.body_of(fields, Request(({"role": "user", "content": "hello"},), Zealous))
    schema = json.loads(body)["response_format"]["json_schema"]["schema"]
    assert list(schema["properties"]) == schema["required"] == ["reason", "a_verdict"]
