"""Places where a key travels: `Authorization: Bearer KEY`, or as a subprotocol where a browser opens a websocket.

A browser cannot set headers there, and an address is no place for a secret: it is logged and kept. So the client offers
`["oar.v1", "oar.key." + base64url(KEY) without padding]`, and the server answers `oar.v1`.
"""

import base64
import binascii

from starlette.types import Scope

PROTOCOL = "oar.v1"
KEY_PROTOCOL = "oar.key."


def read_header(scope: Scope, name: bytes) -> str | None:
    """The first of that name, as text; None where there is none."""
    values = (value for known, value in scope["headers"] if known == name)
    found: bytes | None = next(values, None)
    return None if found is None else found.decode("latin-1")


def read_key(scope: Scope) -> str | None:
    """The key of an HTTP request or a websocket, unchecked; None where none was sent."""
    kind, _, key = (read_header(scope, b"authorization") or "").partition(" ")
    if kind.lower() == "bearer" and key.strip():
        return key.strip()
    for offer in scope.get("subprotocols", ()):
        if offer.startswith(KEY_PROTOCOL):
            return _decode(offer.removeprefix(KEY_PROTOCOL))
    return None


def choose_protocol(scope: Scope) -> str | None:
    """The one that is answered: never the one that holds the key."""
    return PROTOCOL if PROTOCOL in scope.get("subprotocols", ()) else None


def _decode(text: str) -> str:
    """Empty for what is no base64url: a key that nobody has."""
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, ValueError):
        return ""
