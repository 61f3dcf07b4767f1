"""One chat completion: what is sent, the key that it is stored under, and what came back.

Pure: no I/O, no clock. A response is either an Answer, which is stored and never paid for again whatever it is worth,
or a Failure with its class, which says whether another attempt can help.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel

from askwell.recipes import Endpoint

LONGEST_WAIT = 60.0
"""Seconds; a longer Retry-After is cut to this."""
QUOTE = 200
"""Characters of an endpoint's own words in an error."""

AnswerKind = Literal["ok", "length", "content_filter", "refusal", "empty"]


class Answer(NamedTuple):
    """A completion as it was received. Every kind but `ok` is no success, and is not thrown away either.

    Token counts are the endpoint's own; None where it gave none.
    """

    text: str
    kind: AnswerKind
    prompt_tokens: int | None
    completion_tokens: int | None


class Failure(NamedTuple):
    """An attempt without an answer.

    `retry`: another attempt can help. `fatal`: no call of this run can succeed. `paid`: the endpoint may have billed
    it. `wait`: seconds that the endpoint asks for, in [0, LONGEST_WAIT].
    """

    kind: str
    detail: str
    retry: bool = True
    fatal: bool = False
    paid: bool = False
    wait: float = 0.0


class Request(NamedTuple):
    """What is asked: messages, the model that a structured answer is an instance of, and which sample of it this is.

    `role` names who asks (extract, grade): figures are kept by it; it changes nothing that is sent.
    """

    messages: tuple[Mapping[str, str], ...]
    kind: type[BaseModel] | None = None
    sample: int = 0
    role: str = ""


def settings(endpoint: Endpoint, kind: type[BaseModel] | None, structured: str = "text") -> dict[str, Any]:
    """The fields of a body that all requests of a kind share; `structured` says how a schema is asked for. A null in
    `extra_body` takes a field out, for endpoints that refuse it."""
    fields: dict[str, Any] = {
        "model": endpoint.model,
        "temperature": endpoint.temperature,
        "top_p": endpoint.top_p,
        "max_tokens": endpoint.max_tokens,
    }
    if kind is not None and structured == "json_schema":
        schema = {"name": kind.__name__, "schema": schema_of(kind), "strict": True}
        fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif kind is not None and structured == "json_object":
        fields["response_format"] = {"type": "json_object"}
    return plain({name: value for name, value in {**fields, **endpoint.extra_body}.items() if value is not None})


def body_of(fields: Mapping[str, Any], request: Request) -> bytes:
    """The JSON body of a request, as it is sent and as its key is made: the same bytes for the same meaning.

    Where the fields hold a seed, sample number k is drawn with the k-th after it: one seed is one answer.
    """
    seed = fields.get("seed")
    own = {"seed": seed + request.sample} if isinstance(seed, int) else {}
    schema = fields.get("response_format")
    rest = canonical(
        {**{k: v for k, v in fields.items() if k != "response_format"}, **own, "messages": request.messages}
    )
    if schema is None:
        return rest
    # A schema keeps its order: constrained decoding writes an answer's fields in it, and a reason after the verdict is
    # no reason.
    return rest[:-1] + b',"response_format":' + json.dumps(schema, separators=(",", ":")).encode() + b"}"


def key_of(base_url: str, body: bytes, sample: int) -> str:
    """Where an answer is stored: a hash of all that can change it, which time limits and the like cannot."""
    return hashlib.sha256(canonical([base_url.rstrip("/"), sample]) + body).hexdigest()


def canonical(value: Any) -> bytes:
    """JSON with names in order, in UTF-8; half a character, which UTF-8 lacks, as JSON's escape of it."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace")


def plain(value: Any) -> Any:
    """A JSON value with whole numbers as integers, so that 1.0 and 1 are spelled alike (true is neither)."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    return value


def size_of(body: bytes, request: Request) -> int:
    """Tokens that a request has at most: no tokenizer in use makes more tokens than bytes, and a chat template adds a
    few to each message."""
    return len(body) + 16 * len(request.messages)


@lru_cache(maxsize=64)
def schema_of(kind: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a model, every field required and no other allowed, as strict decoding demands."""
    return strict(kind.model_json_schema())


def strict(schema: Any) -> Any:
    """A schema whose objects require all of their fields and allow no other."""
    if isinstance(schema, list):
        return [strict(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: strict(value) for name, value in schema.items() if name != "default"}
    if made.get("type") == "object" and isinstance(made.get("properties"), dict):
        made |= {"additionalProperties": False, "required": list(made["properties"])}
    return made


def read(status: int, headers: Mapping[str, str], body: bytes) -> Answer | Failure:
    """What a response means."""
    if status != 200:
        return refused(status, headers, body)
    try:
        value = json.loads(body.decode("utf-8"))
    except (UnicodeDecodeError, ValueError):
        return Failure("torn", f"the answer is not JSON: {quoted(body)}", paid=True)
    return answer_in(value) or error_in(value, body)


def answer_of(raw: str) -> Answer:
    """A stored response."""
    answer = answer_in(json.loads(raw))
    assert answer is not None, "only answers are stored"
    return answer


def answer_in(value: Any) -> Answer | None:
    """The completion in a response, None where it holds none."""
    try:
        choice = value["choices"][0]
        message = choice["message"]
        content = message.get("content")
        finish = choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError):
        return None
    if content is not None and not isinstance(content, str):
        return None
    text = content or ""
    usage = value.get("usage")
    prompt, completion = (tokens(usage, name) for name in ("prompt_tokens", "completion_tokens"))
    kind: AnswerKind = "ok"
    if finish in ("length", "content_filter"):
        kind = "length" if finish == "length" else "content_filter"
    elif message.get("refusal"):
        kind = "refusal"
    elif not text.strip():
        kind = "empty"
    return Answer(text or str(message.get("refusal") or ""), kind, prompt, completion)


def tokens(usage: Any, name: str) -> int | None:
    """A count out of `usage`, None where it is missing or no count."""
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else None


def error_in(value: Any, body: bytes) -> Failure:
    """A response of status 200 that holds no completion."""
    if isinstance(value, dict) and value.get("error"):
        return Failure("error_body", f"status 200 with an error in it: {quoted(body)}")
    return Failure("torn", f"the answer is no chat completion: {quoted(body)}", paid=True)


def refused(status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """A response of another status: 400 and its like no attempt can mend, 401 to 404 no call of the run can."""
    detail = f"status {status}: {quoted(body)}"
    if status in (401, 403):
        return Failure("unauthorized", detail, retry=False, fatal=True)
    if status == 404:
        return Failure("not_found", detail, retry=False, fatal=True)
    if status == 429 and b"insufficient_quota" in body:
        return Failure("quota", detail, retry=False, fatal=True)
    wait = seconds_of(next((text for name, text in headers.items() if name.lower() == "retry-after"), None))
    if status in (429, 503, 529):
        return Failure("throttled" if status == 429 else "unavailable", detail, wait=wait)
    if status in (408, 409, 425) or status >= 500:
        return Failure("server", detail, wait=wait)
    return Failure("refused", detail, retry=False)


def seconds_of(text: str | None) -> float:
    """Retry-After, in seconds or as a date, as a wait in [0, LONGEST_WAIT]; 0 for what cannot be read."""
    if not text:
        return 0.0
    try:
        seconds = float(text)
    except ValueError:
        try:
            date = parsedate_to_datetime(text)
            date = date if date.tzinfo else date.replace(tzinfo=timezone.utc)
            seconds = (date - datetime.now(timezone.utc)).total_seconds()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return 0.0 if math.isnan(seconds) else min(max(seconds, 0.0), LONGEST_WAIT)


def quoted(body: bytes) -> str:
    """The beginning of a body, for an error."""
    text = " ".join(body[: 4 * QUOTE].decode("utf-8", "replace").split())
    return text[:QUOTE] + ("..." if len(text) > QUOTE else "") if text else "(empty)"
