"""The asynchronous client's connections: one pool for HTTP, and a websocket for each open event stream."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel
from websockets.asyncio.client import ClientConnection, connect

from oar_client.calls import Call
from oar_client.contact import Contact, proxies_explained
from oar_client.retry import Attempts

M = TypeVar("M", bound=BaseModel)


class AsyncConnections(Contact):
    """Tasks of one event loop may share it."""

    def open(self) -> None:
        """Opens nothing yet; raises what httpx says of bad options."""
        self._sockets: set[ClientConnection] = set()
        # A transport of our own stands in the place of the environment's proxies.
        direct = httpx.AsyncHTTPTransport(verify=self._verify) if self._address.is_loopback else None
        with proxies_explained(ValueError):
            self._http = httpx.AsyncClient(**self.http_options, transport=direct)

    async def close(self) -> None:
        self._is_closed = True
        await asyncio.gather(*(socket.close() for socket in tuple(self._sockets)))
        await self._http.aclose()

    async def send(self, call: Call[M]) -> M:
        """Raises OarError."""
        return call.parse(await self.fetch(call, self.attempts()))

    async def fetch(self, call: Call[Any], attempts: Attempts, timeout: float | None = None) -> bytes:
        """The answer's bytes. Raises OarError."""
        arguments = call.arguments()
        while True:
            self.check_open()
            try:
                response = await self._http.request(**arguments, timeout=timeout or self._timeout)
            except httpx.TransportError as error:
                pause = attempts.unreachable(error)
            else:
                self._was_reached = True
                pause = attempts.answered(response.status_code, response.headers.get("Retry-After"), response.content)
                if pause is None:
                    return response.content
            await self.sleep(pause)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def receive(self, socket: ClientConnection, timeout: float) -> str | bytes:
        """The next message. Raises TimeoutError after `timeout` seconds, and what websockets raises."""
        async with asyncio.timeout(timeout):
            return await socket.recv()

    @contextlib.asynccontextmanager
    async def open_stream(self, job_id: str, after: int) -> AsyncGenerator[ClientConnection]:
        """One websocket. Raises the exceptions of `feed.BREAKS`."""
        self.check_open()
        async with contextlib.AsyncExitStack() as stack:
            with proxies_explained(ValueError):
                socket = await stack.enter_async_context(connect(**self.stream_options(job_id, after)))
            self._sockets.add(socket)
            try:
                self.check_open()
                yield socket
            finally:
                self._sockets.discard(socket)
