"""Limit of how often a tenant may ask: one token bucket for each, in Redis, so that all API processes share it."""

import time

from oar_wire.errors import RateLimited, WritesRefused
from oar_wire.tenant import Tenant
from server.jobs import keys, scripts
from server.jobs.connection import RedisConnection


class RateLimiter:
    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._full_at: dict[str, float] = {}  # monotonic, by key: when a bucket of this process is full again

    async def take(self, tenant: Tenant, *, by_link: bool = False) -> None:
        """Takes a token, of a bucket of their own for those who come by the tenant's links: who passes a link on does
        not shut out its owner. Raises RateLimited, with the seconds until there is a token, or RedisUnavailable."""
        if not tenant.rate:
            return
        key = keys.rate_key(tenant.name, by_link=by_link)
        try:
            wait = await scripts.run(self._connection, "rate", [key], {"rate": tenant.rate, "bucket": tenant.bucket})
            seconds = wait / 1e6
        except WritesRefused:
            seconds = self._take_here(tenant, key)
        if seconds > 0:
            message = f"{tenant.name} may ask {tenant.rate:g} times a second, {tenant.bucket} at once"
            raise RateLimited(f"{message}; come back in {seconds:.2g} s", retry_after=seconds)

    def _take_here(self, tenant: Tenant, key: str) -> float:
        """Takes as the script does, for this process alone: whoever only reads needs no Redis that takes writes."""
        gap, moment = 1 / tenant.rate, time.monotonic()
        most = gap * tenant.bucket
        full = max(moment, min(self._full_at.get(key, 0.0), moment + most)) + gap
        wait = full - most - moment
        if wait <= 0:
            self._full_at[key] = full
        return max(0.0, wait)
