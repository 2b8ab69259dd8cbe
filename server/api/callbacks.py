"""`/v1/callbacks`: what a receiver of callbacks has to know."""

from fastapi import APIRouter
from pydantic import Field

from oar_wire.base import Sent
from server.api import documents
from server.api.deps import Shared

router = APIRouter(prefix="/v1/callbacks", tags=["callbacks"])


class CallbackSecret(Sent):
    secret: str = Field(description="`whsec_` and the secret in base64: the key of the HMAC-SHA256 of each signature")


@router.get(
    "/secret",
    summary="Get the secret of your callbacks' signatures",
    response_model=CallbackSecret,
    responses=documents.errors(),
)
async def secret(services: Shared) -> CallbackSecret:
    """It is your own, and stays the same as long as the server's secret (OAR_LINK_SECRET) does."""
    return CallbackSecret(secret=await services.callbacks.delivery.secret(services.tenant.name))
