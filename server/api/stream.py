"""`WS /v1/generations/{id}/stream?after=SEQ`: replays a job's events after SEQ, then goes on live.

The socket is closed with 1000 after the terminal event. An error is a frame `{"error": ..., "seq": ...}` and a close
code of its own: 4400 bad `after`, 4404 unknown job, 4410 expired job, 1013 try again with `after=` that `seq`, the last
one that was sent; the reason of the close says it too.

A client that reads slowly misses previews that newer ones replaced, and nothing else. One that does not read at all
for `socket_send_timeout` is closed with 1013; it has as long again to read why.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from server.api.deps import Services, get_services
from server.errors import InternalError, InvalidRequest, ServerError, SlowClient, TooManySockets
from server.jobs.events import StoredEvent
from server.tasks import stop_tasks

logger = logging.getLogger(__name__)
router = APIRouter()

IDLE_CLOSE_CODE = 1013
STALE_SECONDS = 0.25  # after which a preview that waits to be sent is looked up again


@dataclass
class Reader:
    """How far a client is: the number of the last event that it was sent."""

    job_id: str
    seq: int = 0
    opened_at: int = 0  # number of the latest event when the socket was opened


@router.websocket("/v1/generations/{job_id}/stream")
async def stream(socket: WebSocket, job_id: str) -> None:
    services = get_services(socket)
    await socket.accept()
    services.num_sockets += 1
    services.metrics.sockets.inc()
    try:
        await _serve(socket, services, job_id)
    except WebSocketDisconnect:
        logger.debug("client left job=%s", job_id)
    finally:
        services.num_sockets -= 1
        services.metrics.sockets.dec()


async def _serve(socket: WebSocket, services: Services, job_id: str) -> None:
    reader = Reader(job_id)
    try:
        if services.num_sockets > services.settings.max_sockets:
            raise TooManySockets("this server has no free websocket", retry_after=5)
        await _until_one_ends(_pump(socket, services, reader), _listen(socket))
    except ServerError as error:
        await _close_with(socket, services, error, reader)
    except (WebSocketDisconnect, asyncio.CancelledError):
        raise
    except Exception:
        logger.exception("websocket failed job=%s", job_id)
        await _close_with(socket, services, InternalError("the server made a mistake; its log says more"), reader)


async def _pump(socket: WebSocket, services: Services, reader: Reader) -> None:
    """Reads the log at the client's own speed; nothing is buffered here."""
    after = _after(socket)
    job = await services.queue.load(reader.job_id)
    reader.seq, reader.opened_at = min(after, job.seq), job.seq
    services.metrics.resumed.inc(after > 0)
    async with services.hub.watch(reader.job_id, reader.seq):
        while True:
            batch = await services.log.read(reader.job_id, reader.seq)
            await _send_batch(socket, services, reader, batch)
            is_terminal = bool(batch) and batch[-1].is_terminal and batch[-1].seq == reader.seq
            if is_terminal or (not batch and await _is_over(services, reader.job_id, reader.seq)):
                await socket.close(1000)
                return
            if batch:
                continue
            if not await services.hub.wait(reader.job_id, reader.seq, services.settings.socket_idle):
                await socket.close(IDLE_CLOSE_CODE, f"no event for a long time seq={reader.seq}")
                return


async def _send_batch(socket: WebSocket, services: Services, reader: Reader, batch: list[StoredEvent]) -> None:
    """Ends early before a preview that may be stale by now: the next batch has the newest one in its place."""
    start = time.monotonic()
    for event in batch:
        if event.type == "preview" and time.monotonic() - start > STALE_SECONDS:
            return
        await _send(socket, services, event.to_json())
        reader.seq = event.seq
        services.metrics.replayed.inc(event.seq <= reader.opened_at)


async def _is_over(services: Services, job_id: str, seq: int) -> bool:
    """Whether `after` was the terminal event or beyond it: there is nothing to wait for."""
    job = await services.queue.load(job_id)
    return job.state.is_terminal and seq >= job.seq


async def _send(socket: WebSocket, services: Services, text: str) -> None:
    try:
        async with asyncio.timeout(services.settings.socket_send_timeout):
            await socket.send_text(text)
    except TimeoutError as error:
        services.metrics.slow_clients.inc()
        raise SlowClient("the client does not read") from error


async def _listen(socket: WebSocket) -> None:
    """What clients say is ignored; that they leave is not."""
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))


async def _until_one_ends(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Runs all until the first ends, stops the others, and raises what the first one raised."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await stop_tasks(tasks)
    for task in tasks:
        # The others may have failed meanwhile, of the same cause: that is to be looked at, and not to be raised.
        error = None if task.cancelled() else task.exception()
        if task in done and error is not None:
            raise error


async def _close_with(socket: WebSocket, services: Services, error: ServerError, reader: Reader) -> None:
    try:
        async with asyncio.timeout(services.settings.socket_send_timeout):
            await socket.send_json({**error.to_json(), "seq": reader.seq})
            await socket.close(error.close_code, f"{error.code} seq={reader.seq}")
    except (TimeoutError, RuntimeError, WebSocketDisconnect):
        logger.info("could not say why a websocket is closed code=%s", error.code)


def _after(socket: WebSocket) -> int:
    text = socket.query_params.get("after", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise InvalidRequest("invalid_after", "after is the seq of an event", field="after")
    return int(text)
