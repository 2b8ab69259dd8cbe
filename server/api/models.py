"""`GET /v1/models`: OpenAI's list, with what this server's models can do."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Path

from oar_wire.model import ClassList, ModelEntry, ModelInfo, ModelList, WorkerInfo, describe_options
from server.api import documents
from server.api.deps import Services, Shared
from server.jobs.estimate import Fleet

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", summary="List the models", response_model=ModelList, responses=documents.errors(openai=True))
async def list_models(services: Shared) -> ModelList:
    """Lists models that workers serve or have served lately, with what each can do."""
    default = await services.default_model()
    workers = await services.recent.workers()
    return ModelList(data=[_entry(services, info, default, workers) for info in await services.registry.models()])


@router.get(
    "/{name}/classes",
    summary="List a model's classes",
    response_model=ClassList,
    responses=documents.errors(*documents.MODEL, openai=True),
)
async def list_classes(name: Annotated[str, Path(examples=["sprites-64"])], services: Shared) -> ClassList:
    """Their names by number; none for a model that reads prompts."""
    classes = await services.prompts.classes(await services.find_model(name))
    return ClassList(data=() if classes is None else classes.names)


@router.get(
    "/{name}",
    summary="Look at a model",
    response_model=ModelEntry,
    responses=documents.errors(*documents.MODEL, openai=True),
)
async def show_model(name: Annotated[str, Path(examples=["sprites-64"])], services: Shared) -> ModelEntry:
    """Its grid and sizes, orders, defaults and example prompts."""
    info = await services.find_model(name)
    return _entry(services, info, await services.default_model(), await services.recent.workers())


def _entry(services: Services, info: ModelInfo, default: str | None, workers: Sequence[WorkerInfo]) -> ModelEntry:
    aliases = services.settings.model_aliases
    return ModelEntry(
        **info.model_dump(exclude={"name", "accepts", "layout", "can_vary"}),
        layout=info.known_layout,
        can_vary=info.can_edit or info.can_vary,
        id=info.name,
        is_default=info.name == default,
        aliases=tuple(sorted(alias for alias, name in aliases.items() if name == info.name)),
        num_tokens=info.num_tokens,
        sizes=(info.size,),
        workers=len(Fleet.of(info.name, workers).workers),
        options=describe_options(info),
    )
