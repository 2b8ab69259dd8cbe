"""Whether the store of results accepts writes: looked at all the time, so that a submit has nothing to ask."""

import asyncio
import logging
from collections.abc import Callable

from oar_wire.errors import ResultsUnavailable
from server.results.store import ResultsRefused, ResultStore

logger = logging.getLogger(__name__)

PROBE_SECONDS = 10.0
FAILED_PROBE_SECONDS = 1.0
DANGER = "finished pictures cannot be stored: their folder or bucket does not answer, or is full"


class ResultsWatch:
    def __init__(self, store: ResultStore, on_seen: Callable[[bool], None]) -> None:
        self._store = store
        self._on_seen = on_seen
        self.is_up = True

    async def run(self) -> None:
        """Looks until it is cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(PROBE_SECONDS if self.is_up else FAILED_PROBE_SECONDS)

    async def look(self) -> None:
        try:
            await self._store.check()
        except (ResultsUnavailable, ResultsRefused) as error:
            if self.is_up:
                logger.error("nothing new is accepted while results cannot be stored: %s", error)
            self.is_up = False
        else:
            self.is_up = True
        self._on_seen(self.is_up)

    def require(self) -> None:
        """Raises ResultsUnavailable."""
        if not self.is_up:
            raise ResultsUnavailable(retry_after=FAILED_PROBE_SECONDS)
