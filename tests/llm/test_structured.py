import asyncio
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm_examples import Verdict, client_of, question, verdict_of

from askwell.llm import structured
from askwell.llm.chat import schema_of
from askwell.llm.client import Failed
from askwell.llm.structured import Unreadable, parse
from askwell.mock_endpoint import MockEndpoint

GOOD = '{"reason": "so", "verdict": "yes"}'


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"Sure, here it is:\n```json\n{GOOD}\n```\nAnything else?",
        '{"reason": "so", "verdict": "yes",}',
        '{"reason": "so",\n "verdict": "yes" ,\n}',
        f"<think>{{maybe no}}</think>{GOOD}",
        f'At first I thought {{"reason": "x", "verdict": "no"}}, but no: {GOOD}',
        f"{{ not json }} {GOOD}",
    ],
)
def test_a_lenient_reader_finds_the_last_object(text):
    assert parse(text, Verdict) == Verdict(reason="so", verdict="yes")


def test_a_comma_inside_a_string_stays():
    assert parse('{"reason": "a, ]b,}", "verdict": "no",}', Verdict).reason == "a, ]b,}"


@pytest.mark.parametrize("text", ["", "yes", "[]", '{"reason": "so"}', "{" * 50_000, '{"a":' * 50_000])
def test_what_cannot_be_read_says_why(text):
    with pytest.raises(Unreadable) as fault:
        parse(text, Verdict)
    assert str(fault.value) and not fault.value.off_menu


def test_off_menu_is_told_from_unreadable():
    with pytest.raises(Unreadable, match="maybe") as fault:
        parse('{"reason": "so", "verdict": "maybe"}', Verdict)
    assert fault.value.off_menu


@given(st.text())
def test_the_reader_never_raises_anything_else(text):
    with contextlib.suppress(Unreadable):
        parse(text, Verdict)


@given(st.text(), st.sampled_from(["yes", "no"]), st.text(alphabet="abc .,\n`"))
def test_prose_around_changes_nothing(reason, verdict, prose):
    text = f"{prose}{json.dumps({'reason': reason, 'verdict': verdict})}{prose}"
    assert parse(text, Verdict) == Verdict(reason=reason, verdict=verdict)


def ask(path, mock, **fields):
    async def go():
        async with client_of(path / "a.sqlite", mock, **fields) as client:
            try:
                found = await structured.ask(client, question(1), Verdict, role="judge")
            except Failed as failed:
                found = failed
            return found, client

    return asyncio.run(go())


@pytest.mark.parametrize(
    ("takes", "mode"),
    [({}, "json_schema"), ({"schema": False}, "json_object"), ({"schema": False, "json_object": False}, "text")],
)
def test_what_the_endpoint_takes_is_found_out_once_and_remembered(tmp_path, takes, mode):
    mock = MockEndpoint(verdict_of, **takes)
    found, client = ask(tmp_path, mock)
    assert found.verdict in ("yes", "no")
    assert client.store.path.exists()
    before = mock.ledger.requests
    found, client = ask(tmp_path, mock)
    assert mock.ledger.requests == before and client._structured == mode


def test_an_answer_that_cannot_be_read_is_repaired_once(tmp_path):
    said = iter(["I would say yes.", GOOD])
    mock = MockEndpoint(lambda body: next(said))
    found, client = ask(tmp_path, mock)
    assert found == Verdict(reason="so", verdict="yes")
    assert mock.ledger.paid == 2 and client.ledger["repairs"] == 1


def test_what_stays_unreadable_is_unscored_with_its_text(tmp_path):
    mock = MockEndpoint(lambda body: "I would say yes.")
    found, _ = ask(tmp_path, mock)
    assert isinstance(found, Failed) and found.kind == "unreadable" and found.text == "I would say yes."
    assert mock.ledger.paid == 2


def test_an_off_menu_verdict_is_unscored_and_not_asked_again(tmp_path):
    mock = MockEndpoint(lambda body: '{"reason": "so", "verdict": "perhaps"}')
    found, _ = ask(tmp_path, mock)
    assert isinstance(found, Failed) and found.kind == "off_menu" and "perhaps" in found.text
    assert mock.ledger.paid == 1


def test_schemas_are_as_strict_decoding_demands():
    class Inner(Verdict):
        note: str = "none"

    class Outer(Verdict):
        inner: list[Inner]

    schema = schema_of(Outer)
    assert schema["required"] == ["reason", "verdict", "inner"] and schema["additionalProperties"] is False
    inner = schema["$defs"]["Inner"]
    assert inner["required"] == ["reason", "verdict", "note"] and "default" not in inner["properties"]["note"]
