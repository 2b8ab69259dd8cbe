"""The asynchronous client behind the face of the other one, so that each test is written once and run against both.

Its event loop runs in a thread of its own all the time, as a program's does.
"""

import asyncio
import inspect
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator
from typing import Any, Self

from oar_client import AsyncClient, AsyncEventStream, AsyncJob
from tests.waiting import HANG_SECONDS


class Loop:
    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any], seconds: float = 3 * HANG_SECONDS) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(seconds)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


class Blocking:
    """Each coroutine method becomes an ordinary one; jobs, streams and generators that come back are wrapped too."""

    def __init__(self, loop: Loop, target: Any) -> None:
        self._loop = loop
        self._target = target

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not inspect.ismethod(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            result = found(*args, **kwargs)
            return self._wrap(self._loop.run(result) if inspect.isawaitable(result) else result)

        return call

    def _wrap(self, value: Any) -> Any:
        wrapped = isinstance(value, AsyncClient | AsyncEventStream | AsyncJob | AsyncGenerator)
        return Blocking(self._loop, value) if wrapped else value

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return self._loop.run(self._step())
        except StopAsyncIteration:
            raise StopIteration from None

    async def _step(self) -> Any:
        return await anext(self._target)

    def __enter__(self) -> Self:
        self._loop.run(self._target.__aenter__())
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.run(self._target.__aexit__(*error))
