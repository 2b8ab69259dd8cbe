"""Two Redis clients, because one cannot serve both uses.

`blocking` waits inside Redis, so its socket has no timeout and nothing is retried: redis-py 8 would give up a blocking
read after 5 s and start it again 10 times. `command` answers within seconds or fails; it never repeats a command by
itself, because a repeated XADD is a duplicate. Only `retry` repeats, and only what changes nothing the second time.

The number of commands under way at a time is bounded; further ones wait for their turn, at most `command_timeout`.
Blocking reads have connections of their own, so they never hold up a command.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from oar_wire.errors import RedisUnavailable, WritesRefused

T = TypeVar("T")
Word = str | bytes | int | float

RETRY_DELAYS = (0.02, 0.1, 0.3)  # seconds
UNREACHABLE = (RedisConnectionError, RedisTimeoutError, OSError)
REFUSED_RETRY_SECONDS = 10.0
UNBOUNDED = 1 << 16  # redis-py's pool raises when it is full; what bounds it here waits
MOST_COMMANDS = 32  # under way at a time


class TooManyCommands(RedisConnectionError):
    """All connections were busy for as long as a command may wait."""


class _Fault(NamedTuple):
    reason: str
    kind: type[Exception]
    words: str = ""  # of the error: redis-py has classes for few, and Redis 6 hides even those in errors of scripts
    takes_no_writes: bool = False


# What is told of an error, the most special first. The errors of replies are those of a Redis that can be asked again.
FAULTS = (
    _Fault("Redis does not accept the password", AuthenticationError),
    _Fault("Redis reads its data", BusyLoadingError),
    _Fault("no answer in time", RedisTimeoutError),
    _Fault("no connection to Redis", RedisConnectionError),
    _Fault("no answer in time", TimeoutError),
    _Fault("no connection to Redis", OSError),
    _Fault("its memory is full", OutOfMemoryError, takes_no_writes=True),
    _Fault("its memory is full", ResponseError, "OOM command not allowed", takes_no_writes=True),
    _Fault("it cannot save to its disk", ResponseError, "MISCONF", takes_no_writes=True),
    _Fault("it is a replica", ReadOnlyError, takes_no_writes=True),
    _Fault("it is a replica", ResponseError, "READONLY", takes_no_writes=True),
    _Fault("it has lost its replicas", ResponseError, "NOREPLICAS", takes_no_writes=True),
    _Fault("Redis does not permit it", NoPermissionError),
)


class RedisConnection:
    """Replies are Redis' own, undecoded: bytes, integers, None and lists of them."""

    def __init__(self, url: str, command_timeout: float = 5.0, most_commands: int = MOST_COMMANDS) -> None:
        self._command_timeout = command_timeout
        # Not redis-py's BlockingConnectionPool: a waiter that is cancelled takes the wake-up of the next one with it.
        self._turns = asyncio.Semaphore(most_commands)
        self._blocking = _client(url, None, command_timeout)
        self._command = _client(url, command_timeout, command_timeout)
        self._has_loaded = False  # scripts that are called together

    async def once(self, *words: Word) -> Any:
        """One command, never repeated. Raises redis-py's errors."""
        async with self._turn():
            return await _execute(self._command, words)

    async def again(self, *words: Word) -> Any:
        """One command that changes nothing the second time. Raises RedisUnavailable."""
        return await self.retry(lambda: self.once(*words))

    async def again_many(self, commands: Sequence[Sequence[Word]]) -> list[Any]:
        """Commands in one round trip that change nothing the second time. Raises as `again`, or an error of one."""

        async def checked() -> list[Any]:
            return _checked(await self.pipeline(commands))

        return await self.retry(checked)

    async def block(self, seconds: float, *words: Word) -> Any:
        """One command that waits inside Redis for `seconds`, never repeated. Raises redis-py's errors, TimeoutError."""
        async with asyncio.timeout(seconds + self._command_timeout):
            return await _execute(self._blocking, words)

    async def pipeline(self, commands: Sequence[Sequence[Word]]) -> list[Any]:
        """Commands in one round trip; an error of one of them is its reply. Raises when Redis cannot be reached."""
        async with self._turn(), self._command.pipeline(transaction=False) as pipeline:
            for words in commands:
                pipeline.execute_command(*words)  # pyright: ignore[reportUnknownMemberType, reportUnusedCoroutine]
            return await pipeline.execute(raise_on_error=False)

    async def retry(self, call: Callable[[], Awaitable[T]]) -> T:
        """Runs an idempotent call, again if Redis cannot be reached: not after `command_timeout`, as who asks waits.

        Raises RedisUnavailable when it stays away, WritesRefused when it is full, cannot save, or is a replica.
        """
        deadline = time.monotonic() + self._command_timeout
        for delay in (*RETRY_DELAYS, None):
            try:
                return await call()
            except ResponseError as error:
                if is_refusal(error):
                    raise unavailable(error) from error
                raise
            except UNREACHABLE as error:
                if delay is None or time.monotonic() >= deadline:
                    raise unavailable(error) from error
                await asyncio.sleep(delay)
        raise AssertionError("the loop above returns or raises")

    async def evaluate(self, calls: Sequence[Sequence[Word]], texts: Sequence[str]) -> list[Any]:
        """Scripts in one round trip, by digest, that change nothing the second time. Raises as `again`, or the first
        error that a script raised. `texts` are loaded where Redis does not know them."""
        return await self.retry(lambda: self.evaluate_once(calls, texts))

    async def evaluate_once(self, calls: Sequence[Sequence[Word]], texts: Sequence[str]) -> list[Any]:
        """Evaluates once, never repeated. Raises redis-py's errors.

        A script that Redis does not know is skipped, and those behind it would run without it. So what is called
        together is loaded before its first call.
        """
        are_unknown = not self._has_loaded and len({words[1] for words in calls}) > 1
        replies = [] if are_unknown else await self.pipeline(calls)
        if are_unknown or any(isinstance(reply, NoScriptError) for reply in replies):
            _checked(await self.pipeline([("SCRIPT", "LOAD", text) for text in texts]))
            self._has_loaded = True
            replies = await self.pipeline(calls)
        return _checked(replies)

    @asynccontextmanager
    async def _turn(self) -> AsyncGenerator[None]:
        """One of the connections for commands. Raises TooManyCommands."""
        try:
            async with asyncio.timeout(self._command_timeout):
                await self._turns.acquire()
        except TimeoutError as error:
            raise TooManyCommands(f"no connection was free for {self._command_timeout:g} s") from error
        try:
            yield
        finally:
            self._turns.release()

    async def is_alive(self) -> bool:
        try:
            await self.once("PING")
        except (RedisError, OSError):
            return False
        return True

    async def close(self) -> None:
        await self._blocking.aclose()
        await self._command.aclose()


def is_refusal(error: ResponseError) -> bool:
    """Tells whether Redis refuses now what it may take later: the command is not at fault."""
    return _fault(error) is not None


def unavailable(error: Exception) -> RedisUnavailable:
    """WritesRefused where Redis answers and takes no writes."""
    if isinstance(error, TooManyCommands):
        return RedisUnavailable(f"the job queue has too much to do: {error}", retry_after=2)
    fault = _fault(error)
    if fault is not None and fault.takes_no_writes:
        message = f"the job queue takes nothing new: {fault.reason}"
        return WritesRefused(message, retry_after=REFUSED_RETRY_SECONDS)
    reason = "no answer" if fault is None else fault.reason
    return RedisUnavailable(f"the job queue cannot be reached: {reason}", retry_after=2)


def _fault(error: Exception) -> _Fault | None:
    known = (fault for fault in FAULTS if isinstance(error, fault.kind) and fault.words in str(error))
    return next(known, None)


def _checked(replies: list[Any]) -> list[Any]:
    """Raises the first error among them."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


async def _execute(client: Redis, words: Sequence[Word]) -> Any:
    return await cast(Awaitable[Any], client.execute_command(*words))  # pyright: ignore[reportUnknownMemberType]


def _client(url: str, socket_timeout: float | None, connect_timeout: float) -> Redis:
    client: Redis = Redis.from_url(  # pyright: ignore[reportUnknownMemberType]
        url,
        protocol=2,
        decode_responses=False,
        socket_timeout=socket_timeout,
        socket_connect_timeout=connect_timeout,
        retry=Retry(NoBackoff(), 0),
        max_connections=UNBOUNDED,
        health_check_interval=0,
    )
    # redis-py turns replies into shapes that differ between its versions; ours are read as they come.
    client.response_callbacks.clear()
    return client
