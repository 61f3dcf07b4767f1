"""A checkpoint in this process as an OpenAI-compatible endpoint: requests in, chat completions out, without a socket.

Requests that wait are taken up together and drawn as a batch, in a thread of its own, so that the event loop stays
free. They are answered as a server would: with 400 what cannot be taken (a `response_format`, which plain sampling
cannot enforce; a prompt that leaves no room for its answer, of which nothing is ever cut), with 500 what went wrong.

A reply is a function of the bytes of its request, which are its seed. Which others share its batch changes the last
digits of the model's odds, and so a choice that hangs on them, but nothing else.
"""

import asyncio
import hashlib
import json
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from pydantic import BaseModel, Field

from askwell import rendering, weights
from askwell.errors import DataError, RecipeError
from askwell.generation import LocalPolicy, Said
from askwell.llm.transport import Response, Unreachable
from askwell.records import Message

MOST = 32
"""Requests drawn together at most."""
GATHER = 0.02
"""Seconds for which a batch that is not full waits for more."""
HELLO = [Message(role="user", content="hello")]


class Body(BaseModel):
    """What is read of a request's body."""

    model: str
    messages: list[Message] = Field(min_length=1)
    max_tokens: int = Field(ge=1)
    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    response_format: dict[str, Any] = {"type": "text"}


class Drawing(NamedTuple):
    """How a reply is drawn; those of one batch are drawn alike."""

    temperature: float
    top_p: float
    max_new_tokens: int


class Call(NamedTuple):
    """A request that waits, and where its answer goes."""

    body: bytes
    answer: Future[Response]


class Prompt(NamedTuple):
    """A request that was read."""

    call: Call
    model: str
    ids: list[int]
    drawing: Drawing


class Refused(Exception):
    """What no attempt at a request can mend; `code` as OpenAI calls it."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class Closed(Exception):
    """The endpoint was closed while it was at work."""


def check(model: str) -> None:
    """Refuse a model that cannot answer, as far as that shows without its weights. Raises RecipeError."""
    with named(model):
        rendering.render(weights.load_tokenizer(model), HELLO, "hello", prompt="")


def load(model: str) -> "LocalEndpoint":
    """A model by path or name, after a first word: one that cannot speak is no failure of every call. Raises
    RecipeError."""
    with named(model):
        policy = LocalPolicy.load(model)
        policy.replies([HELLO], temperature=0, top_p=1, max_new_tokens=1, seed=0)
    return LocalEndpoint(policy)


@contextmanager
def named(model: str) -> Iterator[None]:
    """Inside, what is wrong with a model is said of the field that names it."""
    try:
        yield
    except DataError as error:
        raise RecipeError(
            f"endpoint.model {model!r} cannot answer in this process: name a checkpoint directory, a run directory of "
            f"`askwell train`, or an instruction-tuned model of Hugging Face; {error}"
        ) from error


class LocalEndpoint:
    """A Transport to a policy and the thread that draws from it. One event loop sends."""

    def __init__(self, policy: LocalPolicy) -> None:
        self._policy = policy
        self._waiting: deque[Call] = deque()
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="local endpoint", daemon=True)
        self._thread.start()

    async def send(self, body: bytes) -> Response:
        call = Call(body, Future())
        with self._changed:
            if self._closed:
                raise Unreachable("the endpoint is closed")
            self._waiting.append(call)
            self._changed.notify()
        return await asyncio.wrap_future(call.answer)

    async def close(self) -> None:
        """End the thread, between two tokens if it is at work; whoever still waits gets Unreachable."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        hook = self._policy.model.register_forward_pre_hook(self._go_on)
        calls: list[Call] = []
        try:
            with suppress(Closed):
                while calls := self._taken():
                    self._answer(calls)
        finally:
            hook.remove()
            with self._changed:
                self._closed = True
            for call in (*calls, *live(self._waiting)):
                if not call.answer.done():
                    call.answer.set_exception(Unreachable("the endpoint was closed"))

    def _go_on(self, *_: Any) -> None:
        """Before each forward pass: whether there is anyone to draw for."""
        if self._closed:
            raise Closed

    def _taken(self) -> list[Call]:
        """The requests that wait, MOST at most, once there are any; none when it is closed."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                self._changed.wait_for(lambda: len(self._waiting) >= MOST or self._closed, GATHER)
                if self._closed:
                    return []
                calls = [self._waiting.popleft() for _ in range(min(MOST, len(self._waiting)))]
            if calls := live(calls):
                return calls

    def _answer(self, calls: list[Call]) -> None:
        """Answer requests, those that are drawn alike together."""
        alike: dict[Drawing, list[Prompt]] = {}
        for call in calls:
            try:
                prompt = self._read(call)
            except Exception as error:
                # Reading is a pure function of the request: it would fail again.
                call.answer.set_result(failure(400, error))
            else:
                alike.setdefault(prompt.drawing, []).append(prompt)
        for prompts in alike.values():
            self._draw(prompts)

    def _read(self, call: Call) -> Prompt:
        """A request as token ids. Raises Refused, DataError."""
        try:
            body = Body.model_validate(json.loads(call.body))
        except ValueError:
            raise Refused("the body is no request for a chat completion", "invalid_body") from None
        if (kind := body.response_format.get("type")) != "text":
            raise Refused(f"response_format {kind!r} is not supported: it cannot be enforced", "unsupported_parameter")
        policy = self._policy
        ids, _ = rendering.render(policy.tokenizer, body.messages, None, prompt=policy.prompt)
        if len(ids) + body.max_tokens > policy.room:
            raise Refused(
                f"{len(ids)} tokens of messages and max_tokens {body.max_tokens} exceed the model's context length of "
                f"{policy.room} tokens",
                "context_length_exceeded",
            )
        return Prompt(call, body.model, ids, Drawing(body.temperature, body.top_p, body.max_tokens))

    def _draw(self, prompts: list[Prompt]) -> None:
        """Draw a reply to each of some prompts that are drawn alike, and answer them."""
        try:
            said = self._policy.said(
                [prompt.ids for prompt in prompts],
                seed=[seed_of(prompt.call.body) for prompt in prompts],
                **prompts[0].drawing._asdict(),
            )
        except Closed:
            raise
        except Exception as error:
            failed = failure(400 if isinstance(error, DataError) else 500, error)
        else:
            for prompt, reply in zip(prompts, said, strict=True):
                prompt.call.answer.set_result(completion(prompt, reply))
            return
        # The error is gone here, and with it the memory that its frames held. No request fails for another's sake, and
        # what was too much for all may do for half.
        if len(prompts) == 1:
            prompts[0].call.answer.set_result(failed)
            return
        middle = len(prompts) // 2
        self._draw(prompts[:middle])
        self._draw(prompts[middle:])


def live(calls: "deque[Call] | list[Call]") -> list[Call]:
    """The calls that somebody still waits for; from here on only an answer ends them."""
    return [call for call in calls if call.answer.set_running_or_notify_cancel()]


def seed_of(body: bytes) -> int:
    """The seed of a request's reply: 56 bits of its hash."""
    return int.from_bytes(hashlib.sha256(body).digest()[:7], "big")


def completion(prompt: Prompt, said: Said) -> Response:
    """A reply as a chat completion."""
    read = len(prompt.ids)
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": said.text},
        "finish_reason": "stop" if said.ended else "length",
    }
    usage = {"prompt_tokens": read, "completion_tokens": said.tokens, "total_tokens": read + said.tokens}
    head = {"id": f"chatcmpl-{seed_of(prompt.call.body):x}", "object": "chat.completion", "created": 0}
    return response(200, {**head, "model": prompt.model, "choices": [choice], "usage": usage})


def failure(status: int, error: Exception) -> Response:
    """What kept a request from its answer: 400 where it would do so again, 500 where it may not."""
    message = str(error) if isinstance(error, (Refused, DataError)) else f"{type(error).__name__}: {error}"
    kind = "invalid_request_error" if status == 400 else "server_error"
    return response(status, {"error": {"message": message, "type": kind, "code": getattr(error, "code", None)}})


def response(status: int, body: dict[str, Any]) -> Response:
    """A body as JSON."""
    return Response(status, {"Content-Type": "application/json"}, json.dumps(body).encode())
