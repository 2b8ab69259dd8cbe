"""Addresses of callbacks: none leads into the network of the server, whatever its name means."""

import ipaddress
import socket
from typing import Any

import pytest

from oar_wire.errors import InvalidField
from server.api.callback_address import AddressRefused, Resolver, check_callback, is_public
from server.settings import Settings

pytestmark = pytest.mark.anyio

NOT_PUBLIC = [
    *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1"),
    *("224.0.0.1", "255.255.255.255", "198.18.0.1", "::1", "::", "fe80::1", "fc00::1", "ff02::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "64:ff9b::7f00:1", "2002:7f00:1::", "2002:a00:1::1"),
]
PUBLIC = ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"]


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_what_is_not_public(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))
    host = f"[{text}]" if ":" in text else text
    with pytest.raises(InvalidField, match="not public"):
        check_callback(f"https://{host}/x", Settings())
    assert check_callback(f"https://{host}/x", Settings(callback_private=True))


@pytest.mark.parametrize("text", PUBLIC)
def test_what_is_public(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))
    host = f"[{text}]" if ":" in text else text
    assert check_callback(f"http://{host}:8080/x?y=z", Settings()) == f"http://{host}:8080/x?y=z"


@pytest.mark.parametrize(
    "url",
    [
        *("", "/x", "ftp://host.example/", "file:///etc/passwd", "gopher://host.example/", "https://", "https:///x"),
        *("https://user:word@host.example/", "https://host.example:0/", "https://host.example:70000/"),
        *("https://host.example\\@127.0.0.1/", "https://host.exa mple/", "https://host.example/\r\nX: y", "https://höst.example/"),
        *("http://[::1", "http://localhost/", "http://LOCALHOST:8000/"),
    ],
)  # fmt: skip
def test_what_is_no_address_of_a_callback(url: str) -> None:
    with pytest.raises(InvalidField, match="callback_url"):
        check_callback(url, Settings())


def names(*addresses: str) -> Any:
    """A lookup that knows one answer."""

    def look_up(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    return look_up


async def test_a_name_is_looked_up_once_and_all_its_addresses_are_looked_at() -> None:
    target = await Resolver(may_be_private=False, lookup=names("8.8.8.8")).resolve("https://host.example/x")
    assert (target.host, target.port, target.address) == ("host.example", 443, "8.8.8.8")
    for addresses in (("127.0.0.1",), ("8.8.8.8", "10.0.0.1"), ("::ffff:10.0.0.1",)):
        with pytest.raises(AddressRefused):
            await Resolver(may_be_private=False, lookup=names(*addresses)).resolve("https://host.example/x")
    with pytest.raises(OSError, match="no address"):
        await Resolver(may_be_private=False, lookup=names()).resolve("https://host.example/x")
    target = await Resolver(may_be_private=True, lookup=names("10.0.0.1")).resolve("http://host.example/x")
    assert target.address == "10.0.0.1"


@pytest.mark.parametrize("text", ["2130706433", "0x7f000001", "017700000001", "127.1", "localhost"])
async def test_other_ways_to_write_loopback(text: str) -> None:
    """The system's own lookup knows them."""
    with pytest.raises((AddressRefused, OSError)):
        await Resolver(may_be_private=False).resolve(f"http://{text}/x")
