"""A mock endpoint over HTTP, from a thread of its own, for code that is not asynchronous."""

import asyncio
import threading
from contextlib import contextmanager


@contextmanager
def served(mock):
    """The base URL of `mock` for as long as it is served."""
    loop, ready, url = asyncio.new_event_loop(), threading.Event(), []

    async def serve():
        async with mock.serve() as base_url:
            url.append(base_url)
            ready.set()
            await stopped

    stopped = loop.create_future()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    ready.wait(10)
    try:
        yield url[0]
    finally:
        loop.call_soon_threadsafe(stopped.set_result, None)
        thread.join()
        loop.close()
