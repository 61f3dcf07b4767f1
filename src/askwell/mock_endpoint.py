"""An OpenAI-compatible chat-completions endpoint for tests, benchmarks and the simulated clinic, with a storm on order.

It answers over HTTP on loopback (`serve`) or without a socket (`send`), breaks what `Faults` says in the ways that real
endpoints break, and keeps its own account of what it would have billed, against which a client's figures are held. It
knows nothing of any client here. `n`, `stream` and tools are not offered: a request for them is refused with 400.

    python -m askwell.mock_endpoint --port 0 --latency 0.2 --words 60

prints its base URL, serves until SIGTERM or SIGINT, and then prints its ledger as one JSON line.
"""

import argparse
import asyncio
import hashlib
import json
import random
import re
import signal
import socket
import struct
from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import accumulate, islice
from typing import Any, ClassVar, Literal, NamedTuple, TypeGuard, get_args

from aiohttp import web

Body = dict[str, Any]
Reply = Callable[[Body], str | Awaitable[str]]
RetryAfter = str | Callable[[], str | None] | Iterable[str | None]

# fmt: off
Fault = Literal[
    "throttle", "error", "unavailable", "reset", "cut", "torn", "bad_utf8", "error_body", "empty", "length", "hang",
    "slow", "fenced", "garbled",
]
# fmt: on
FAULTS: tuple[Fault, ...] = get_args(Fault)

SLOW = 20


@dataclass(frozen=True)
class Faults:
    """How often each fault strikes: rates in [0, 1] that sum to at most 1, for a request meets at most one."""

    throttle: float = 0.0  # 429, with Retry-After as the endpoint says
    error: float = 0.0  # 500
    unavailable: float = 0.0  # 503
    reset: float = 0.0  # a TCP reset before any header
    cut: float = 0.0  # 200 and the right Content-Length, but the connection closes in the middle of the body
    torn: float = 0.0  # 200 and whole by HTTP, but the JSON ends in the middle
    bad_utf8: float = 0.0  # 200 with bytes in the content that are not UTF-8
    error_body: float = 0.0  # 200 with {"error": ...}
    empty: float = 0.0  # 200 with the content ""
    length: float = 0.0  # 200 with half of the text and the finish reason "length"
    hang: float = 0.0  # no answer until the client goes
    slow: float = 0.0  # the latency times 20
    fenced: float = 0.0  # the content in a ```json fence between two sentences
    garbled: float = 0.0  # another text, `MockEndpoint.garble`, in place of the content
    always: Callable[[Body], Fault | None] | None = None  # a fault for this body, whatever was drawn; None: the draw's

    STORM: ClassVar["Faults"]  # goal A7: 429 30 %, 5xx 10 %, reset 5 %, torn 15 %, and what is rarer

    def __post_init__(self) -> None:
        rates = self.rates()
        if not all(0 <= rate <= 1 for rate in rates) or sum(rates) > 1 + 1e-9:
            raise ValueError(f"fault rates must lie in [0, 1] and sum to at most 1, not {rates!r}")

    def rates(self) -> list[float]:
        """In the order of FAULTS."""
        return [getattr(self, name) for name in FAULTS]


# fmt: off
Faults.STORM = Faults(
    throttle=0.3, error=0.05, unavailable=0.05, reset=0.05, torn=0.15, bad_utf8=0.01, error_body=0.02, empty=0.02,
    length=0.02, hang=0.005, slow=0.02,
)
# fmt: on


@dataclass
class Ledger:
    """What became of the requests for completions, by the endpoint's own account.

    A request is paid once its completion exists: a client that leaves before it arrives has paid, as with real
    endpoints; what is refused, reset, or hangs is free. `outcomes` counts "ok", faults by their name, and refusals:
    "unauthorized", "invalid" (a 400), "too_long" (a 400 for the context), "busy" (a 429 for want of a slot).
    """

    requests: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    paid: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    paid_by_body: Counter[str] = field(default_factory=Counter)  # by `body_key`
    in_flight: int = 0  # being served now; what is refused at once never is
    peak: int = 0  # the most that were in flight at once

    def summary(self) -> dict[str, Any]:
        """For JSON: of the bodies only how many were paid, and in `paid_again` those paid more than once."""
        again = {key: count for key, count in self.paid_by_body.items() if count > 1}
        account = vars(self) | {"bodies": len(self.paid_by_body), "paid_again": again}
        del account["paid_by_body"]
        return account


class Refusal(NamedTuple):
    """An answer without a completion, in OpenAI's error shape. `outcome` is its name in the ledger."""

    outcome: str
    status: int
    message: str
    type: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None


REFUSALS = {
    refusal.outcome: refusal
    for refusal in (
        Refusal("throttle", 429, "Rate limit reached. Please try again later.", "requests", "rate_limit_exceeded"),
        Refusal("busy", 429, "Too many requests at once.", "requests", "rate_limit_exceeded"),
        Refusal("error", 500, "The server had an error while processing your request.", "server_error"),
        Refusal("unavailable", 503, "The server is overloaded. Please try again later.", "server_error"),
        Refusal("error_body", 200, "The upstream provider returned an error.", "server_error", "upstream_error"),
        Refusal("unauthorized", 401, "Incorrect API key provided.", code="invalid_api_key"),
        Refusal("invalid", 400, "The body must be a JSON object with a list of messages."),
    )
}


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes
    ending: Literal["whole", "cut", "reset"] = "whole"


JSON_TYPE = {"Content-Type": "application/json"}
RESET = Answer(0, {}, b"", "reset")

TOKEN = re.compile(r"\w+|[^\w\s]")
PER_MESSAGE = 4


@lru_cache(maxsize=256)
def count_tokens(text: str) -> int:
    """Words and punctuation marks: the endpoint's own rule, no real tokenizer's."""
    return len(TOKEN.findall(text))


def prompt_tokens(body: Body) -> int:
    """The tokens of every text in the messages, and 4 a message."""
    total = PER_MESSAGE * len(body["messages"])
    for message in body["messages"]:
        content = message.get("content")
        texts = [part.get("text") for part in content] if isinstance(content, list) else [content]
        total += sum(count_tokens(text) for text in texts if isinstance(text, str))
    return total


def clip(text: str, tokens: int) -> str:
    """The text up to the end of its token number `tokens`."""
    ends = [match.end() for match in islice(TOKEN.finditer(text), tokens)]
    return text[: ends[-1]] if ends else ""


encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
encode_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def as_bytes(text: str) -> bytes:
    """JSON text in UTF-8; a lone surrogate becomes its escape, which is what JSON has for it."""
    return text.encode("utf-8", "backslashreplace")


def body_key(body: Body) -> str:
    """The sha256 of the body's canonical JSON: its key in `Ledger.paid_by_body`."""
    return hashlib.sha256(encode_canonical(body).encode()).hexdigest()


def well_formed(body: object) -> bool:
    """Whether a body has messages that are objects, and their parts, if they have any, too."""
    messages = body.get("messages") if isinstance(body, dict) else None
    return (
        bool(messages)
        and all_objects(messages)
        and all(all_objects(message["content"]) for message in messages if isinstance(message.get("content"), list))
    )


def all_objects(values: object) -> TypeGuard[list[Body]]:
    return isinstance(values, list) and all(isinstance(value, dict) for value in values)


class MockEndpoint:
    """The endpoint. `ledger` is its account, `prompt_tokens` and `count_tokens` its rule for tokens.

    `reply` makes the text of an answer from the body of the request; it is called for requests that get a completion
    and for no other. The n-th request to arrive gets the n-th draw of fault and latency, whatever becomes of it, so
    that for a client that waits for each answer the faults are a function of the seed. Faults of the way come before
    what the model refuses, as they do in the world: a request for an unknown format may well get 429 first.

    latency: seconds before a completion arrives, on top of what `reply` takes; refusals come at once
    tail: sigma of a lognormal factor on the latency, whose median is 1; 0 is constant
    slots: requests served at once; one more gets 429
    retry_after: the header of each 429: one text, a function, or texts that are used up in order; None is no header
    api_key: what the bearer must be, else 401
    schema, json_object: False refuses that response_format with 400, as older servers do
    context: prompt tokens allowed; more get 400 context_length_exceeded
    usage: False leaves the usage out of answers
    garble: the text of the fault "garbled"
    """

    def __init__(
        self,
        reply: Reply,
        *,
        latency: float = 0.0,
        tail: float = 0.0,
        slots: int | None = None,
        faults: Faults = Faults(),
        seed: int = 0,
        retry_after: RetryAfter | None = None,
        api_key: str | None = None,
        schema: bool = True,
        json_object: bool = True,
        model: str = "mock",
        context: int | None = None,
        usage: bool = True,
        garble: str = "I cannot say.",
    ) -> None:
        self.ledger = Ledger()
        self.model = model
        self._model_json = encode(model)
        self._reply = reply
        self._latency = latency
        self._tail = tail
        self._slots = slots
        self._always = faults.always
        self._thresholds = list(accumulate(faults.rates()))
        self._fault_draws = random.Random(seed)
        self._tail_draws = random.Random(f"{seed} tail")
        self._bearer = None if api_key is None else f"Bearer {api_key}"
        self._refused_formats = {"json_schema": not schema, "json_object": not json_object}
        self._context = context
        self._usage = usage
        self._garble = garble
        self._retry_after = retry_after_of(retry_after)

    async def send(self, body: Body, headers: Mapping[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
        """One request without a socket: status, headers and body.

        Raises ConnectionResetError for the faults "reset" and "cut"; a hang lasts until it is cancelled.
        """
        answer = await self._answer(body, headers or {})
        if answer.ending != "whole":
            raise ConnectionResetError(f"the mock endpoint ended the connection ({answer.ending})")
        return answer.status, dict(answer.headers), answer.body

    @asynccontextmanager
    async def serve(self, port: int = 0) -> AsyncIterator[str]:
        """Serve on 127.0.0.1 and yield the base URL, ".../v1". Leaving drops the connections still open."""
        server = web.Server(self._handle, handler_cancellation=True, access_log=None)
        runner = web.ServerRunner(server, shutdown_timeout=0.01)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        route = f"{request.method} {request.path}"
        if route == "POST /v1/chat/completions":
            raw = await request.content.read()
            try:
                body = json.loads(raw)
            except (ValueError, RecursionError):
                body = None
            answer = await self._answer(body, request.headers)
        elif route == "GET /v1/models":
            answer = self._models(request.headers)
        else:
            answer = refuse(Refusal("unknown", 404, f"Unknown request URL: {route}."))
        if answer.ending != "whole":
            await break_off(request, answer)
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body)

    def _models(self, headers: Mapping[str, str]) -> Answer:
        if not self._authorized(headers):
            return refuse(REFUSALS["unauthorized"])
        model = {"id": self.model, "object": "model", "created": 0, "owned_by": "askwell"}
        return Answer(200, JSON_TYPE, as_bytes(encode({"object": "list", "data": [model]})))

    async def _answer(self, body: Any, headers: Mapping[str, str]) -> Answer:
        """Any request for a completion, up to its last byte."""
        ledger = self.ledger
        ledger.requests += 1
        fault, factor = self._draw()
        if not self._authorized(headers):
            return self._refuse(REFUSALS["unauthorized"])
        if not well_formed(body):
            return self._refuse(REFUSALS["invalid"])
        if self._always is not None:
            fault = self._always(body) or fault
            if fault is not None and fault not in FAULTS:
                raise ValueError(f"Faults.always gave {fault!r}, which is not one of {FAULTS}")
        if self._slots is not None and ledger.in_flight >= self._slots:
            return self._refuse(REFUSALS["busy"])
        if fault in REFUSALS:
            return self._refuse(REFUSALS[fault])
        if fault == "reset":
            ledger.outcomes["reset"] += 1
            return RESET
        if fault != "hang" and (refusal := self._unsupported(body)):
            return self._refuse(refusal)
        ledger.in_flight += 1
        ledger.peak = max(ledger.peak, ledger.in_flight)
        try:
            if fault == "hang":
                ledger.outcomes["hang"] += 1
                await forever()
            return await self._complete(body, fault, self._latency * factor * (SLOW if fault == "slow" else 1))
        finally:
            ledger.in_flight -= 1

    def _draw(self) -> tuple[Fault | None, float]:
        """The fault and the factor on the latency of the next request to arrive."""
        place = bisect_right(self._thresholds, self._fault_draws.random())
        factor = self._tail_draws.lognormvariate(0, self._tail) if self._tail else 1.0
        return (FAULTS[place] if place < len(FAULTS) else None), factor

    def _authorized(self, headers: Mapping[str, str]) -> bool:
        return self._bearer is None or any(
            name.lower() == "authorization" and value == self._bearer for name, value in headers.items()
        )

    def _unsupported(self, body: Body) -> Refusal | None:
        """Why the model cannot take the request, or None."""
        if (body.get("n") or 1) != 1 or body.get("stream") or body.get("tools"):
            return Refusal("invalid", 400, "n, stream and tools are not supported here.", code="unsupported_parameter")
        limit = limit_of(body)
        if limit is not None and (not isinstance(limit, int) or limit < 1):
            return Refusal("invalid", 400, f"Invalid 'max_tokens': {limit!r} is not a whole number above 0.")
        wanted = body.get("response_format")
        kind = wanted.get("type") if isinstance(wanted, dict) else None
        if wanted is not None and kind not in ("text", "json_object", "json_schema"):
            return Refusal("invalid", 400, f"Invalid value: {kind!r}.", param="response_format.type")
        if kind is not None and self._refused_formats.get(kind):
            message = f"Invalid parameter: 'response_format' of type '{kind}' is not supported with this model."
            return Refusal("invalid", 400, message, param="response_format")
        if self._context is not None and (tokens := prompt_tokens(body)) > self._context:
            message = f"Your messages have {tokens} tokens; this model's maximum context length is {self._context}."
            return Refusal("too_long", 400, message, code="context_length_exceeded", param="messages")
        return None

    def _refuse(self, refusal: Refusal) -> Answer:
        self.ledger.outcomes[refusal.outcome] += 1
        wait = self._retry_after() if refusal.status == 429 else None
        return refuse(refusal, **({} if wait is None else {"Retry-After": wait}))

    async def _complete(self, body: Body, fault: Fault | None, latency: float) -> Answer:
        """A completion: made, paid, awaited, and then damaged as the fault says."""
        text = self._reply(body)
        if not isinstance(text, str):
            text = await text
        text, finish = self._shape(text, fault, limit_of(body))
        read, written = prompt_tokens(body), count_tokens(text)
        ledger = self.ledger
        ledger.outcomes[fault or "ok"] += 1
        ledger.paid += 1
        ledger.prompt_tokens += read
        ledger.completion_tokens += written
        ledger.paid_by_body[body_key(body)] += 1
        whole = self._written(ledger.paid, text, finish, read, written)
        await asyncio.sleep(latency)
        if fault == "cut":
            return Answer(200, JSON_TYPE, whole, "cut")
        return Answer(200, JSON_TYPE, damage(whole, fault))

    def _written(self, number: int, text: str, finish: str, read: int, written: int) -> bytes:
        """A completion as JSON; written out, since this is most of what the endpoint itself costs."""
        usage = ""
        if self._usage:
            total = read + written
            usage = f',"usage":{{"prompt_tokens":{read},"completion_tokens":{written},"total_tokens":{total}}}'
        return as_bytes(
            f'{{"id":"chatcmpl-{number}","object":"chat.completion","created":0,"model":{self._model_json},'
            f'"choices":[{{"index":0,"message":{{"role":"assistant","content":{encode(text)},"refusal":null}},'
            f'"logprobs":null,"finish_reason":"{finish}"}}]{usage}}}'
        )

    def _shape(self, text: str, fault: Fault | None, limit: int | None) -> tuple[str, str]:
        """The text that is sent, and its finish reason."""
        if fault == "empty":
            return "", "stop"
        if fault == "garbled":
            text = self._garble
        elif fault == "fenced":
            text = f"Here is the JSON that you asked for:\n\n```json\n{text}\n```\n\nLet me know if you need more."
        whole = count_tokens(text)
        kept = whole if limit is None else min(whole, limit)
        if fault == "length":
            return clip(text, kept // 2), "length"
        return (text, "stop") if kept == whole else (clip(text, kept), "length")


def limit_of(body: Body) -> Any:
    """The most tokens that the body allows for an answer, None where it does not say."""
    newer = body.get("max_completion_tokens")
    return body.get("max_tokens") if newer is None else newer


def retry_after_of(source: RetryAfter | None) -> Callable[[], str | None]:
    """The next header's text, as a function."""
    if source is None:
        return lambda: None
    if isinstance(source, str):
        return lambda: source
    return source if callable(source) else partial(next, iter(source), None)


def refuse(refusal: Refusal, **headers: str) -> Answer:
    error = {"message": refusal.message, "type": refusal.type, "param": refusal.param, "code": refusal.code}
    return Answer(refusal.status, JSON_TYPE | headers, as_bytes(encode({"error": error})))


def damage(body: bytes, fault: Fault | None) -> bytes:
    """The body as the faults "torn" and "bad_utf8" leave it."""
    if fault == "torn":
        return body[: len(body) // 2]
    if fault == "bad_utf8":
        start, content, rest = body.partition(b'"content":"')
        return start + content + b"\xff\xc3\x28" + rest
    return body


async def forever() -> None:
    """Wait for what never comes; over HTTP the handler is cancelled when its connection is lost."""
    await asyncio.get_running_loop().create_future()


async def break_off(request: web.BaseRequest, answer: Answer) -> None:
    """End the connection, at once with a TCP reset, or cleanly after half of the body."""
    transport = request.transport
    if transport is not None and answer.ending == "reset":
        # Without time to linger, closing sends RST in place of FIN.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    elif transport is not None:
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        response.content_length = len(answer.body)
        await response.prepare(request)
        await response.write(answer.body[: len(answer.body) // 2])
        transport.close()
    await forever()


async def run(endpoint: MockEndpoint, port: int) -> None:
    """Serve until SIGTERM or SIGINT; the base URL is the first line printed, the ledger the last."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with endpoint.serve(port) as base_url:
        print(base_url, flush=True)
        await stopped.wait()
    print(json.dumps(endpoint.ledger.summary()), flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m askwell.mock_endpoint", description=run.__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds")
    parser.add_argument("--tail", type=float, default=0.0, help="sigma of a lognormal factor on the latency")
    parser.add_argument("--slots", type=int, help="requests served at once; more get 429")
    parser.add_argument("--storm", action="store_true", help="the faults of goal A7")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--words", type=int, default=60, help="length of the answer")
    parser.add_argument(
        "--json", nargs="?", const='{"answer": "yes", "confidence": 0.9}', metavar="TEXT", help="answer this object"
    )
    given = parser.parse_args(arguments)
    text = given.json if given.json is not None else " ".join(["word"] * given.words)
    faults = Faults.STORM if given.storm else Faults()
    endpoint = MockEndpoint(
        lambda body: text, latency=given.latency, tail=given.tail, slots=given.slots, faults=faults, seed=given.seed
    )
    asyncio.run(run(endpoint, given.port))


if __name__ == "__main__":
    main()
