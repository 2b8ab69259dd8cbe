"""State of a client and what it knows of its server, without any I/O: both kinds of connections build on it."""

import contextlib
import ssl
from collections.abc import Generator
from typing import Any

from websockets.exceptions import InvalidProxy

from oar_client.address import Address
from oar_client.errors import BadRequest, ClientClosed
from oar_client.feed import Feed
from oar_client.retry import Attempts, Patience
from oar_wire.errors import InvalidField

CLOSE_SECONDS = 2.0  # for the closing handshake of a websocket, and for cancelling what nobody waits for any more


@contextlib.contextmanager
def proxies_explained(invalid: type[Exception] = InvalidProxy) -> Generator[None]:
    """Guards the opening of connections. `invalid` is raised for the URL of a proxy that cannot be used: by websockets
    InvalidProxy, by httpx ValueError, which TLS raises by a subclass for a certificate, too, and later.

    Raises BadRequest.
    """
    try:
        yield
    except ImportError as error:
        message = (
            "the environment names a SOCKS proxy (ALL_PROXY), which needs: pip install 'httpx[socks]' python-socks"
        )
        raise BadRequest(message, code=InvalidField.code_of("proxy")) from error
    except invalid as error:
        message = f"the environment names a proxy that cannot be used (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY): {error}"
        raise BadRequest(message, code=InvalidField.code_of("proxy")) from error


class Contact:
    def __init__(
        self, address: Address, timeout: float, silence: float, patience: Patience, verify: ssl.SSLContext | bool
    ) -> None:
        """See `Client`."""
        self._address = address
        self._timeout = timeout
        self._silence = silence
        self._patience = patience
        self._verify = verify
        self._was_reached = False
        self._is_closed = False

    def attempts(self) -> Attempts:
        return Attempts(self._patience, has_contact=self._was_reached)

    def feed(self, after: int, timeout: float | None) -> Feed:
        return Feed(after, self.attempts(), silence=self._silence, timeout=timeout)

    def check_open(self) -> None:
        """Raises ClientClosed."""
        if self._is_closed:
            raise ClientClosed("the client is closed")

    @property
    def http_options(self) -> dict[str, Any]:
        """Arguments of httpx' clients."""
        return {
            "base_url": self._address.base_url,
            "headers": self._address.headers,
            "verify": self._verify,
            "timeout": self._timeout,
        }

    def stream_options(self, job_id: str, after: int) -> dict[str, Any]:
        """Arguments of `connect` of websockets."""
        return {
            "uri": self._address.stream(job_id, after),
            "additional_headers": self._address.headers,
            "user_agent_header": None,
            "open_timeout": self._timeout,
            "close_timeout": CLOSE_SECONDS,
            "max_size": None,
            "proxy": None if self._address.is_loopback else True,  # True: as the environment has it
            "ssl": self._verify if isinstance(self._verify, ssl.SSLContext) and self._address.is_secure else None,
        }
