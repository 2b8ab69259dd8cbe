"""Signed links of finished pictures: whoever has one opens it without a key, until it expires.

Where keys are asked for, the addresses that `/v1/images/*` answers with end in `&expires=SECONDS&signature=...`, an
HMAC-SHA256 over the tenant, the path of the picture, and the query up to the signature. A link opens that one picture
in that one format, and nothing else. The tenant is not in it: the signature is compared with that of each tenant.

The secret is `OAR_LINK_SECRET`, or a random one that the first API process writes to Redis and all share.
"""

import hashlib
import hmac
import math
import re
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterable

from starlette.types import Scope

from oar_wire.errors import InvalidLink, LinkExpired
from oar_wire.tenant import OPEN_TENANT, Tenant
from server.api.proxy import route_path
from server.jobs import keys
from server.jobs.connection import RedisConnection
from server.jobs.shared_reads import SharedReads
from server.settings import Settings

PICTURE = re.compile(r"/v1/generations/[A-Za-z0-9_-]+/images/[0-9]+")
SIGNATURE = b"&signature="
EXPIRY = re.compile(rb".*&expires=([0-9]{1,12})")
PURPOSE = b"oar picture link 1"  # a signature that the secret makes for anything else is none of a link
SECRET_BYTES = 32
TRUST_SECONDS = 1.0  # that the secret in Redis is remembered: data that was lost took it along


def is_signed(scope: Scope) -> bool:
    """Tells whether a request comes with a signature, good or bad."""
    is_reading = scope["type"] == "http" and scope["method"] in {"GET", "HEAD"}
    return is_reading and SIGNATURE in scope["query_string"] and PICTURE.fullmatch(route_path(scope)) is not None


class PictureLinks:
    def __init__(self, connection: RedisConnection, settings: Settings) -> None:
        self._connection = connection
        self._seconds = settings.link_seconds
        self._given = settings.link_secret.encode() if settings.link_secret else None
        self._known = b""
        self._known_at = -math.inf  # monotonic
        self._reads: SharedReads[str, bytes] = SharedReads(self._read)

    async def prepare(self, tenant: Tenant) -> None:
        """Makes the secret if there is none yet. Raises RedisUnavailable, WritesRefused."""
        if tenant.name != OPEN_TENANT:
            await self._secret()

    async def sign(self, tenant: Tenant, path: str, query: str) -> str:
        """The query of a link to a picture of the tenant. On a server without keys it is not signed.

        Raises RedisUnavailable.
        """
        if tenant.name == OPEN_TENANT:
            return query
        expires = math.ceil(time.time() + self._seconds)
        signed = f"{query}&expires={expires}".encode()
        signature = _signature(await self._secret(), tenant, path, signed)
        return (signed + SIGNATURE + signature).decode()

    async def open(self, scope: Scope, tenants: Iterable[Tenant]) -> Tenant:
        """Finds the tenant whose picture it is. Raises InvalidLink, LinkExpired, RedisUnavailable."""
        signed, _, signature = scope["query_string"].rpartition(SIGNATURE)
        secret, path = await self._secret(), route_path(scope)
        owner: Tenant | None = None
        for tenant in tenants:  # all of them, whichever is right: the time tells nothing
            if hmac.compare_digest(_signature(secret, tenant, path, signed), signature):
                owner = tenant
        expiry = EXPIRY.fullmatch(signed)
        if owner is None or expiry is None:
            raise InvalidLink("this link was not made here, or was changed, or its owner is no longer known")
        if time.time() >= int(expiry[1]):
            raise LinkExpired("this link has expired; whoever has the key can still fetch the picture")
        return owner

    async def derive(self, purpose: bytes, tenant: str) -> bytes:
        """A secret of a tenant's own, for another purpose. Raises RedisUnavailable."""
        return hmac.digest(await self._secret(), b"\n".join((purpose, tenant.encode())), hashlib.sha256)

    async def _secret(self) -> bytes:
        if self._given is not None:
            return self._given
        if time.monotonic() - self._known_at >= TRUST_SECONDS:
            asked_at = time.monotonic()
            self._known = await self._reads.get(keys.LINK_SECRET)
            self._known_at = asked_at
        return self._known

    async def _read(self, key: str) -> bytes:
        found: bytes | None = await self._connection.again("GET", key)
        if found is None:
            await self._connection.again("SET", key, secrets.token_hex(SECRET_BYTES), "NX")
            found = await self._connection.again("GET", key)
        assert found is not None
        return found


def _signature(secret: bytes, tenant: Tenant, path: str, signed: bytes) -> bytes:
    """None of the parts but the last can have a line break in it."""
    message = b"\n".join((PURPOSE, tenant.name.encode(), path.encode(), signed))
    return urlsafe_b64encode(hmac.digest(secret, message, hashlib.sha256)).rstrip(b"=")
