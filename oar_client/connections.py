"""The client's connections: one pool for HTTP, and a websocket for each open event stream."""

import contextlib
import os
import threading
import time
from collections.abc import Generator
from contextlib import AbstractContextManager
from typing import Any, TypeVar, cast

import httpx
from pydantic import BaseModel
from websockets.sync.client import ClientConnection, connect

from oar_client.calls import Call
from oar_client.contact import Contact, proxies_explained
from oar_client.retry import Attempts

M = TypeVar("M", bound=BaseModel)


class Connections(Contact):
    """Threads may share it. A forked process opens connections of its own."""

    def open(self) -> None:
        """Opens nothing yet; raises what httpx says of bad options."""
        self._lock = threading.Lock()
        self._begin()

    def close(self) -> None:
        self._is_closed = True
        if self._pid != os.getpid():
            return  # what is open belongs to the parent
        with self._lock:
            sockets = tuple(self._sockets)
        for socket in sockets:
            socket.close()
        self._http.close()

    def send(self, call: Call[M]) -> M:
        """Raises OarError."""
        return call.parse(self.fetch(call, self.attempts()))

    def fetch(self, call: Call[Any], attempts: Attempts, timeout: float | None = None) -> bytes:
        """The answer's bytes. Raises OarError."""
        arguments = call.arguments()
        while True:
            self.check_open()
            try:
                response = self._client.request(**arguments, timeout=timeout or self._timeout)
            except httpx.TransportError as error:
                pause = attempts.unreachable(error)
            else:
                self._was_reached = True
                pause = attempts.answered(response.status_code, response.headers.get("Retry-After"), response.content)
                if pause is None:
                    return response.content
            self.sleep(pause)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def receive(self, socket: ClientConnection, timeout: float | None) -> str | bytes:
        """The next message. Raises TimeoutError after `timeout` seconds, and what websockets raises."""
        return socket.recv(timeout)

    @contextlib.contextmanager
    def open_stream(self, job_id: str, after: int) -> Generator[ClientConnection]:
        """One websocket. Raises the exceptions of `feed.BREAKS`."""
        self.check_open()
        # Some versions of `connect` may return what reconnects by itself, which is not asked for here.
        opened = cast("AbstractContextManager[ClientConnection]", connect(**self.stream_options(job_id, after)))
        with contextlib.ExitStack() as stack:
            with proxies_explained():
                socket = stack.enter_context(opened)
            with self._lock:
                self._sockets.add(socket)
            try:
                self.check_open()
                yield socket
            finally:
                with self._lock:
                    self._sockets.discard(socket)

    @property
    def _client(self) -> httpx.Client:
        if self._pid != os.getpid():
            self._lock = threading.Lock()  # another thread of the parent may have held it when the fork came
            self._begin()
        return self._http

    def _begin(self) -> None:
        self._sockets: set[ClientConnection] = set()
        # A transport of our own stands in the place of the environment's proxies.
        direct = httpx.HTTPTransport(verify=self._verify) if self._address.is_loopback else None
        with proxies_explained(ValueError):
            self._http = httpx.Client(**self.http_options, transport=direct)
        self._pid = os.getpid()
