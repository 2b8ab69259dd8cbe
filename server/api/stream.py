"""`WS /v1/generations/{id}/stream?after=SEQ`: replays a job's events after SEQ, then goes on live.

The socket is closed with 1000 after the terminal event. An error is a frame `{"error": ..., "seq": ...}` and a close
code of its own: 4400 bad `after`, 4401 no valid key, 4404 unknown job, 4410 expired job, 1013 try again with `after=`
that `seq`, the last one that was sent; the reason of the close says it too.

A client that reads slowly misses previews that newer ones replaced, and nothing else. One that does not read at all
for `socket_send_timeout` is closed with 1013; it has as long again to read why.
"""

import asyncio
import logging
from contextlib import aclosing
from dataclasses import dataclass

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from oar_wire.error import ServerError
from oar_wire.errors import InternalError, SlowClient, UpgradeRequired
from server.api.credentials import choose_protocol
from server.api.deps import Services, services_of
from server.api.following import follow, parse_seq
from server.tasks import until_one_ends

logger = logging.getLogger(__name__)
router = APIRouter()

IDLE_CLOSE_CODE = 1013


@dataclass
class Reader:
    """Progress of a client: the number of the last event that it was sent."""

    job_id: str
    seq: int = 0


@router.websocket("/v1/generations/{job_id}/stream")
async def stream(socket: WebSocket, job_id: str) -> None:
    services = services_of(socket)
    await socket.accept(subprotocol=choose_protocol(socket.scope))
    services.metrics.sockets.inc()
    try:
        await _serve(socket, services, job_id)
    except WebSocketDisconnect:
        logger.debug("client left job=%s", job_id)
    finally:
        services.metrics.sockets.dec()


@router.get("/v1/generations/{job_id}/stream", include_in_schema=False)
async def no_stream(job_id: str) -> None:
    """Answers who asks without a websocket's handshake, or whose proxy took that away."""
    message = f"this is a websocket's address; /v1/generations/{job_id[:80]}/events tells the same over plain HTTP"
    raise UpgradeRequired(message)


async def _serve(socket: WebSocket, services: Services, job_id: str) -> None:
    reader = Reader(job_id)
    try:
        services.stream_limits.check(services.tenant, "websocket")
        with services.stream_limits.hold(services.tenant):
            await until_one_ends(_pump(socket, services, reader), _listen(socket))
    except ServerError as error:
        await _close_with(socket, services, error, reader)
    except (WebSocketDisconnect, asyncio.CancelledError):
        raise
    except Exception:
        logger.exception("websocket failed job=%s", job_id)
        await _close_with(socket, services, InternalError(), reader)


async def _pump(socket: WebSocket, services: Services, reader: Reader) -> None:
    """Reads the log at the client's own speed; nothing is buffered here."""
    after = parse_seq(socket.query_params.get("after", "0"), "after")
    job = await services.load_job(reader.job_id)
    reader.seq = min(after, job.seq)
    services.metrics.resumed.inc(after > 0)
    async with aclosing(follow(services, job, after, services.settings.socket_idle)) as events:
        async for event in events:
            if event is None:
                await socket.close(IDLE_CLOSE_CODE, f"no event for a long time seq={reader.seq}")
                return
            await _send(socket, services, event.to_json())
            reader.seq = event.seq
            services.metrics.replayed.inc(event.seq <= job.seq)
    await socket.close(1000)


async def _send(socket: WebSocket, services: Services, text: str) -> None:
    try:
        async with asyncio.timeout(services.settings.socket_send_timeout):
            await socket.send_text(text)
    except TimeoutError as error:
        services.metrics.slow_clients.inc()
        raise SlowClient("the client does not read") from error


async def _listen(socket: WebSocket) -> None:
    """Ignores what clients say, and notices that they leave."""
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))


async def _close_with(socket: WebSocket, services: Services, error: ServerError, reader: Reader) -> None:
    try:
        async with asyncio.timeout(services.settings.socket_send_timeout):
            await socket.send_json({**error.to_json(), "seq": reader.seq})
            await socket.close(error.close_code, f"{error.code} seq={reader.seq}")
    except (TimeoutError, RuntimeError, WebSocketDisconnect):
        logger.info("could not say why a websocket is closed code=%s", error.code)
