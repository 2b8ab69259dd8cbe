"""Facts that proxies in front add to a request: the path prefix, scheme, host and client address that they replaced.

`X-Forwarded-Prefix`, `-Proto`, `-Host` and `-For` count where the connection comes from `OAR_TRUSTED_PROXIES`, and are
ignored from anybody else, who could write what they like into links and logs. Of a list the last entry counts, which
the nearest proxy wrote; of `X-Forwarded-For` the last one that is no trusted proxy itself.

The application sees the path with its prefix, and the prefix as `root_path`, as ASGI wants it. So a proxy may take the
prefix off or leave it on.
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server.settings import check_root_path

DIRECT_HOST = "oar.direct_host"  # in the scope: the Host header as it came, before a proxy's word replaced it
HOST = re.compile(r"[A-Za-z0-9._-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")
SCHEMES = {
    "http": {"http": "http", "https": "https"},
    "websocket": {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"},
}


def route_path(scope: Scope) -> str:
    """The path without its prefix, as routes know it. It begins with a slash."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")) or "/"


class TrustedProxies:
    def __init__(self, networks: Iterable[str]) -> None:
        """Addresses and networks such as 10.0.0.0/8; `*` is everybody."""
        names = tuple(networks)
        self._is_everybody = "*" in names
        self._networks = [ipaddress.ip_network(name) for name in names if name != "*"]

    def has(self, host: str) -> bool:
        if self._is_everybody:
            return True
        address = _address(host)
        return address is not None and any(address in network for network in self._networks)

    def find_client(self, chain: Sequence[str]) -> str | None:
        """The last address of a chain that is no trusted proxy; None where the chain says nothing usable."""
        found = None
        for entry in reversed(chain):
            host = _without_port(entry)
            if _address(host) is None:
                return found
            found = host
            if not self.has(host):
                return found
        return found


class ProxyHeaders:
    def __init__(self, app: ASGIApp, root_path: str, trusted: Iterable[str]) -> None:
        """`root_path` is the prefix where no trusted proxy names another."""
        self.app = app
        self.root_path = root_path
        self.trusted = TrustedProxies(trusted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            self._apply(scope)
        await self.app(scope, receive, send)

    def _apply(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        scope[DIRECT_HOST] = headers.get("host")
        prefix = self.root_path
        client = scope.get("client")
        if client is not None and self.trusted.has(client[0]):
            prefix = _prefix(_last(headers, "x-forwarded-prefix")) or prefix
            self._believe(scope, headers)
        path: str = scope["path"]
        scope["root_path"] = prefix
        if prefix and path != prefix and not path.startswith(f"{prefix}/"):
            scope["path"] = prefix + path

    def _believe(self, scope: Scope, headers: Headers) -> None:
        scheme = SCHEMES[scope["type"]].get(_last(headers, "x-forwarded-proto").lower())
        if scheme is not None:
            scope["scheme"] = scheme
        host = _last(headers, "x-forwarded-host")
        if HOST.fullmatch(host):
            others = [(name, value) for name, value in scope["headers"] if name != b"host"]
            scope["headers"] = [(b"host", host.encode("ascii")), *others]
        client = self.trusted.find_client(_values(headers, "x-forwarded-for"))
        if client is not None:
            scope["client"] = (client, 0)


def _values(headers: Headers, name: str) -> list[str]:
    """The entries of a list that may span several headers."""
    return [entry.strip() for value in headers.getlist(name) for entry in value.split(",")]


def _last(headers: Headers, name: str) -> str:
    values = _values(headers, name)
    return values[-1] if values else ""


def _prefix(text: str) -> str:
    """A prefix that can stand in links; empty for anything else."""
    try:
        return check_root_path(text)
    except ValueError:
        return ""


def _address(host: str) -> Any:
    """None for what is no IP address. An IPv4 address in an IPv6 one is itself."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _without_port(entry: str) -> str:
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    return entry.partition(":")[0] if entry.count(":") == 1 else entry
