"""A TCP proxy between client and server that cuts connections at random bytes, in either direction, or stalls them."""

import contextlib
import random
import socket
import threading
from collections.abc import Callable
from typing import Self
from urllib.parse import urlsplit

CHUNK = 1 << 12
Budget = Callable[[random.Random], int | None]


class CuttingProxy:
    """`budget(chance)` is how many bytes of the server's a new connection carries before it is cut; None is never.

    Half of the cuts are resets, half are ends that look orderly. A fifth of the budgets count the client's bytes.
    """

    def __init__(self, target: str, budget: Budget, *, seed: int = 0, receive_buffer: int | None = None) -> None:
        address = urlsplit(target)
        self._target = (address.hostname, address.port)
        self._budget = budget
        self._chance = random.Random(seed)
        self._receive_buffer = receive_buffer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self.num_connections = 0
        self.num_cuts = 0
        self.is_refusing = False
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join()
        self.cut_all()
        for thread in self._threads:
            thread.join()

    def cut_all(self) -> None:
        """Ends every connection now."""
        with self._lock:
            for connection in self._open:
                _shut(connection)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.is_refusing:
                client.close()
                continue
            self.num_connections += 1
            self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        server = socket.socket()
        if self._receive_buffer is not None:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._receive_buffer)
        try:
            server.connect(self._target)
        except OSError:
            server.close()
            client.close()
            return
        with self._lock:
            self._open |= {client, server}
        budget, backwards = self._budget(self._chance), self._chance.random() < 0.2
        hard = self._chance.random() < 0.5
        for source, sink, limit in (
            (server, client, None if backwards else budget),
            (client, server, budget if backwards else None),
        ):
            thread = threading.Thread(target=self._pump, args=(source, sink, limit, hard))
            self._threads.append(thread)
            thread.start()

    def _pump(self, source: socket.socket, sink: socket.socket, limit: int | None, hard: bool) -> None:
        left = limit
        try:
            while data := source.recv(CHUNK):
                sink.sendall(data if left is None else data[:left])
                if left is not None and len(data) >= left:
                    self.num_cuts += 1
                    if hard:
                        linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
                        for connection in (source, sink):
                            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    break
                left = None if left is None else left - len(data)
        except OSError:
            pass
        with self._lock:
            for connection in (source, sink):
                _shut(connection)
                if connection in self._open:
                    self._open.discard(connection)
                else:
                    connection.close()  # the other pump has let go of it already


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
