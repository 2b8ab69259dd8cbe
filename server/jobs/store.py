"""Finished pictures, and what workers publish about themselves and their models."""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from server.jobs import keys
from server.jobs.connection import RedisConnection
from server.schemas.model import ModelInfo, WorkerInfo

logger = logging.getLogger(__name__)

T = TypeVar("T")

FORGET_SECONDS = 3600.0  # after which the name of a silent worker is dropped


class ImageStore:
    """PNGs are written by `finish`, in the same script as the terminal event: both are there, or neither."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    async def read(self, job_id: str, index: int) -> bytes | None:
        return await self._connection.again("GET", keys.image(job_id, index))

    async def read_source(self, job_id: str) -> bytes | None:
        """The PNG that an edit starts from."""
        return await self._connection.again("GET", keys.source(job_id))


class Registry:
    """Models and live workers, as they are now."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    async def publish_models(self, models: Sequence[ModelInfo], text_tokenizers: Mapping[str, str]) -> None:
        """The first one becomes the default. Kept for ever, so that a restarted API answers at once."""
        for info in models:
            if info.name in text_tokenizers:
                text = text_tokenizers[info.name]
                await self._connection.again("SET", keys.text_tokenizer(info.name), text)
            await self._connection.again("SET", keys.model(info.name), info.model_dump_json())
            await self._connection.again("SADD", keys.MODELS, info.name)
        if models:
            await self._connection.again("SET", keys.DEFAULT_MODEL, models[0].name)

    async def default_model(self) -> str | None:
        name: bytes | None = await self._connection.again("GET", keys.DEFAULT_MODEL)
        return name.decode() if name else None

    async def model(self, name: str) -> ModelInfo | None:
        text: bytes | None = await self._connection.again("GET", keys.model(name))
        return ModelInfo.model_validate_json(text) if text else None

    async def text_tokenizer(self, model_name: str) -> str | None:
        text: bytes | None = await self._connection.again("GET", keys.text_tokenizer(model_name))
        return text.decode() if text else None

    async def models(self) -> list[ModelInfo]:
        names: list[bytes] = sorted(await self._connection.again("SMEMBERS", keys.MODELS))
        found = [await self.model(name.decode()) for name in names]
        return [info for info in found if info is not None]

    async def beat(self, info: WorkerInfo, ttl: float) -> None:
        await self._connection.again("SET", keys.worker(info.name), info.model_dump_json(), "PX", int(ttl * 1000))
        await self._connection.again("ZADD", keys.WORKERS, time.time(), info.name)
        await self._connection.again("ZREMRANGEBYSCORE", keys.WORKERS, "-inf", time.time() - FORGET_SECONDS)

    async def leave(self, worker: str) -> None:
        await self._connection.again("DEL", keys.worker(worker), keys.metrics(worker))
        await self._connection.again("ZREM", keys.WORKERS, worker)

    async def workers(self) -> list[WorkerInfo]:
        """Workers whose heartbeat has not run out. It writes nothing: a Redis that takes no writes answers."""
        names: list[bytes] = await self._connection.again("ZRANGE", keys.WORKERS, 0, -1)
        if not names:
            return []
        texts = await self._connection.again("MGET", *(keys.worker(name.decode()) for name in names))
        return [WorkerInfo.model_validate_json(text) for text in texts if text is not None]

    async def publish_metrics(self, worker: str, text: bytes, ttl: float) -> None:
        await self._connection.again("SET", keys.metrics(worker), text, "PX", int(ttl * 1000))

    async def metrics(self, worker: str) -> str:
        text: bytes | None = await self._connection.again("GET", keys.metrics(worker))
        return text.decode() if text else ""


@dataclass
class _Known:
    value: Any
    asked_at: float  # monotonic seconds


class RecentRegistry:
    """Models and workers as they were at most `seconds` ago, so that a submit has one question for Redis and not five.

    What is older than half of that is asked for again while the known answer is given: under a steady load nobody
    waits. Whoever has to wait waits for one common answer. What was not there is asked for again.
    """

    def __init__(self, registry: Registry, seconds: float) -> None:
        self._registry = registry
        self._seconds = seconds
        self._known: dict[str, _Known] = {}
        self._asking: dict[str, asyncio.Task[Any]] = {}

    async def default_model(self) -> str | None:
        return await self._recall("", self._registry.default_model)

    async def model(self, name: str) -> ModelInfo | None:
        return await self._recall(f"model {name}", lambda: self._registry.model(name))

    async def workers(self) -> list[WorkerInfo]:
        return await self._recall("workers", self._registry.workers)

    async def _recall(self, what: str, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        known = self._known.get(what)
        age = math.inf if known is None else time.monotonic() - known.asked_at
        if known is None or age >= self._seconds:
            return await asyncio.shield(self._ask(what, ask))
        if age >= self._seconds / 2:
            self._ask(what, ask)
        return cast(T, known.value)

    def _ask(self, what: str, ask: Callable[[], Coroutine[Any, Any, T]]) -> "asyncio.Task[T]":
        """One question at a time for each thing."""
        task = self._asking.get(what)
        if task is None:
            task = self._asking[what] = asyncio.create_task(self._learn(what, ask))
            task.add_done_callback(_log_failure)
        return task

    async def _learn(self, what: str, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        asked_at = time.monotonic()
        try:
            value = await ask()
            if value:
                self._known[what] = _Known(value, asked_at)
            else:
                self._known.pop(what, None)
            return value
        finally:
            del self._asking[what]


def _log_failure(task: "asyncio.Task[Any]") -> None:
    """Perhaps nobody waits for it; who asks when the known answer is too old is told."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.info("models and workers could not be asked for: %s", error)
