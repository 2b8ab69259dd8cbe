"""Pages that may use the server from a browser: its own, and those of `OAR_ALLOWED_ORIGINS`.

A browser lets any page send requests to any address, a local server's among them, and tells in `Origin` whose page it
is; a websocket it lets the page read as well. So a foreign origin is refused. A client without the header is no page
in a browser and passes: the check guards people's browsers, keys guard the server.

By DNS rebinding a page's own name comes to mean this machine; then origin and `Host` agree, and both are foreign. A
server that listens on loopback therefore knows the names that it can have: IP addresses, which nobody can rebind,
`localhost`, the hosts of the allowed origins, and those of `OAR_ALLOWED_HOSTS`. Where these are set the names are
checked wherever it listens.

The name that is checked is the one that came with the connection: a page can send `X-Forwarded-Host` to its own origin,
and the connection comes from this machine, which is a trusted proxy. What a proxy says is checked as well where
`OAR_ALLOWED_HOSTS` is set.
"""

from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from oar_wire.error import ServerError
from oar_wire.errors import HostNotAllowed, OriginNotAllowed
from oar_wire.loopback import is_address, is_loopback
from server.api.credentials import read_header
from server.api.proxy import DIRECT_HOST
from server.api.refusal import deny
from server.observability.metrics import ApiMetrics
from server.settings import DEFAULT_PORTS

EVERY = "*"


class OriginCheck:
    def __init__(
        self, app: ASGIApp, host: str, allowed: Iterable[str], allowed_hosts: Iterable[str], metrics: ApiMetrics
    ) -> None:
        """`host` is the address that the server listens on."""
        self.app = app
        self.allowed = frozenset(allowed)
        self.metrics = metrics
        self.named = frozenset(allowed_hosts)
        self.hosts = frozenset(urlsplit(origin).hostname for origin in self.allowed) | self.named | {host.lower()}
        is_local = is_loopback(host) and EVERY not in self.allowed
        self.checks_hosts = EVERY not in self.named and (bool(self.named) or is_local)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            try:
                self._check(scope)
            except ServerError as error:
                self.metrics.count_refusal(error.code)
                await deny(error, scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        """Raises HostNotAllowed, OriginNotAllowed."""
        host, origin = read_header(scope, b"host"), read_header(scope, b"origin")
        self._check_host(scope.get(DIRECT_HOST))
        if self.named:
            self._check_host(host)
        if EVERY in self.allowed:
            return
        if origin is not None and origin not in self.allowed and not _is_same(origin, host):
            raise OriginNotAllowed(f"pages of {origin[:80]!r} may not use this server (OAR_ALLOWED_ORIGINS)")

    def _check_host(self, host: str | None) -> None:
        """Raises HostNotAllowed."""
        if self.checks_hosts and host is not None and not self._is_own(host):
            raise HostNotAllowed(f"this server is not known as {host[:80]!r} (OAR_ALLOWED_HOSTS)")

    def _is_own(self, host: str) -> bool:
        name, _ = _authority(f"//{host}", 0)
        parents = (name[dot:] for dot, letter in enumerate(name) if letter == ".")
        if name in self.hosts or any(f"*{parent}" in self.hosts for parent in parents):
            return True
        return name == "localhost" or name.endswith(".localhost") or is_address(name)


def _is_same(origin: str, host: str | None) -> bool:
    """Tells whether host and port agree. The scheme need not: a proxy may speak TLS for us."""
    port = DEFAULT_PORTS.get(origin.partition(":")[0], 0)
    return host is not None and _authority(origin, port) == _authority(f"//{host}", port) != ("", 0)


def _authority(url: str, default_port: int) -> tuple[str, int]:
    """Host in lower case, and port; ("", 0) where there is none."""
    try:
        parts = urlsplit(url)
        return (parts.hostname, parts.port or default_port) if parts.hostname else ("", 0)
    except ValueError:
        return "", 0
