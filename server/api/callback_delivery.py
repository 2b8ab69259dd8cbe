"""One delivery of a callback: to the address that was looked at, signed as the Standard Webhooks specification says."""

import asyncio
import hashlib
import hmac
import ssl
import time
from base64 import b64encode
from dataclasses import dataclass

import httpx

from oar_wire.version import VERSION
from server.api.callback_address import AddressRefused, Resolver, Target
from server.api.links import PictureLinks

PURPOSE = b"oar callback 1"
SEND_SECONDS = 10.0  # for a receiver to be found, to read and to answer


@dataclass(frozen=True)
class Callback:
    job_id: str
    url: str
    tenant: str
    state: str  # that the job ended in
    body: str
    attempts: int  # this one among them


class CallbackDelivery:
    def __init__(self, links: PictureLinks, resolver: Resolver) -> None:
        """`links` derives the secrets of the tenants."""
        self._links = links
        self._resolver = resolver
        self._tls = ssl.create_default_context()

    async def secret(self, tenant: str) -> str:
        """The secret that a tenant's receivers check signatures with. Raises RedisUnavailable."""
        return "whsec_" + b64encode(await self._links.derive(PURPOSE, tenant)).decode()

    async def deliver(self, callback: Callback) -> str:
        """`delivered`, `refused`, or what went wrong: a status or an error's name, and nothing of the receiver's."""
        try:
            async with asyncio.timeout(SEND_SECONDS):
                target = await self._resolver.resolve(callback.url)
                status = await self._post(target, callback)
        except AddressRefused:
            return "refused"
        except (TimeoutError, OSError, ValueError, httpx.HTTPError) as error:
            return type(error).__name__
        return "delivered" if 200 <= status < 300 else str(status)

    async def _post(self, target: Target, callback: Callback) -> int:
        """Sends to the address that was looked at. The answer's body is not read, and no redirect is followed."""
        url = httpx.URL(target.url)
        headers = {
            "Host": url.netloc.decode(),
            "Content-Type": "application/json",
            "User-Agent": f"oar/{VERSION}",
            **await self._signed(callback),
        }
        # A client of its own: no cookie of a receiver is sent to another one.
        async with (
            httpx.AsyncClient(verify=self._tls, trust_env=False, timeout=SEND_SECONDS) as client,
            client.stream(
                "POST",
                url.copy_with(host=target.address),
                headers=headers,
                content=callback.body.encode(),
                extensions={"sni_hostname": target.host},
            ) as response,
        ):
            return response.status_code

    async def _signed(self, callback: Callback) -> dict[str, str]:
        key = await self._links.derive(PURPOSE, callback.tenant)
        message_id, at = f"msg_{callback.job_id}", str(int(time.time()))
        signed = f"{message_id}.{at}.{callback.body}".encode()
        signature = b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
        return {"webhook-id": message_id, "webhook-timestamp": at, "webhook-signature": f"v1,{signature}"}

    def close(self) -> None:
        self._resolver.close()
