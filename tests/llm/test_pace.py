import asyncio

import pytest

from askwell.errors import EndpointError
from askwell.llm.pace import Breaker, Pace, Timeouts, backoff


class Clock(asyncio.SelectorEventLoop):
    """A loop whose time jumps to the next thing that is due, so that an hour takes a moment."""

    def __init__(self):
        super().__init__()
        self.ahead = 0.0

    def time(self):
        return super().time() + self.ahead

    def _run_once(self):
        if not self._ready and self._scheduled:
            self.ahead += max(0.0, self._scheduled[0].when() - self.time())
        super()._run_once()


def on_a_clock(main):
    loop = Clock()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()


async def traffic(pace, seconds, latency, throttled=lambda pace: False):
    """Calls as fast as the limit allows, for so many seconds; returns how many were answered."""
    loop = asyncio.get_running_loop()
    end, answered = loop.time() + seconds, 0

    async def caller():
        nonlocal answered
        while loop.time() < end:
            await pace.acquire(retry=False)
            if throttled(pace):
                pace.heard(None, throttled=True)
                await asyncio.sleep(0.001)
            else:
                took = latency(pace)
                await asyncio.sleep(took)
                pace.heard(took)
                answered += 1
            pace.release(retry=False)

    await asyncio.gather(*(caller() for _ in range(pace.most + 16)))
    return answered


def test_the_limit_rises_to_what_the_recipe_allows():
    pace = Pace(256)
    on_a_clock(traffic(pace, 5, lambda pace: 0.2))
    assert pace.limit == 256 and pace.in_flight == 0


def test_the_limit_falls_where_the_endpoint_throttles():
    pace = Pace(256)
    on_a_clock(traffic(pace, 30, lambda pace: 0.2, throttled=lambda pace: pace.in_flight > 50))
    assert 24 <= pace.limit <= 80


def test_throttling_that_has_nothing_to_do_with_us_does_not_strangle_the_run():
    draws = iter(range(10**9))
    pace = Pace(64)
    on_a_clock(traffic(pace, 30, lambda pace: 0.05, throttled=lambda pace: next(draws) % 3 == 0))
    assert pace.limit >= 16


def test_a_latency_knee_holds_the_limit_back():
    pace = Pace(512)
    # 40 are served at once; the rest wait for them.
    on_a_clock(traffic(pace, 60, lambda pace: 0.1 * max(1.0, pace.in_flight / 40)))
    assert 32 <= pace.limit <= 160


def test_retries_let_first_attempts_pass():
    async def main():
        pace = Pace(10)
        for _ in range(10):
            await pace.acquire(retry=False)
        order = []

        async def wait(name, retry):
            await pace.acquire(retry=retry)
            order.append(name)

        waiting = [asyncio.create_task(wait(f"again {i}", True)) for i in range(5)]
        waiting += [asyncio.create_task(wait(f"first {i}", False)) for i in range(5)]
        await asyncio.sleep(0)
        for _ in range(10):
            pace.release(retry=False)
        await asyncio.gather(*waiting)
        return order

    order = on_a_clock(main())
    assert order.index("again 2") > order.index("first 4")
    assert len(order) == 10


def test_a_waiter_that_is_cancelled_takes_no_slot():
    async def main():
        pace = Pace(1)
        await pace.acquire(retry=False)
        waiting = asyncio.create_task(pace.acquire(retry=False))
        await asyncio.sleep(0)
        pace.release(retry=False)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await asyncio.wait_for(pace.acquire(retry=False), 1)
        return pace.in_flight

    assert on_a_clock(main()) == 1


def test_timeouts_follow_what_was_seen_by_length():
    timeouts = Timeouts(600)
    for _ in range(49):
        timeouts.saw(100, 1.0)
    assert timeouts.limits() == {}
    timeouts.saw(100, 20.0)
    for _ in range(60):
        timeouts.saw(5000, 0.1)
    assert timeouts.limits() == {(100).bit_length(): 80.0, (5000).bit_length(): 30.0}


def test_an_endpoint_that_is_down_is_tried_by_one_call_at_a_time_and_given_up():
    tried = []

    async def main():
        breaker = Breaker(600, after=5)
        loop = asyncio.get_running_loop()

        async def caller():
            while True:
                await breaker.ready()
                tried.append(loop.time())
                await asyncio.sleep(0.1)
                breaker.bad("status 500")

        await asyncio.gather(*(caller() for _ in range(100)))

    with pytest.raises(EndpointError, match=r"no answer for 6\d\d s.*patience 600.*status 500"):
        on_a_clock(main())
    assert len(tried) < 100 + 30


def test_traffic_goes_on_when_the_endpoint_is_back():
    async def main():
        breaker = Breaker(600, after=5)
        loop = asyncio.get_running_loop()
        back, done = loop.time() + 20, []

        async def caller():
            while True:
                await breaker.ready()
                await asyncio.sleep(0.1)
                if loop.time() > back:
                    breaker.good()
                    done.append(loop.time() - back)
                    return
                breaker.bad("connection refused")

        await asyncio.gather(*(caller() for _ in range(50)))
        return done

    done = on_a_clock(main())
    assert len(done) == 50 and max(done) < 40


def test_backoff_grows_and_obeys():
    import random

    draw = random.Random(0)
    waits = [backoff(attempt, 0.0, draw=draw) for attempt in range(1, 12)]
    assert 0.25 <= waits[0] <= 0.5 and max(waits) <= 16.0
    assert backoff(1, 7.0, draw=draw) == 7.0
