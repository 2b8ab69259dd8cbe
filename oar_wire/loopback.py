"""Hosts that are this machine alone."""

import ipaddress
from urllib.parse import urlsplit


def is_address(name: str) -> bool:
    """Tells whether a host is written as an IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Tells whether an address to listen on, or to call, is reached from this machine alone."""
    name = host.lower()
    if is_address(name):
        return ipaddress.ip_address(name).is_loopback
    return name == "localhost" or name.endswith(".localhost")


def is_loopback_url(url: str) -> bool:
    """Tells whether a URL means this machine. It is never asked for through a proxy, whatever the environment names."""
    return is_loopback(urlsplit(url).hostname or "")
