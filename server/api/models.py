"""`GET /v1/models`: OpenAI's list, with what this server's models can do."""

from typing import Any

from fastapi import APIRouter

from server.api.deps import Shared
from server.schemas.model import ModelInfo

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("")
async def list_models(services: Shared) -> dict[str, Any]:
    default = await services.default_model()
    models = [_entry(info, default) for info in await services.registry.models()]
    return {"object": "list", "data": models}


@router.get("/{name}")
async def show_model(name: str, services: Shared) -> dict[str, Any]:
    return _entry(await services.find_model(name), await services.default_model())


def _entry(info: ModelInfo, default: str | None) -> dict[str, Any]:
    facts = info.model_dump(mode="json", exclude={"name", "created"})
    return {
        "id": info.name,
        "object": "model",
        "created": info.created,
        "owned_by": "oar",
        "is_default": info.name == default,
        "num_tokens": info.num_tokens,
        **facts,
    }
