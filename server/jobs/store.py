"""Finished pictures, and what workers publish about themselves and their models."""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from oar_wire.errors import WritesRefused
from oar_wire.model import ModelInfo, WorkerInfo
from oar_wire.outputs import OutputData, OutputKind
from server.jobs import keys
from server.jobs.connection import RedisConnection
from server.jobs.worker_registry import WorkerRegistry

logger = logging.getLogger(__name__)

PNG = "image/png"  # of images, as they are stored

T = TypeVar("T")


class OutputStore:
    """Images are written by `finish`, in the same script as the terminal event: both are there, or neither. Outputs of
    other kinds are written before the event that tells of them."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    async def read(self, job_id: str, kind: OutputKind, index: int) -> OutputData | None:
        if kind == "image":
            png: bytes | None = await self._connection.again("GET", keys.image_key(job_id, index))
            return None if png is None else OutputData(kind, index, PNG, png)
        fields = keys.output_fields(kind, index)
        data, media_type = await self._connection.again("HMGET", keys.outputs_key(job_id), *fields)
        return None if data is None else OutputData(kind, index, media_type.decode(), data)

    async def read_values(self, job_id: str) -> dict[str, bytes]:
        """Values of the finished frames of a job that has not ended, by `keys.values_field`."""
        reply: list[bytes] = await self._connection.again("HGETALL", keys.values_key(job_id))
        return {name.decode(): data for name, data in zip(reply[::2], reply[1::2])}

    async def read_source(self, job_id: str) -> bytes | None:
        """The PNG that an edit starts from."""
        return await self._connection.again("GET", keys.source_key(job_id))


class Registry:
    """Models as they are published now, and the live `workers`."""

    def __init__(self, connection: RedisConnection, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` counts monotonic seconds; whether a worker is alive is judged by it."""
        self._connection = connection
        self.workers = WorkerRegistry(connection, clock)

    async def publish_models(
        self,
        models: Sequence[ModelInfo],
        text_tokenizers: Mapping[str, str],
        seconds: float,
        *,
        vocabularies: Mapping[str, str] | None = None,
        becomes_default: bool = True,
    ) -> None:
        """Makes models known for `seconds`, which `keep_models` renews; the first one becomes the default, or only
        where there is none. `vocabularies` are those of models whose words are known."""
        vocabularies = vocabularies or {}
        expiry = ("PX", int(seconds * 1000))
        for info in models:
            if info.name in text_tokenizers:
                text = text_tokenizers[info.name]
                await self._connection.again("SET", keys.text_tokenizer_key(info.name), text, *expiry)
            if info.name in vocabularies:
                await self._connection.again("SET", keys.vocabulary_key(info.name), vocabularies[info.name], *expiry)
            await self._connection.again("SET", keys.model_key(info.name), info.model_dump_json(), *expiry)
            await self._connection.again("SADD", keys.MODELS, info.name)
        if models:
            condition = () if becomes_default else ("NX",)
            await self._connection.again("SET", keys.DEFAULT_MODEL, models[0].name, *expiry, *condition)

    async def keep_models(self, names: Sequence[str], seconds: float) -> bool:
        """Keeps models known for `seconds` more, and the default if it is the first one. False where something of them
        is gone."""
        milliseconds = int(seconds * 1000)
        required = [key for name in names for key in (keys.model_key(name), keys.text_tokenizer_key(name))]
        replies = await self._connection.again_many(
            [
                ("GET", keys.DEFAULT_MODEL),
                *(("SISMEMBER", keys.MODELS, name) for name in names),
                *(("PEXPIRE", key, milliseconds) for key in required),
                *(("PEXPIRE", keys.vocabulary_key(name), milliseconds) for name in names),  # not all models have one
            ]
        )
        default: bytes | None = replies[0]
        if default is not None and default.decode() == names[0]:
            await self._connection.again("PEXPIRE", keys.DEFAULT_MODEL, milliseconds)
        return default is not None and all(replies[1 : 1 + len(names) + len(required)])

    async def forget_model(self, name: str) -> None:
        """Removes a model as if it had never been published. A worker that serves it publishes it again."""
        if await self.default_model() == name:
            await self._connection.again("DEL", keys.DEFAULT_MODEL)
        await self._connection.again("DEL", keys.model_key(name), *_texts(name), *keys.queue_keys(name))
        await self._connection.again("SREM", keys.MODELS, name)

    async def default_model(self) -> str | None:
        name: bytes | None = await self._connection.again("GET", keys.DEFAULT_MODEL)
        return name.decode() if name else None

    async def model(self, name: str) -> ModelInfo | None:
        text: bytes | None = await self._connection.again("GET", keys.model_key(name))
        return ModelInfo.model_validate_json(text) if text else None

    async def text_tokenizer(self, model_name: str) -> str | None:
        text: bytes | None = await self._connection.again("GET", keys.text_tokenizer_key(model_name))
        return text.decode() if text else None

    async def vocabulary(self, model_name: str) -> str | None:
        text: bytes | None = await self._connection.again("GET", keys.vocabulary_key(model_name))
        return text.decode() if text else None

    async def models(self) -> list[ModelInfo]:
        found = [await self.model(name) for name in await self._names()]
        return [info for info in found if info is not None]

    async def served_models(self) -> list[str]:
        """Names of the models that are known, and of those that are not any more while jobs wait for them."""
        served: list[str] = []
        for name in await self._names():
            words = [("EXISTS", keys.model_key(name)), *(("XLEN", queue) for queue in keys.queue_keys(name))]
            if any(await self._connection.again_many(words)):
                served.append(name)
            else:
                with contextlib.suppress(WritesRefused):  # then it is forgotten later
                    await self._connection.again("SREM", keys.MODELS, name)
        return served

    async def was_published(self, name: str) -> bool:
        """Tells whether a worker has published a model that was not dropped from the list since."""
        return bool(await self._connection.again("SISMEMBER", keys.MODELS, name))

    async def _names(self) -> list[str]:
        return sorted(name.decode() for name in await self._connection.again("SMEMBERS", keys.MODELS))


def _texts(name: str) -> tuple[str, str]:
    return keys.text_tokenizer_key(name), keys.vocabulary_key(name)


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
        return await self._recall("workers", self._registry.workers.alive)

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
    """Logs the failure: perhaps nobody waits for it. Who asks when the known answer is too old gets it."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.info("models and workers could not be asked for: %s", error)
