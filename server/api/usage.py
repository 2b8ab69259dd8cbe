"""`GET /v1/usage`: what a tenant has used."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from oar_wire.base import Sent
from oar_wire.errors import InvalidDays
from server.api import documents
from server.api.deps import Shared
from server.jobs.usage import DayUsage

router = APIRouter(prefix="/v1/usage", tags=["usage"])

MOST_DAYS = 31


class UsageEntry(Sent):
    """Jobs that ended on one day of UTC."""

    day: str = Field(description="As 2026-12-01")
    completed: int = Field(description="Jobs")
    failed: int = Field(description="Jobs")
    canceled: int = Field(description="Jobs")
    pictures: int = Field(description="Finished pictures or videos")
    steps: int = Field(description="Decode steps of all pictures, of failed and canceled jobs too")
    seconds: float = Field(description="From the start of each job to its end")


class UsageList(Sent):
    object: Literal["list"] = "list"
    data: list[UsageEntry] = Field(description="The newest day first")


@router.get(
    "",
    summary="See what you have used",
    response_model=UsageList,
    responses=documents.errors(InvalidDays),
)
async def usage(
    services: Shared,
    days: Annotated[int, Query(ge=1, le=MOST_DAYS, description="Number of days, with today")] = 1,
) -> UsageList:
    """Your own jobs, counted when they end, by days of UTC."""
    return UsageList(data=[_entry(day) for day in await services.usage.read(services.tenant.name, days)])


def _entry(usage: DayUsage) -> UsageEntry:
    return UsageEntry.model_validate({**vars(usage), "day": usage.day.isoformat()})
