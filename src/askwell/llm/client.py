"""One endpoint, as everything else in askwell speaks to it: `complete` a request, and it is answered or has failed.

The order of a call: claim (durable), send, receive, commit (durable), show. Equal requests in flight share one call;
an answer that is stored already is not asked for again. An attempt that failed is repeated where that can help, at most
`ALIKE` times for one class of failure, `ATTEMPTS` times in all; being throttled is waited out and counts for neither.
"""

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from askwell.errors import EndpointError, RecipeError
from askwell.llm import chat
from askwell.llm.budget import Budget, OverBudget
from askwell.llm.chat import Answer, Failure, Request
from askwell.llm.pace import Breaker, Pace, Timeouts, backoff
from askwell.llm.store import Claim, Store
from askwell.llm.transport import Http, Transport, Unreachable
from askwell.recipes import CLINIC, LOCAL, Endpoint

ALIKE = 4
"""Failures of one class after which a call is given up."""
ATTEMPTS = 6
"""Attempts at a call, those that were throttled aside."""
THROTTLED = {"throttled", "unavailable"}
STRUCTURED = ("json_schema", "json_object", "text")


class Failed(Exception):
    """A request that ends without a usable answer: unscored, with the class of the failure and what was said."""

    def __init__(self, kind: str, detail: str = "", *, text: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind, self.detail, self.text = kind, detail, text


class Client:
    """Calls to one endpoint. `run` names what its budget is counted for; one Client serves one event loop."""

    def __init__(
        self,
        endpoint: Endpoint,
        store: Store,
        *,
        run: str,
        transport: Transport | None = None,
        floor: float = 30.0,
        pause: float = 0.5,
    ) -> None:
        self.endpoint, self.store, self.run = endpoint, store, run
        key = key_in(endpoint, os.environ) if transport is None else None
        self._secret = key
        self.transport = transport or Http(endpoint, key)
        self.budget = Budget(endpoint, store.spent(run))
        self.pace = Pace(endpoint.concurrency)
        self.timeouts = Timeouts(endpoint.timeout, floor=floor)
        self.breaker = Breaker(endpoint.patience)
        self.ledger: Counter[str] = Counter()
        """Answers by kind, `stored` answers, and failed attempts as `failed: class`."""
        self.started = time.monotonic()
        self.unbilled = 0.0
        """Cost, in millionths, of attempts whose bill is not known: counted at what they may have cost at most."""
        self._settings = lru_cache(maxsize=64)(partial(chat.settings, endpoint))
        self._pause = pause
        self._draw = random.Random(0)
        self._flying: dict[str, asyncio.Future[Answer]] = {}
        self._attempts: dict[asyncio.Task[Any], tuple[float, int]] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._watch: asyncio.Task[None] | None = None
        self._fatal: EndpointError | None = None
        self._negotiation = asyncio.Lock()
        self._structured = endpoint.structured if endpoint.structured != "auto" else store.ability(self.name)

    @property
    def name(self) -> str:
        """The endpoint and its model."""
        return f"{self.endpoint.base_url.rstrip('/')} {self.endpoint.model}"

    async def __aenter__(self) -> "Client":
        self._watch = asyncio.create_task(self._watching())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watch is not None:
            self._watch.cancel()
        await self.transport.close()

    async def complete(self, request: Request) -> Answer:
        """The endpoint's answer, from the store where it is there. Raises Failed, EndpointError at the run's end."""
        if request.kind is None or self._structured:
            return await self._complete(request, self._structured or "text")
        # How structured answers are asked for is found out by one call, while the others wait.
        async with self._negotiation:
            for mode in STRUCTURED:
                if self._structured:
                    break
                try:
                    answer = await self._complete(request, mode)
                except Failed as failed:
                    if failed.kind != "refused" or mode == STRUCTURED[-1]:
                        raise
                else:
                    await self.store.learn(self.name, mode)
                    self._structured = mode
                    return answer
        return await self._complete(request, self._structured or "text")

    async def _complete(self, request: Request, structured: str) -> Answer:
        body = chat.body_of(self._settings(request.kind, structured), request)
        key = chat.key_of(self.endpoint.base_url, body, request.sample)
        if (raw := self.store.answer(key)) is not None:
            self.ledger["stored"] += 1
            return chat.answer_of(raw)
        if self._fatal is not None:
            raise self._fatal
        while (other := self._flying.get(key)) is not None:
            await asyncio.wait([other])
            if not other.cancelled():
                return other.result()
        flying = self._flying[key] = asyncio.get_running_loop().create_future()
        try:
            answer = await self._call(key, body, request)
        except BaseException as error:
            # Whoever else waits fails alike; if only we were cancelled, one of them makes the call.
            if isinstance(error, asyncio.CancelledError):
                flying.cancel()
            else:
                flying.set_exception(error)
                flying.exception()  # seen, should nobody else wait
            if isinstance(error, EndpointError):
                self._fatal = self._fatal or error
            raise
        finally:
            del self._flying[key]
        flying.set_result(answer)
        return answer

    async def _call(self, key: str, body: bytes, request: Request) -> Answer:
        """Attempt a call until it is answered or has failed."""
        failures: Counter[str] = Counter()
        attempt = 0
        while True:
            attempt += 1
            found = await self._attempt(key, body, request, retry=attempt > 1)
            if isinstance(found, Answer):
                return found
            self.ledger[f"failed: {found.kind}"] += 1
            detail = self.scrubbed(found.detail)
            if found.fatal:
                self._fatal = EndpointError(f"{self.name}: {detail}; {FIXES[found.kind]}")
                raise self._fatal
            if not found.retry:
                raise Failed(found.kind, detail)
            self.breaker.bad(detail)
            if found.kind not in THROTTLED:
                failures[found.kind] += 1
                if found.kind == "unreachable" and failures[found.kind] >= ALIKE and not self.breaker.answered:
                    raise EndpointError(f"{self.name}: {detail}; start the endpoint, or mend --endpoint.base_url")
                if failures[found.kind] >= ALIKE or failures.total() >= ATTEMPTS:
                    raise Failed(found.kind, detail)
            await asyncio.sleep(backoff(attempt, found.wait, base=self._pause, draw=self._draw))

    async def _attempt(self, key: str, body: bytes, request: Request, *, retry: bool) -> Answer | Failure:
        """Reserve, claim, send, settle: one attempt."""
        size = chat.size_of(body, request)
        most = self.endpoint.max_tokens
        tokens, cost = size + most, self.budget.cost(size, most)
        if self._fatal is not None:
            raise self._fatal
        try:
            await self.budget.reserve(tokens, cost)
        except OverBudget:
            raise Failed("over_budget") from None
        used = (0, 0.0)
        claimed = False
        try:
            await self.breaker.ready()
            claim = Claim(self.store.next_id(), self.run, self.endpoint.model, request.role, key, size, tokens, cost)
            await self.store.claim(claim)
            # From here on the call counts at what it may cost at most, until its bill is known.
            claimed, used = True, (tokens, cost)
            await self.pace.acquire(retry=retry)
            try:
                found, raw, latency = await self._exchange(body)
            finally:
                self.pace.release(retry=retry)
            used, usage = self._bill(found, tokens, cost)
            state = "answered" if isinstance(found, Answer) else found.kind
            await self.store.settle(claim, state, *used, usage, raw)
            self._heard(found, latency)
            return found
        finally:
            self.budget.settle(tokens, cost, *used, call=int(claimed))

    async def _exchange(self, body: bytes) -> tuple[Answer | Failure, str | None, float]:
        """Send and receive: what it means, the raw response where it is an answer, and the seconds it took."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        task = asyncio.current_task()
        assert task is not None
        self._attempts[task] = (began, self.endpoint.max_tokens)
        try:
            response = await self.transport.send(body)
        except asyncio.CancelledError:
            if task not in self._late:
                raise
            self._late.discard(task)
            if uncancel := getattr(task, "uncancel", None):  # Python 3.11 counts cancellations
                uncancel()
            return Failure("timeout", f"no answer in {loop.time() - began:.0f} s", paid=True), None, 0.0
        except Unreachable as error:
            return Failure("unreachable", str(error)), None, 0.0
        except (ConnectionError, OSError) as error:
            return Failure("reset", str(error) or type(error).__name__, paid=True), None, 0.0
        finally:
            self._attempts.pop(task, None)
        found = chat.read(*response)
        raw = response.body.decode("utf-8") if isinstance(found, Answer) else None
        return found, raw, loop.time() - began

    def _bill(
        self, found: Answer | Failure, tokens: int, cost: float
    ) -> tuple[tuple[int, float], tuple[int | None, int | None]]:
        """Tokens and cost that a response is counted at, and its own usage; at the most where it gives none."""
        if isinstance(found, Failure):
            self.unbilled += cost if found.paid else 0.0
            return ((tokens, cost) if found.paid else (0, 0.0)), (None, None)
        prompt, completion = found.prompt_tokens, found.completion_tokens
        if prompt is None or completion is None:
            self.unbilled += cost
            return (tokens, cost), (prompt, completion)
        return (prompt + completion, self.budget.cost(prompt, completion)), (prompt, completion)

    def _heard(self, found: Answer | Failure, latency: float) -> None:
        if isinstance(found, Answer):
            self.ledger[found.kind] += 1
            self.timeouts.saw(self.endpoint.max_tokens, latency)
            self.pace.heard(latency)
            self.breaker.good()
        elif found.kind in THROTTLED:
            self.pace.heard(None, throttled=True)
        elif not found.retry:
            self.breaker.good()

    async def _watching(self) -> None:
        """End attempts that take too long; the limit follows what the endpoint has been seen to take."""
        while True:
            await asyncio.sleep(min(1.0, self.timeouts.floor / 4))
            limits = self.timeouts.limits()
            now = asyncio.get_running_loop().time()
            for attempt, (began, length) in list(self._attempts.items()):
                if now - began > limits.get(length.bit_length(), self.timeouts.longest):
                    self._late.add(attempt)
                    attempt.cancel()

    def scrubbed(self, text: str) -> str:
        """`text` without the key, should an endpoint have echoed it."""
        return text.replace(self._secret, "***") if self._secret else text

    def account(self) -> dict[str, Any]:
        """What the calls came to: for the manifest and the last line of a stage."""
        calls, tokens, cost = self.budget.spent
        return {
            "answers": dict(sorted(self.ledger.items())),
            "calls": int(calls),
            "tokens": int(tokens),
            "cost": round(cost / 1e6, 6),
            "of this at most, where the endpoint gave no bill": round(self.unbilled / 1e6, 6),
        }


FIXES = {
    "unauthorized": "name the environment variable that holds a valid key with --endpoint.key_variable",
    "not_found": "mend --endpoint.base_url (it ends in /v1 on most servers) or --endpoint.model",
    "quota": "the account is used up; pay or change it, and repeat the command: it goes on where it was cut",
}


def key_in(endpoint: Endpoint, environment: Mapping[str, str]) -> str | None:
    """The key that the recipe names. Raises RecipeError where the variable is empty."""
    if not endpoint.key_variable:
        return None
    if not (key := environment.get(endpoint.key_variable, "").strip()):
        raise RecipeError(
            f"endpoint.key_variable: the environment has no {endpoint.key_variable}; set it to the key of "
            f"{endpoint.base_url}, or name another variable (none is sent for `--endpoint.key_variable ''`)"
        )
    return key


def local(base_url: str) -> bool:
    """Whether an endpoint is on this machine."""
    host = urlsplit(base_url).hostname or ""
    return base_url in (CLINIC, LOCAL) or host == "localhost" or host == "::1" or host.startswith("127.")


def permit(endpoint: Endpoint, *, redacted: bool, what: Path) -> None:
    """Refuse to send text that was not redacted to another machine unless the recipe names it. Raises RecipeError."""
    host = urlsplit(endpoint.base_url).hostname or ""
    if redacted or local(endpoint.base_url) or endpoint.consent == host:
        return
    raise RecipeError(
        f"endpoint.base_url {endpoint.base_url!r} is not on this machine and {what} was not redacted; ingest it with "
        f"`--redact true`, or say that its text may go there: `--endpoint.consent {host}`"
    )
