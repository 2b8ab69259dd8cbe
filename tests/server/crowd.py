"""Many websockets on the jobs of one API process, opened as fast as it takes them."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

OPEN_SECONDS = 120.0


@dataclass
class Crowd:
    """`endings` counts how the sockets ended: the type of the last frame and the close code."""

    endings: Counter[tuple[str, int | None]] = field(default_factory=Counter[tuple[str, int | None]])
    num_open: int = 0
    is_open: asyncio.Event = field(default_factory=asyncio.Event)

    async def watch(self, urls: Sequence[str]) -> None:
        """Follows each address to its end; `is_open` is set when every socket was sent its first frame."""
        try:
            await asyncio.gather(*(self._follow(url, len(urls)) for url in urls))
        finally:
            self.is_open.set()  # nobody waits for ever where one could not be opened: the error is raised here

    async def _follow(self, url: str, size: int) -> None:
        last: dict[str, Any] = {}
        # All frames are taken at once, and nobody pings: this client is never why a socket is closed.
        async with connect(url, open_timeout=OPEN_SECONDS, ping_interval=None, max_queue=None) as socket:
            with contextlib.suppress(ConnectionClosed):
                async for frame in socket:
                    last = json.loads(frame)
                    self._count_first(size)
        self.endings[last.get("type", last.get("error", {}).get("code", "nothing")), socket.close_code] += 1

    def _count_first(self, size: int) -> None:
        self.num_open += 1
        if self.num_open >= size:
            self.is_open.set()
