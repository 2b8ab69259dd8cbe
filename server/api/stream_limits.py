"""Limits of websockets and event streams that one process holds open: of all, and of each tenant."""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

from oar_wire.errors import TooManySockets
from oar_wire.tenant import Tenant

RETRY_SECONDS = 5


class StreamLimits:
    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: Counter[str] = Counter()

    def check(self, tenant: Tenant, what: str) -> None:
        """Raises TooManySockets where one more would be too many."""
        if self._taken.total() >= self._most:
            raise TooManySockets(f"this server has no free {what}", retry_after=RETRY_SECONDS)
        if self._taken[tenant.name] >= tenant.max_sockets:
            message = f"{tenant.name} may have {tenant.max_sockets} open websockets and event streams"
            raise TooManySockets(message, retry_after=RETRY_SECONDS)

    @contextmanager
    def hold(self, tenant: Tenant) -> Generator[None]:
        """One more, for as long as the context lasts."""
        self._taken[tenant.name] += 1
        try:
            yield
        finally:
            self._taken[tenant.name] -= 1
