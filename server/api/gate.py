"""Lets in who has a key. Every route and socket is behind it, also those that are yet to be written, but for `OPEN`.

One picture can also be opened by its signed link.
"""

import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from oar_wire.error import ServerError
from oar_wire.errors import InvalidKey, RateLimited
from oar_wire.tenant import Tenant, open_tenant
from server.api.credentials import read_key
from server.api.keyring import KeyRing
from server.api.links import PictureLinks, is_signed
from server.api.proxy import route_path
from server.api.refusal import refuse
from server.jobs.limiter import RateLimiter
from server.observability.metrics import ApiMetrics

TENANT = "oar.tenant"  # in the scope of each request that was let in
METRICS = "/metrics"
# Balancers and kubelets ask the first two and hold no key. The others are the same on every server: a page, and the
# description of the interface; the page asks for the key itself.
OPEN = frozenset({"/live", "/ready", "/", "/docs", "/redoc", "/openapi.json", "/asyncapi.json"})
OPEN_FOLDERS = ("/studio/", "/docs/")
READING = frozenset({"GET", "HEAD"})


def is_open(scope: Scope) -> bool:
    """Tells whether it is answered without a key."""
    path = route_path(scope)
    if scope["type"] != "http" or scope["method"] not in READING:
        return False
    return path in OPEN or path == METRICS or path.startswith(OPEN_FOLDERS)


class Gate:
    def __init__(self, app: ASGIApp, ring: KeyRing | None, metrics_key: str | None, metrics: ApiMetrics) -> None:
        """Without a `ring` everybody is one tenant; without a `metrics_key` everybody may read the metrics."""
        self.app = app
        self.ring = ring
        self.metrics_key = metrics_key
        self.metrics = metrics
        self.everybody = open_tenant()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        try:
            link_owner = await self._find_link_owner(scope)
            tenant = link_owner or self._who(scope)
            await self._count(scope, tenant, by_link=link_owner is not None)
        except ServerError as error:
            self.metrics.count_refusal(error.code)
            await refuse(error, scope, receive, send)
            return
        scope[TENANT] = tenant
        await self.app(scope, receive, send)

    async def _find_link_owner(self, scope: Scope) -> Tenant | None:
        """None for whoever does not come by a signed link alone. Raises InvalidLink, LinkExpired, RedisUnavailable."""
        if self.ring is None or not is_signed(scope) or read_key(scope) is not None:
            return None
        links: PictureLinks = scope["app"].state.services.links
        return await links.open(scope, self.ring.tenants)

    def _who(self, scope: Scope) -> Tenant:
        """Raises InvalidKey."""
        if is_open(scope):
            self._check_metrics(scope)
            return self.everybody
        if self.ring is None:
            return self.everybody
        key = read_key(scope)
        if key is None:
            raise InvalidKey()
        tenant = self.ring.find(key)
        if tenant is None:
            raise InvalidKey.refused("nobody was given this key, or it was taken back")
        return tenant

    def _check_metrics(self, scope: Scope) -> None:
        if route_path(scope) != METRICS or self.metrics_key is None:
            return
        key = read_key(scope)
        if key is None:
            raise InvalidKey("send the key of the metrics, as `Authorization: Bearer KEY`")
        if not hmac.compare_digest(key.encode(errors="replace"), self.metrics_key.encode(errors="replace")):
            raise InvalidKey.refused("this is not the key of the metrics")

    async def _count(self, scope: Scope, tenant: Tenant, *, by_link: bool) -> None:
        """Raises RateLimited, RedisUnavailable."""
        if tenant is self.everybody:
            if not is_open(scope):
                self.metrics.count_tenant(tenant.name, "let_in")
            return
        limiter: RateLimiter = scope["app"].state.services.limiter
        try:
            await limiter.take(tenant, by_link=by_link)
        except RateLimited:
            self.metrics.count_tenant(tenant.name, RateLimited.code)
            raise
        self.metrics.count_tenant(tenant.name, "let_in")
