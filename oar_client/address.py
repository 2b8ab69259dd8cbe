"""Address of the server and who asks: the base URL, its websockets' URLs, the headers."""

import os
from collections.abc import Mapping
from urllib.parse import urlsplit, urlunsplit

from oar_client.errors import BadRequest
from oar_wire.errors import InvalidField, InvalidKey
from oar_wire.loopback import is_loopback_url
from oar_wire.version import VERSION

DEFAULT_URL = "http://127.0.0.1:8000"
USER_AGENT = f"oar-client/{VERSION}"
SCHEMES = {"http": "ws", "https": "wss"}


class Address:
    """`base_url` may have a path, for a server behind a proxy. Raises BadRequest for what is no HTTP address."""

    def __init__(self, base_url: str | None, api_key: str | None) -> None:
        self.base_url = (base_url or os.environ.get("OAR_URL") or DEFAULT_URL).rstrip("/")
        key = api_key or os.environ.get("OAR_API_KEY") or None
        parts = urlsplit(self.base_url)
        if parts.scheme not in SCHEMES or not parts.netloc:
            message = f"{self.base_url!r} is no address; it looks like {DEFAULT_URL}"
            raise BadRequest(message, code=InvalidField.code_of("url"), field="base_url")
        if key is not None and not (key.isascii() and key.isprintable()):
            raise BadRequest("an API key is printable ASCII", code=InvalidKey.code, field="api_key")
        self._socket_base = urlunsplit(parts._replace(scheme=SCHEMES[parts.scheme]))
        self._key = key

    @property
    def is_secure(self) -> bool:
        return self._socket_base.startswith("wss")

    @property
    def is_loopback(self) -> bool:
        return is_loopback_url(self.base_url)

    @property
    def headers(self) -> Mapping[str, str]:
        authorization = {} if self._key is None else {"Authorization": f"Bearer {self._key}"}
        return {"User-Agent": USER_AGENT, **authorization}

    def stream(self, job_id: str, after: int) -> str:
        """The websocket of a job's events numbered above `after`."""
        return f"{self._socket_base}{job_path(job_id)}/stream?after={after}"


def job_path(job_id: str) -> str:
    """Raises BadRequest for an id that would lead elsewhere."""
    if not job_id or not all(char.isascii() and (char.isalnum() or char in "-_") for char in job_id):
        raise BadRequest(f"{job_id[:80]!r} is no job's id", code=InvalidField.code_of("job_id"), field="job_id")
    return f"/v1/generations/{job_id}"
