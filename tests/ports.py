"""Ports for programs that cannot choose one themselves, and one where nobody listens."""

import contextlib
import random
import socket
from collections.abc import Iterator

# Below those that systems give out by themselves: no connection and no server on port 0 takes one of these meanwhile.
LOWEST, HIGHEST = 10_000, 30_000


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has."""
    chance = random.SystemRandom()
    while True:
        port = chance.randint(LOWEST, HIGHEST)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@contextlib.contextmanager
def nowhere() -> Iterator[str]:
    """A URL that refuses connections as long as the context lasts: its port is taken, and nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"
