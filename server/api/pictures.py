"""Finished pictures on their way out: PNGs are stored, other formats are made when they are asked for."""

import io
import json
import struct
import zlib
from dataclasses import dataclass
from typing import Any, Literal, cast

from PIL import Image

from oar_wire.events import Completed, Fingerprint
from oar_wire.job import GenerationParams
from oar_wire.openai import OutputFormat
from oar_wire.tenant import Tenant
from server.api.thread_pool import FairThreadPool
from server.jobs.job import JobRecord

KEYWORD = "oar"  # of the text chunk
# What others call it. The rest has its own name.
LABELS = {
    "steps": "Steps",
    "order": "Sampler",
    "guidance": "CFG scale",
    "seed": "Seed",
    "model_hash": "Model hash",
    "model": "Model",
}
TOLD_APART = {"prompt", "negative_prompt", "fingerprint", *LABELS}
NOT_OF_THE_PICTURE = {"n", "previews", "priority", "deadline", "partial_images", "frames"}
HEADER_END = 33  # a PNG's signature and its IHDR chunk
MEDIA_TYPES: dict[OutputFormat, str] = {"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"}


@dataclass(frozen=True)
class Rendition:
    """Format of a picture: `compression` is the quality of WebP and JPEG, `metadata` text chunks in PNGs."""

    format: OutputFormat = "png"
    compression: int = 100
    metadata: bool = True

    @property
    def query(self) -> str:
        option = f"metadata={str(self.metadata).lower()}" if self.format == "png" else f"compression={self.compression}"
        return f"format={self.format}&{option}"


def render(png: bytes, rendition: Rendition, recipe: dict[str, Any]) -> bytes:
    """`recipe` goes into the text chunks of a PNG, and nowhere else."""
    if rendition.format == "png":
        return _with_texts(png, recipe) if rendition.metadata else png
    return reencode(png, rendition.format, rendition.compression)


async def render_in(
    threads: FairThreadPool,
    tenant: Tenant,
    png: bytes,
    rendition: Rendition,
    recipe: dict[str, Any],
    *,
    is_accepted: bool = False,
) -> bytes:
    """Renders in a thread unless it is a PNG, whose pixels are not encoded again.

    Raises PictureShareFull and PictureQueueFull, but for an answer to a request whose job was accepted before.
    """
    if rendition.format == "png":
        return render(png, rendition, recipe)
    run = threads.run_accepted if is_accepted else threads.run
    return await run(tenant, render, png, rendition, recipe)


def reencode(picture: bytes, kind: Literal["png", "webp", "jpeg"], compression: int) -> bytes:
    buffer = io.BytesIO()
    options = {} if kind == "png" else {"quality": max(1, compression)}  # 0 stands for the library's own choice
    with Image.open(io.BytesIO(picture)) as opened:
        opened.convert("RGB").save(buffer, kind.upper(), **options)
    return buffer.getvalue()


def recipe(params: GenerationParams, index: int, fingerprint: Fingerprint | None) -> dict[str, Any]:
    """All that makes this picture again, by the same build on the same kind of device, which `fingerprint` tells."""
    return {
        "image": index,
        **params.model_dump(mode="json", exclude=NOT_OF_THE_PICTURE, exclude_none=True),
        **({"fingerprint": fingerprint.model_dump(mode="json")} if fingerprint else {}),
    }


def recipe_of(job: JobRecord, index: int) -> dict[str, Any]:
    """Recipe of a completed job's picture."""
    return recipe(job.params, index, Completed.model_validate_json(job.result).fingerprint)


def parameters(recipe: dict[str, Any]) -> str:
    """The recipe as the text that other programs for generated pictures show and search: a line for the prompt, one for
    the negative prompt where there is one, and one of pairs."""
    pairs = {label: recipe[name] for name, label in LABELS.items() if name in recipe}
    rest = {name.replace("_", " ").capitalize(): value for name, value in recipe.items() if name not in TOLD_APART}
    labels = {**pairs, **rest, **({"Fingerprint": _one_line(recipe["fingerprint"])} if "fingerprint" in recipe else {})}
    negative = [f"Negative prompt: {recipe['negative_prompt']}"] if recipe.get("negative_prompt") else []
    words = ", ".join(f"{name}: {_one_line(value)}" for name, value in labels.items())
    return "\n".join((recipe["prompt"], *negative, words))


def _one_line(value: Any) -> str:
    """Without the comma that separates pairs."""
    if isinstance(value, dict):
        return " ".join(str(part) for part in cast("dict[str, Any]", value).values())
    return " ".join(map(str, cast("list[Any]", value))) if isinstance(value, list) else str(value)


def _with_texts(png: bytes, recipe: dict[str, Any]) -> bytes:
    """Puts text chunks behind the header, without touching the pixels: JSON for programs, and `parameters`."""
    facts = _chunk(b"tEXt", KEYWORD.encode() + b"\0" + json.dumps(recipe).encode("ascii"))
    # Not compressed, no language, no translated keyword.
    words = _chunk(b"iTXt", b"parameters" + bytes(5) + parameters(recipe).encode())
    return png[:HEADER_END] + facts + words + png[HEADER_END:]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
