"""`GET /v1/models`: OpenAI's list, with what this server's models can do."""

from typing import Annotated

from fastapi import APIRouter, Path

from oar_wire.model import ModelEntry, ModelInfo, ModelList, describe_options
from server.api import documents
from server.api.deps import Shared

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", summary="List the models", response_model=ModelList, responses=documents.errors())
async def list_models(services: Shared) -> ModelList:
    """Those that a worker has, with what each can do."""
    default = await services.default_model()
    return ModelList(data=[_entry(info, default) for info in await services.registry.models()])


@router.get(
    "/{name}", summary="Look at a model", response_model=ModelEntry, responses=documents.errors(*documents.MODEL)
)
async def show_model(name: Annotated[str, Path(examples=["sprites-64"])], services: Shared) -> ModelEntry:
    """Its grid and sizes, orders, defaults and example prompts."""
    return _entry(await services.find_model(name), await services.default_model())


def _entry(info: ModelInfo, default: str | None) -> ModelEntry:
    return ModelEntry(
        **info.model_dump(exclude={"name", "condition"}),
        id=info.name,
        is_default=info.name == default,
        num_tokens=info.num_tokens,
        sizes=(info.size,),
        options=describe_options(info),
    )
