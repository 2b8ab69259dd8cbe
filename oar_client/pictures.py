"""Pictures on their way in and out."""

import io
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from oar_client.errors import BadRequest
from oar_client.facts import JobView
from oar_wire import outputs as wire
from oar_wire.errors import InvalidField
from oar_wire.job import GenerationStatus, Timings
from oar_wire.openai import OutputFormat


class PillowImage(Protocol):
    """Used part of `PIL.Image.Image`; Pillow need not be installed."""

    def save(self, fp: Any, format: str | None = None) -> None: ...  # noqa: A002


PictureSource: TypeAlias = bytes | str | os.PathLike[str] | PillowImage
"""The bytes of a PNG, WebP or JPEG, the path of one, or Pillow's image."""


def read_source(source: PictureSource, name: str) -> bytes:
    """Raises OSError for a path that cannot be read, BadRequest for what is no picture at all."""
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if isinstance(source, str | os.PathLike):
        return Path(source).read_bytes()
    pillow = sys.modules.get("PIL.Image")  # whoever has such an image has imported it
    if pillow is not None and isinstance(source, pillow.Image):
        buffer = io.BytesIO()
        source.save(buffer, "PNG")
        return buffer.getvalue()
    raise BadRequest(
        f"the {name} is no path, no bytes and no Pillow image", code=InvalidField.code_of(name), field=name
    )


class _Encoded:
    """Output of a job, as the bytes of a file."""

    data: bytes

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the bytes as they are: the suffix changes nothing. Returns the path."""
        target = Path(path)
        target.write_bytes(self.data)
        return target

    def to_pil(self) -> Any:
        """A `PIL.Image.Image`. Raises ModuleNotFoundError where Pillow is not installed."""
        from PIL import Image

        opened = Image.open(io.BytesIO(self.data))
        opened.load()
        return opened


@dataclass(frozen=True)
class Picture(_Encoded):
    """One finished picture, encoded."""

    index: int
    format: OutputFormat
    data: bytes

    def __repr__(self) -> str:
        return f"Picture(index={self.index}, format={self.format!r}, {len(self.data)} bytes)"


@dataclass(frozen=True, repr=False)
class Output(_Encoded, wire.OutputData):
    """One output of any kind, as it was made. `media_type` tells what its bytes are."""


@dataclass(frozen=True, repr=False)
class FrameOutput(Output):
    """A frame of a video."""

    image: int  # index of the video within the request
    frame: int  # of the video, counted from 0


@dataclass(frozen=True)
class Generation(JobView):
    """A job that completed, with its pictures, or the videos of a model that makes frames."""

    status: GenerationStatus
    images: tuple[Picture, ...]
    videos: tuple[Output, ...] = ()

    def __repr__(self) -> str:
        made = f"videos={list(self.videos)}" if self.videos else f"images={list(self.images)}"
        return f"Generation(job_id={self.job_id!r}, seed={self.seed}, {made})"

    @property
    def job_id(self) -> str:
        return self.id

    @property
    def timings(self) -> Timings:
        return self.status.timings

    @property
    def image(self) -> Picture:
        """The first one."""
        return self.images[0]

    @property
    def video(self) -> Output:
        """The first one."""
        return self.videos[0]

    def save(self, path: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Writes all pictures, or all videos; with several, their index is put into the name: out.png, or out-0.png,
        out-1.png."""
        target, files = Path(path), self.videos or self.images
        if len(files) == 1:
            return (files[0].save(target),)
        return tuple(made.save(target.with_stem(f"{target.stem}-{made.index}")) for made in files)
