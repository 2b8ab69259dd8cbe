"""Outputs of a job: each of a kind, each with its index among those of that kind, and how they are found."""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from oar_wire.base import Sent

OutputKind = Literal["image", "frame", "video"]


@dataclass(frozen=True)
class OutputData:
    """One output with its bytes. `index` counts those of its kind in the job, from 0."""

    kind: OutputKind
    index: int
    media_type: str
    data: bytes

    def __repr__(self) -> str:
        return f"{self.kind} {self.index}, {self.media_type}, {len(self.data)} bytes"


class OutputLink(Sent):
    """The address of an output."""

    kind: OutputKind
    index: int = Field(description="Among the job's outputs of this kind, counted from 0")
    media_type: str
    url: str


def output_path(job_id: str, kind: OutputKind, index: int) -> str:
    """Without a proxy's prefix. A picture keeps the address that it always had."""
    name = f"images/{index}" if kind == "image" else f"outputs/{kind}/{index}"
    return f"/v1/generations/{job_id}/{name}"


def link(job_id: str, kind: OutputKind, index: int, media_type: str) -> OutputLink:
    return OutputLink(kind=kind, index=index, media_type=media_type, url=output_path(job_id, kind, index))
