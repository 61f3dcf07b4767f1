"""Answers on disk: SQLite in WAL mode, `synchronous=FULL`, one writing thread, commits shared by whatever waits.

Two tables. `answers` holds every response as it was received, under the key of its request: it is durable before anyone
reads it, and never paid for again. `calls` is the account: a row is claimed, durably, before a request is sent, and
settled when it is answered or has failed; a row that a crash left claimed counts at its full reservation. Several
processes may share one file.
"""

import asyncio
import contextlib
import queue
import random
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from askwell.errors import EndpointError
from askwell.recipes import Endpoint

SCHEMA = """
create table if not exists answers (key text primary key, body text not null) without rowid;
create table if not exists calls (
    id integer primary key, run text not null, model text not null, role text not null, key text not null,
    state text not null, bytes integer not null, tokens integer not null, cost real not null,
    prompt_tokens integer, completion_tokens integer
);
create index if not exists calls_by_run on calls (run, state);
create table if not exists abilities (endpoint text primary key, structured text not null);
"""
CALL = (
    "insert or replace into calls "
    "(id, run, model, role, key, bytes, tokens, cost, state, prompt_tokens, completion_tokens) values {rows}"
)
ANSWER = "insert or ignore into answers (key, body) values {rows}"
ABILITY = "insert or replace into abilities (endpoint, structured) values {rows}"
MOST = 512
"""Writes of one commit."""
VARIABLES = 999
"""Values of one statement that every SQLite takes."""
GATHER = 0.005
"""Seconds that a commit waits for company where the last one had any."""


class Claim(NamedTuple):
    """A call before it is sent: what it may use at most, tokens and cost in millionths of the prices' currency."""

    id: int
    run: str
    model: str
    role: str
    key: str
    bytes: int
    tokens: int
    cost: float


class Spent(NamedTuple):
    """What a run has used, calls that a crash left open at their reservation."""

    calls: int
    tokens: int
    cost: float


class Line(NamedTuple):
    """y = at_zero + slope * x."""

    at_zero: float
    slope: float

    def at(self, x: float) -> float:
        return max(0.0, self.at_zero + self.slope * x)


class Habit(NamedTuple):
    """What the calls of a role have been like: tokens over the bytes of the prompt."""

    calls: int
    prompt: Line
    completion: Line


class Filter:
    """Which keys may be in the store: never no for one that is, rarely yes for one that is not (a Bloom filter of
    two megabytes). A new call then needs no look into the file, which costs as much as all else that is done here."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._bits = bytearray(1 << 21)
        for key in keys:
            self.add(key)

    def add(self, key: str) -> None:
        """`key` is a hash in hexadecimal: two of its parts are two places among 2 ** 24 bits."""
        for place in (int(key[:6], 16), int(key[6:12], 16)):
            self._bits[place >> 3] |= 1 << (place & 7)

    def __contains__(self, key: str) -> bool:
        first, second = int(key[:6], 16), int(key[6:12], 16)
        return bool(self._bits[first >> 3] >> (first & 7) & self._bits[second >> 3] >> (second & 7) & 1)


class Answers:
    """The file, to read from; an empty one where there is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_file():
            self._reader = connect(path)
        else:
            self._reader = sqlite3.connect(":memory:", check_same_thread=False)
            self._reader.executescript(SCHEMA)

    def close(self) -> None:
        self._reader.close()

    def answer(self, key: str) -> str | None:
        """The stored response of a request."""
        row = self._reader.execute("select body from answers where key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def ability(self, endpoint: str) -> str | None:
        """How structured answers are asked of an endpoint, where that was found out before."""
        row = self._reader.execute("select structured from abilities where endpoint = ?", (endpoint,)).fetchone()
        return None if row is None else row[0]

    def spent(self, run: str) -> Spent:
        """What a run has used so far."""
        sums = "count(*), coalesce(sum(tokens), 0), coalesce(sum(cost), 0)"
        return Spent(*self._reader.execute(f"select {sums} from calls where run = ?", (run,)).fetchone())

    def habit(self, model: str, role: str) -> Habit | None:
        """What this role's answered calls of a model have been like; None without any."""
        sums = ", ".join(
            f"sum({term})"
            for term in ("1.0", "bytes", "bytes * bytes", "prompt_tokens", "bytes * prompt_tokens", "completion_tokens")
        )
        row = self._reader.execute(
            f"select {sums}, sum(bytes * completion_tokens) from calls "
            "where model = ? and role = ? and prompt_tokens is not null and completion_tokens is not null",
            (model, role),
        ).fetchone()
        count, x, xx, prompt, x_prompt, completion, x_completion = row
        if not count:
            return None
        return Habit(int(count), line(count, x, xx, prompt, x_prompt), line(count, x, xx, completion, x_completion))


def line(count: float, x: float, xx: float, y: float, xy: float) -> Line:
    """Least squares from sums; level where x never varied."""
    spread = xx - x * x / count
    slope = (xy - x * y / count) / spread if spread > 1e-6 * xx else 0.0
    return Line((y - slope * x) / count, slope)


class Store(Answers):
    """The file, to write to. Reads happen at once in the caller's thread; what is written is awaited until it is
    durable."""

    def __init__(self, path: Path) -> None:
        self.failed: EndpointError | None = None
        self._ids = random.SystemRandom().getrandbits(61)
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.path = path
        with self._explained():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = connect(path)
            self._writer.executescript(SCHEMA)
        super().__init__(path)
        self._filter = Filter(key for (key,) in self._reader.execute("select key from answers"))
        self._version, self._alone = self._data_version(), True
        self._thread = threading.Thread(target=self._work, name="answers", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what waits, then let the file go."""
        self._queue.put(None)
        self._thread.join()
        self._writer.close()
        super().close()

    def answer(self, key: str) -> str | None:
        """The stored response of a request."""
        return super().answer(key) if not self._alone or key in self._filter else None

    def _data_version(self) -> int:
        """A number that changes when another process has written."""
        return self._writer.execute("pragma data_version").fetchone()[0]

    def next_id(self) -> int:
        """A number for a claim, unlike those of other processes."""
        self._ids += 1
        return self._ids

    async def claim(self, claim: Claim) -> None:
        """Durable before the request is sent."""
        await self._write((CALL, (*claim, "sent", None, None)))

    async def settle(
        self, claim: Claim, state: str, tokens: int, cost: float, usage: tuple[int | None, int | None], raw: str | None
    ) -> None:
        """What became of a claim, with the response where there is one; durable before anyone sees it."""
        settled = claim._replace(tokens=tokens, cost=cost)
        statements: list[tuple[str, tuple[Any, ...]]] = [(CALL, (*settled, state, *usage))]
        if raw is not None:
            self._filter.add(claim.key)
            statements.append((ANSWER, (claim.key, raw)))
        await self._write(*statements)

    async def learn(self, endpoint: str, structured: str) -> None:
        """Remember how structured answers are asked of an endpoint."""
        await self._write((ABILITY, (endpoint, structured)))

    async def _write(self, *statements: tuple[str, tuple[Any, ...]]) -> None:
        if self.failed is not None:
            raise self.failed
        loop = asyncio.get_running_loop()
        written = loop.create_future()
        self._queue.put((statements, written, loop))
        await written

    def _work(self) -> None:
        """The writing thread: commit all that waits, then tell those who wait."""
        batch: list[Any] = []
        while (first := self._queue.get()) is not None:
            if len(batch) > 1:
                time.sleep(GATHER)  # many write: a commit for more of them costs each of them less
            batch, last = [first], False
            with contextlib.suppress(queue.Empty):
                while len(batch) < MOST and not last:
                    entry = self._queue.get_nowait()
                    last = entry is None
                    if entry is not None:
                        batch.append(entry)
            self._commit(batch)
            if last:
                return

    def _commit(self, batch: list[Any]) -> None:
        error = self.failed
        if error is None:
            try:
                with self._explained():
                    groups: dict[str, list[tuple[Any, ...]]] = {}
                    for statements, _, _ in batch:
                        for statement, values in statements:
                            groups.setdefault(statement, []).append(values)
                    self._writer.execute("begin immediate")
                    self._alone = self._alone and self._version == self._data_version()
                    for statement, rows in groups.items():
                        for call in many(statement, rows):
                            self._writer.execute(*call)
                    self._writer.execute("commit")
            except EndpointError as found:
                # What was not committed is told to nobody, and nothing is written any more.
                self.failed = error = found
        for loop in {id(loop): loop for _, _, loop in batch}.values():
            waiting = [written for _, written, other in batch if other is loop]
            with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits
                loop.call_soon_threadsafe(tell, waiting, error)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise EndpointError(
                f"{self.path}: answers cannot be stored: {error}; nothing more was sent; free space, make it writable "
                "or name another --endpoint.store, and repeat the command: it goes on where it was cut"
            ) from error


def store_of(endpoint: Endpoint, output: Path) -> Path:
    """Where a run's answers are kept: as the recipe says, else beside the run directory, for all runs there."""
    return endpoint.store or output.parent / "answers.sqlite"


def connect(path: Path) -> sqlite3.Connection:
    """A connection as every user of the file needs it."""
    connection = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = full")
    return connection


def many(statement: str, rows: list[tuple[Any, ...]]) -> Iterator[tuple[str, list[Any]]]:
    """Few statements for many rows, with their values: each runs without the interpreter's lock, where `executemany`
    would take and give it back for every row, against the thread that makes the calls."""
    row = f"({', '.join('?' * len(rows[0]))})"
    most = VARIABLES // len(rows[0])
    for first in range(0, len(rows), most):
        part = rows[first : first + most]
        yield statement.format(rows=", ".join([row] * len(part))), [value for values in part for value in values]


def tell(waiting: list["asyncio.Future[None]"], error: Exception | None) -> None:
    """Wake those whose statements are durable, or say why they are not."""
    for written in waiting:
        if written.done():
            continue
        if error is None:
            written.set_result(None)
        else:
            written.set_exception(error)
