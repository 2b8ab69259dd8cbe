"""Finished pictures on their way out: PNGs are stored, other formats are made when they are asked for."""

import io
import json
import struct
import zlib
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image

from server.schemas.generation import GenerationParams
from server.schemas.images import OutputFormat

KEYWORD = "oar"  # of the text chunk
NOT_OF_THE_PICTURE = {"n", "previews", "priority", "deadline", "partial_images"}
HEADER_END = 33  # a PNG's signature and its IHDR chunk
MEDIA_TYPES: dict[OutputFormat, str] = {"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"}


@dataclass(frozen=True)
class Rendition:
    """How a picture is wanted: `compression` is the quality of WebP and JPEG, `metadata` a text chunk in PNGs."""

    format: OutputFormat = "png"
    compression: int = 100
    metadata: bool = True

    @property
    def query(self) -> str:
        option = f"metadata={str(self.metadata).lower()}" if self.format == "png" else f"compression={self.compression}"
        return f"format={self.format}&{option}"


def render(png: bytes, wanted: Rendition, recipe: dict[str, Any]) -> bytes:
    """`recipe` goes into the text chunk."""
    if wanted.format == "png":
        return _with_text(png, json.dumps(recipe)) if wanted.metadata else png
    return reencode(png, wanted.format, wanted.compression)


def reencode(picture: bytes, kind: Literal["png", "webp", "jpeg"], compression: int) -> bytes:
    buffer = io.BytesIO()
    options = {} if kind == "png" else {"quality": max(1, compression)}  # 0 stands for the library's own choice
    with Image.open(io.BytesIO(picture)) as opened:
        opened.convert("RGB").save(buffer, kind.upper(), **options)
    return buffer.getvalue()


def recipe(params: GenerationParams, index: int) -> dict[str, Any]:
    """All that makes this picture again, by the same build on the same kind of device."""
    return {
        "image": index,
        **params.model_dump(mode="json", exclude=NOT_OF_THE_PICTURE, exclude_none=True),
    }


def _with_text(png: bytes, text: str) -> bytes:
    """Puts a tEXt chunk behind the header, without touching the pixels; `text` is ASCII."""
    body = b"tEXt" + KEYWORD.encode() + b"\0" + text.encode("ascii")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png[:HEADER_END] + chunk + png[HEADER_END:]
