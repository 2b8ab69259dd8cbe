"""Addresses of callbacks: which of them may be called, and where their hosts are.

A host is resolved once, all its addresses are looked at, and the connection is made to the address that was looked at:
a name that means another address a moment later (DNS rebinding) does not help.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from oar_wire.errors import InvalidField
from server.settings import Settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
PORTS = {"http": 80, "https": 443}
NUM_RESOLVERS = 8  # threads: a lookup may take seconds


class AddressRefused(RuntimeError):
    """The host has an address that may not be called."""


@dataclass(frozen=True)
class Target:
    """Where a callback goes. `address` is the host's, looked up and looked at."""

    url: str
    host: str
    port: int
    address: str


def check_callback(url: str | None, settings: Settings) -> str:
    """The address as it is kept, empty for none. Its host is looked up when it is called. Raises InvalidField."""
    if url is None:
        return ""
    try:
        host, _ = _split(url)
        httpx.URL(url)
    except httpx.InvalidURL:
        raise InvalidField(
            "callback_url is no address such as https://host.example/path", field="callback_url"
        ) from None
    except ValueError as error:
        raise InvalidField(f"callback_url is {error}", field="callback_url") from None
    address = _literal(host)
    is_private = host.lower() == "localhost" or (address is not None and not is_public(address))
    if is_private and not settings.callback_private:
        raise InvalidField("callback_url leads to an address that is not public", field="callback_url")
    return url


def _split(url: str) -> tuple[str, int]:
    """Host and port. Raises ValueError, with the end of a sentence."""
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("no address of printable ASCII characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("no address such as https://host.example/path") from None
    if parts.scheme not in PORTS or not parts.hostname or port == 0:
        raise ValueError("no address such as https://host.example/path")
    if "@" in parts.netloc or "\\" in url:
        raise ValueError("an address with a user or a backslash, which is not called")
    return parts.hostname, port or PORTS[parts.scheme]


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_public(address: Address) -> bool:
    """False for loopback, private, link-local, multicast and reserved addresses, also inside an IPv6 address."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is None and address in NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast


class Resolver:
    def __init__(self, *, may_be_private: bool, lookup: Callable[..., Any] = socket.getaddrinfo) -> None:
        """`lookup` is `socket.getaddrinfo`."""
        self._may_be_private = may_be_private
        self._lookup = lookup
        self._threads = ThreadPoolExecutor(NUM_RESOLVERS, thread_name_prefix="resolver")

    async def resolve(self, url: str) -> Target:
        """Raises AddressRefused, OSError, ValueError."""
        host, port = _split(url)

        def look_up() -> list[str]:
            found = self._lookup(host, port, type=socket.SOCK_STREAM)
            return [str(entry[4][0]) for entry in found]

        addresses = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        if not addresses:
            raise OSError("the host has no address")
        # One that is not public among them is enough: a name may be made to mean both.
        if not self._may_be_private and not all(is_public(ipaddress.ip_address(text)) for text in addresses):
            raise AddressRefused("the host has an address that is not public")
        return Target(url, host, port, addresses[0])

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
