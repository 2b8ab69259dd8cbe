"""How often a tenant may ask: one token bucket for each, in Redis, so that all API processes share it."""

from oar_wire.tenant import Tenant
from server.errors import RateLimited
from server.jobs import keys, scripts
from server.jobs.connection import RedisConnection


class RateLimiter:
    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    async def take(self, tenant: Tenant) -> None:
        """Takes a token. Raises RateLimited, with the seconds until there is one, or RedisUnavailable."""
        if not tenant.rate:
            return
        wait = await scripts.run(self._connection, "rate", [keys.rate(tenant.name)], [tenant.rate, tenant.bucket])
        if wait:
            seconds = wait / 1e6
            message = f"{tenant.name} may ask {tenant.rate:g} times a second, {tenant.bucket} at once"
            raise RateLimited(f"{message}; come back in {seconds:.2g} s", retry_after=seconds)
