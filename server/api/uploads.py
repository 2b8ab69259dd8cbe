"""Uploaded pictures and masks: checked from the outside in, then brought to the one form that a worker reads.

The form is a PNG, transparent where it is painted anew. Nothing is scaled: a picture has the model's size, or says by
`offset` where it lies on the canvas. What lies outside the canvas is cut off here.
"""

import base64
import binascii
import io
from dataclasses import dataclass

from PIL import Image, ImageChops, ImageOps

from oar_wire.edit import EditOptions, num_redrawn, touched_patches
from oar_wire.job import EditParams
from oar_wire.model import ModelInfo
from server.errors import InvalidRequest
from server.settings import Settings

MAGIC = {"PNG": b"\x89PNG\r\n\x1a\n", "JPEG": b"\xff\xd8\xff", "WEBP": b"RIFF"}
MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA"}  # 8 bits a channel or less
MAX_SCANS = 64  # of a JPEG: a progressive one has about ten, and each costs as much as the picture
SCAN = b"\xff\xda"
TRANSPARENT = [255] + [0] * 255  # by alpha
NOT_OPAQUE = [255] * 255 + [0]
PNG_DEPTH = 24  # offset of the bits a channel in a PNG


@dataclass(frozen=True)
class Source:
    """The picture that an edit starts from."""

    png: bytes
    params: EditParams


@dataclass(frozen=True)
class Upload:
    """Bytes as they came, and the field that they came in."""

    data: bytes
    field: str

    def refuse(self, why: str) -> InvalidRequest:
        return InvalidRequest(f"invalid_{self.field}", f"the {self.field} {why}", field=self.field)


def from_base64(text: str, field: str) -> Upload:
    """Base64, or a `data:` URL of it. Raises InvalidRequest."""
    _, comma, tail = text.partition(",") if text.startswith("data:") else ("", "", "")
    try:
        return Upload(base64.b64decode(tail if comma else text, validate=True), field)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(f"invalid_{field}", f"the {field} is no base64", field=field) from error


def prepare(image: Upload, mask: Upload | None, options: EditOptions, model: ModelInfo, settings: Settings) -> Source:
    """Raises InvalidRequest. Takes CPU time: to be run in a thread."""
    if options.offset is not None:
        return _outpaint(image, mask, options, model, settings)
    height, width = model.image_size
    picture = _open(image, settings)
    if picture.size != (width, height):
        raise image.refuse(
            f"has {_size(picture)} pixels; {model.name} paints {model.size}, and nothing is scaled: "
            "crop or scale it yourself, or say by offset where it lies on the canvas"
        )
    region = _region(picture, mask, options, settings)
    translucent = picture.getchannel("A").point(NOT_OPAQUE)
    if ImageChops.subtract(translucent, region).getbbox() is not None:
        raise image.refuse("has transparent pixels outside the mask, and painted pictures are opaque")
    touched = _count_patches(region, model)
    drawn = num_redrawn(touched, options.strength)
    picture.putalpha(ImageChops.invert(region))
    mode = "inpaint" if options.strength is None else "vary"
    return Source(
        _png(picture),
        EditParams(
            mode=mode,
            strength=1.0 if options.strength is None else options.strength,
            feather=options.feather,
            num_kept=model.num_tokens - drawn,
        ),
    )


def _region(picture: Image.Image, mask: Upload | None, options: EditOptions, settings: Settings) -> Image.Image:
    """255 where the picture is painted anew, else 0."""
    if mask is None:
        region = _transparent(picture)
        if region.getbbox() is None:
            if options.strength is None:
                raise InvalidRequest(
                    "missing_field", "send a mask, or an image whose pixels of alpha 0 are to be painted", field="mask"
                )
            return Image.new("L", picture.size, 255)
        return region
    if not mask.data.startswith(MAGIC["PNG"]):
        raise mask.refuse("is no PNG")
    opened = _open(mask, settings)
    if opened.size != picture.size:
        raise mask.refuse(
            f"has {opened.size[0]}x{opened.size[1]} pixels, the image {picture.size[0]}x{picture.size[1]}"
        )
    region = _transparent(opened)
    if region.getbbox() is None:
        raise mask.refuse("has no pixel of alpha 0, so that nothing would be painted")
    return region


def _outpaint(image: Upload, mask: Upload | None, options: EditOptions, model: ModelInfo, settings: Settings) -> Source:
    assert options.offset is not None
    for field, value in (("mask", mask), ("strength", options.strength)):
        if value is not None:
            message = f"{field} does not go with offset, which paints all that is around the picture"
            raise InvalidRequest(f"invalid_{field}", message, field=field)
    picture = _open(image, settings)
    if _transparent(picture).getbbox() is not None or picture.getchannel("A").getextrema() != (255, 255):
        raise image.refuse("has transparent pixels; a picture that is painted around has to be opaque")
    (height, width), (down, right) = model.image_size, options.offset
    box = (max(0, -right), max(0, -down), min(picture.width, width - right), min(picture.height, height - down))
    if box[0] >= box[2] or box[1] >= box[3]:
        raise InvalidRequest("invalid_offset", f"the image does not lie on the {model.size} canvas", field="offset")
    visible = picture.crop(box)
    down, right = max(0, down), max(0, right)
    region = Image.new("L", (width, height), 255)
    region.paste(0, (right, down, right + visible.width, down + visible.height))
    touched = _count_patches(region, model)
    if not touched:
        raise InvalidRequest(
            "invalid_offset", "the image fills the whole canvas: nothing is left to paint", field="offset"
        )
    return Source(
        _png(visible),
        EditParams(mode="outpaint", offset=(down, right), feather=options.feather, num_kept=model.num_tokens - touched),
    )


def _open(upload: Upload, settings: Settings) -> Image.Image:
    """RGBA, upright. Raises InvalidRequest."""
    kind = _check_outside(upload, settings)
    try:
        with Image.open(io.BytesIO(upload.data), formats=[kind]) as picture:
            _check_pixels(upload, picture.size, settings)
            if getattr(picture, "n_frames", 1) > 1:
                raise upload.refuse("is animated; send a single picture")
            if picture.mode not in MODES:
                raise upload.refuse(f"is of the mode {picture.mode}; send 8 bit grey, palette, RGB or RGBA")
            return ImageOps.exif_transpose(picture).convert("RGBA")
    except InvalidRequest:
        raise
    except Exception as error:
        raise upload.refuse("cannot be decoded") from error


def _check_outside(upload: Upload, settings: Settings) -> str:
    """What can be told without a decoder. Returns the format."""
    data = upload.data
    if len(data) > settings.max_image_bytes:
        raise upload.refuse(f"has {len(data)} bytes; the limit is {settings.max_image_bytes}")
    kind = next((kind for kind, magic in MAGIC.items() if data.startswith(magic)), None)
    if kind is None or (kind == "WEBP" and data[8:12] != b"WEBP"):
        raise upload.refuse("is no PNG, WebP or JPEG")
    if kind == "WEBP":
        # Pillow's decoder takes memory for the whole canvas as soon as it is opened.
        _check_pixels(upload, _webp_size(data), settings)
    if kind == "PNG" and data[PNG_DEPTH : PNG_DEPTH + 1] == b"\x10":
        raise upload.refuse("has 16 bits a channel; send 8")
    if kind == "JPEG" and data.count(SCAN) > MAX_SCANS:
        raise upload.refuse("has too many scans")
    return kind


def _check_pixels(upload: Upload, size: tuple[int, int], settings: Settings) -> None:
    if size[0] * size[1] > settings.max_image_pixels:
        raise upload.refuse(f"has {size[0]}x{size[1]} pixels; the limit is {settings.max_image_pixels} in all")


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height as the header says; (0, 0) for one that Pillow will refuse."""
    match data[12:16]:
        case b"VP8X":
            return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
        case b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case b"VP8 ":
            return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
        case _:
            return 0, 0


def _transparent(picture: Image.Image) -> Image.Image:
    """255 where alpha is 0, else 0."""
    return picture.getchannel("A").point(TRANSPARENT)


def _count_patches(region: Image.Image, model: ModelInfo) -> int:
    """Patches of the grid that the region touches."""
    return sum(touched_patches(region.tobytes(), model.image_size, model.grid))


def _size(picture: Image.Image) -> str:
    return f"{picture.width}x{picture.height}"


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
