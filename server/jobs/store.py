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
from oar_wire.outputs import Output, OutputKind
from server.jobs import keys
from server.jobs.connection import RedisConnection
from server.jobs.lease import LeaseWatch

logger = logging.getLogger(__name__)

PNG = "image/png"  # of images, as they are stored

T = TypeVar("T")

FORGET_SECONDS = 3600.0  # after which the name of a silent worker is dropped


class OutputStore:
    """Images are written by `finish`, in the same script as the terminal event: both are there, or neither. Outputs of
    other kinds are written before the event that tells of them."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    async def read(self, job_id: str, kind: OutputKind, index: int) -> Output | None:
        if kind == "image":
            png: bytes | None = await self._connection.again("GET", keys.image(job_id, index))
            return None if png is None else Output(kind, index, PNG, png)
        fields = keys.output_fields(kind, index)
        data, media_type = await self._connection.again("HMGET", keys.outputs(job_id), *fields)
        return None if data is None else Output(kind, index, media_type.decode(), data)

    async def read_values(self, job_id: str) -> dict[str, bytes]:
        """Of the finished frames of a job that has not ended, by `keys.values_field`."""
        reply: list[bytes] = await self._connection.again("HGETALL", keys.values(job_id))
        return {name.decode(): data for name, data in zip(reply[::2], reply[1::2])}

    async def read_source(self, job_id: str) -> bytes | None:
        """The PNG that an edit starts from."""
        return await self._connection.again("GET", keys.source(job_id))


class Registry:
    """Models and live workers, as they are now."""

    def __init__(self, connection: RedisConnection, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` counts monotonic seconds; whether a worker is alive is judged by it."""
        self._connection = connection
        self._clock = clock
        self._beats: dict[str, LeaseWatch] = {}  # by the worker's name

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
                await self._connection.again("SET", keys.text_tokenizer(info.name), text, *expiry)
            if info.name in vocabularies:
                await self._connection.again("SET", keys.vocabulary(info.name), vocabularies[info.name], *expiry)
            await self._connection.again("SET", keys.model(info.name), info.model_dump_json(), *expiry)
            await self._connection.again("SADD", keys.MODELS, info.name)
        if models:
            condition = () if becomes_default else ("NX",)
            await self._connection.again("SET", keys.DEFAULT_MODEL, models[0].name, *expiry, *condition)

    async def keep_models(self, names: Sequence[str], seconds: float) -> bool:
        """Keeps models known for `seconds` more, and the default if it is the first one. False where something of them
        is gone."""
        milliseconds = int(seconds * 1000)
        wanted = [key for name in names for key in (keys.model(name), keys.text_tokenizer(name))]
        replies = await self._connection.again_many(
            [
                ("GET", keys.DEFAULT_MODEL),
                *(("SISMEMBER", keys.MODELS, name) for name in names),
                *(("PEXPIRE", key, milliseconds) for key in wanted),
                *(("PEXPIRE", keys.vocabulary(name), milliseconds) for name in names),  # not all models have one
            ]
        )
        default: bytes | None = replies[0]
        if default is not None and default.decode() == names[0]:
            await self._connection.again("PEXPIRE", keys.DEFAULT_MODEL, milliseconds)
        return default is not None and all(replies[1 : 1 + len(names) + len(wanted)])

    async def forget_model(self, name: str) -> None:
        """As if it had never been published. A worker that serves it publishes it again."""
        if await self.default_model() == name:
            await self._connection.again("DEL", keys.DEFAULT_MODEL)
        await self._connection.again("DEL", keys.model(name), *_texts(name), *keys.queues(name))
        await self._connection.again("SREM", keys.MODELS, name)

    async def default_model(self) -> str | None:
        name: bytes | None = await self._connection.again("GET", keys.DEFAULT_MODEL)
        return name.decode() if name else None

    async def model(self, name: str) -> ModelInfo | None:
        text: bytes | None = await self._connection.again("GET", keys.model(name))
        return ModelInfo.model_validate_json(text) if text else None

    async def text_tokenizer(self, model_name: str) -> str | None:
        text: bytes | None = await self._connection.again("GET", keys.text_tokenizer(model_name))
        return text.decode() if text else None

    async def vocabulary(self, model_name: str) -> str | None:
        text: bytes | None = await self._connection.again("GET", keys.vocabulary(model_name))
        return text.decode() if text else None

    async def models(self) -> list[ModelInfo]:
        found = [await self.model(name) for name in await self._names()]
        return [info for info in found if info is not None]

    async def served_models(self) -> list[str]:
        """Names of the models that are known, and of those that are not any more while jobs wait for them."""
        served: list[str] = []
        for name in await self._names():
            words = [("EXISTS", keys.model(name)), *(("XLEN", queue) for queue in keys.queues(name))]
            if any(await self._connection.again_many(words)):
                served.append(name)
            else:
                with contextlib.suppress(WritesRefused):  # then it is forgotten later
                    await self._connection.again("SREM", keys.MODELS, name)
        return served

    async def was_published(self, name: str) -> bool:
        """Whether a worker has published a model that was not dropped from the list since."""
        return bool(await self._connection.again("SISMEMBER", keys.MODELS, name))

    async def _names(self) -> list[str]:
        return sorted(name.decode() for name in await self._connection.again("SMEMBERS", keys.MODELS))

    async def beat(self, info: WorkerInfo, ttl: float) -> None:
        await self._connection.again("SET", keys.worker(info.name), info.model_dump_json(), "PX", int(ttl * 1000))
        await self._connection.again("ZADD", keys.WORKERS, time.time(), info.name)
        await self._connection.again("ZREMRANGEBYSCORE", keys.WORKERS, "-inf", time.time() - FORGET_SECONDS)

    async def leave(self, worker: str) -> None:
        await self._connection.again("DEL", keys.worker(worker), keys.metrics(worker))
        await self._connection.again("ZREM", keys.WORKERS, worker)

    async def workers(self) -> list[WorkerInfo]:
        """Workers whose heartbeat has neither run out nor stood still, as far as this registry has seen.

        It writes nothing: a Redis that takes no writes answers.
        """
        asked_at = self._clock()
        names: list[bytes] = await self._connection.again("ZRANGE", keys.WORKERS, 0, -1)
        self._forget_others({name.decode() for name in names})
        if not names:
            return []
        texts = await self._connection.again("MGET", *(keys.worker(name.decode()) for name in names))
        found = [WorkerInfo.model_validate_json(text) for text in texts if text is not None]
        return [info for info in found if not self._stands_still(info, asked_at)]

    def _forget_others(self, names: set[str]) -> None:
        """Every start of a worker is a new name."""
        for name in self._beats.keys() - names:
            del self._beats[name]

    def _stands_still(self, info: WorkerInfo, asked_at: float) -> bool:
        """Its heartbeat may outlive it by as much as Redis' clock was set back."""
        if not info.lease_seconds:
            return False
        watch = self._beats.setdefault(info.name, LeaseWatch(info.lease_seconds, clock=self._clock))
        return watch.note(info.name, str(info.beats), asked_at)

    async def publish_metrics(self, worker: str, text: bytes, ttl: float) -> None:
        await self._connection.again("SET", keys.metrics(worker), text, "PX", int(ttl * 1000))

    async def metrics(self, worker: str) -> str:
        text: bytes | None = await self._connection.again("GET", keys.metrics(worker))
        return text.decode() if text else ""


def _texts(name: str) -> tuple[str, str]:
    return keys.text_tokenizer(name), keys.vocabulary(name)


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
