"""Uploaded pictures and masks: checked from the outside in, then brought to the one form that a worker reads.

The form is a PNG, transparent where it is painted anew. Nothing is scaled: a picture has the model's size, or says by
`offset` where it lies on the canvas. What lies outside the canvas is cut off here.
"""

import base64
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from PIL import Image, ImageChops

from oar_wire.edit import EditSettings, edit_steps, kept_prefix, num_redrawn, touched_patches
from oar_wire.errors import InvalidField, InvalidRequest, MissingField
from oar_wire.job import EditParams, GenerationParams
from oar_wire.model import ModelInfo
from server.api.image_files.image_file import ImageFile, MalformedImage
from server.api.image_files.reader import read_image_file
from server.api.validation import check_edits
from server.settings import Settings

OPAQUE_FROM = 250  # of alpha: lossy formats and editors leave opaque pixels a little below 255
# Tables by alpha, for Image.point.
TRANSPARENT = [255] + [0] * 255
NOT_OPAQUE = [255] * OPAQUE_FROM + [0] * (256 - OPAQUE_FROM)

ANIMATED = "is animated; send a single picture"
MAX_SCANS = 64  # of a JPEG of any size: a progressive one has about ten
MAX_LARGE_SCANS = 16  # of a JPEG of max_image_pixels: each scan costs as much as the pixels
# How a picture is turned upright, by its EXIF orientation.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
DATA_URL = re.compile(r"data:([^,]*),", re.IGNORECASE)
ADDRESS = re.compile(r"\s*(https?|ftp|file|blob|s3|gs)://", re.IGNORECASE)
STANDARD = bytes.maketrans(b"-_", b"+/")
FORGIVEN = b" \t\r\n\f"
MAX_ESCAPES = 1 << 19  # of a URL: each costs as much as a hundred characters; a picture of 4 MiB may have half as many
SLICE_BYTES = 64 << 10  # of base64 that is decoded at a time; whole groups of four


@dataclass(frozen=True)
class EditSource:
    """The picture that an edit starts from."""

    png: bytes
    params: EditParams


@dataclass(frozen=True)
class Upload:
    """Bytes as they came, and the field that they came in."""

    data: bytes
    field: str

    def refuse(self, why: str) -> InvalidRequest:
        return InvalidField(f"the {self.field} {why}", field=self.field)


def from_base64(text: str, field: str) -> Upload:
    """Base64 or a `data:` URL of it, as forgiving as browsers: line breaks, padding left out, the URL-safe alphabet.

    Raises InvalidRequest.
    """

    def refuse(why: str) -> InvalidRequest:
        return InvalidField(f"the {field} {why}", field=field)

    if ADDRESS.match(text):
        raise refuse("is an address, and this server fetches none: send base64, a data: URL or a file")
    url = DATA_URL.match(text)
    if url is not None:
        if not url[1].lower().replace(" ", "").endswith(";base64"):
            raise refuse("is a data: URL without ;base64")
        if text.count("%") > MAX_ESCAPES:
            raise refuse(f"has more than {MAX_ESCAPES} percent signs; base64 needs none")
        text = _unescape(text[url.end() :])
    try:
        sent = text.strip().encode("ascii")
        if _has_lost_plus(sent):
            raise refuse("is no base64: it has spaces, which a form makes of + unless it is sent as %2B")
        return Upload(_decode_base64(sent), field)
    except ValueError as error:
        raise refuse("is no base64") from error


def _unescape(text: str) -> str:
    """Works in slices: the pieces between two escapes take many times the memory of the text."""
    parts: list[str] = []
    start = 0
    while start < len(text):
        end = start + SLICE_BYTES
        cut = text.rfind("%", end - 2, end)
        end = cut if cut >= 0 and end < len(text) else end  # not within an escape
        parts.append(unquote(text[start:end]))
        start = end
    return "".join(parts)


def _decode_base64(sent: bytes) -> bytes:
    """Works in slices: a call holds Python's lock from its beginning to its end, and others wait for it.

    Raises ValueError.
    """
    cleaned = (part.translate(STANDARD, FORGIVEN) for part in _slices(sent))
    body = b"".join(cleaned).rstrip(b"=")
    if b"=" in body:
        raise ValueError("padding before the end")
    padded = body + b"=" * (-len(body) % 4)
    return b"".join(base64.b64decode(part, validate=True) for part in _slices(padded))


def _slices(data: bytes) -> Iterator[bytes]:
    return (data[start : start + SLICE_BYTES] for start in range(0, len(data), SLICE_BYTES))


def _has_lost_plus(text: bytes) -> bool:
    """Tells whether the spaces of one line lie elsewhere than between pieces of one length, as a shell joins lines."""
    piece = text.find(b" ")
    return piece >= 0 and b"\n" not in text and text[piece :: piece + 1].count(b" ") != text.count(b" ")


def with_edit(params: GenerationParams, source: EditSource, model: ModelInfo) -> GenerationParams:
    """The parameters of an edit: it has no more steps than it has tokens to draw, unless their number is fixed."""
    if model.has_fixed_steps:
        return params.model_copy(update={"edit": source.params})
    steps = edit_steps(params.steps, model.num_tokens - source.params.num_kept)
    return params.model_copy(update={"edit": source.params, "steps": steps})


def prepare(
    image: Upload, mask: Upload | None, options: EditSettings, model: ModelInfo, settings: Settings
) -> EditSource:
    """Raises InvalidRequest. Takes CPU time: to be run in a thread.

    Sizes are checked before a pixel is decoded: but for an outpainting, only pictures of the model's size are.
    """
    is_variation = options.strength is not None and options.offset is None and mask is None
    check_edits(model, is_variation=is_variation)
    if options.offset is not None:
        return _outpaint(image, mask, options, model, settings)
    height, width = model.image_size
    file, mask_file = _read(image, settings), None if mask is None else _read(mask, settings)
    if file.upright_size != (width, height):
        raise image.refuse(
            f"has {_size(file)} pixels; {model.name} paints {model.size}, and nothing is scaled: "
            "crop or scale it yourself, or say by offset where it lies on the canvas"
        )
    if mask is not None and mask_file is not None and mask_file.upright_size != file.upright_size:
        raise mask.refuse(f"has {_size(mask_file)} pixels, the image {_size(file)}")
    picture = _decode(image, file)
    if not model.can_edit:
        return _whole_variation(image, picture, options, model)
    if mask is None or mask_file is None:
        region = _own_region(picture, options)
    else:
        region = _mask_region(mask, mask_file)
        translucent = picture.getchannel("A").point(NOT_OPAQUE)
        if ImageChops.subtract(translucent, region).getbbox() is not None:
            raise image.refuse("has transparent pixels outside the mask, and painted pictures are opaque")
    touched = _count_patches(region, model)
    drawn = num_redrawn(touched, options.strength)
    picture.putalpha(ImageChops.invert(region))
    mode = "inpaint" if options.strength is None else "vary"
    return EditSource(
        _png(picture),
        EditParams(
            mode=mode,
            strength=1.0 if options.strength is None else options.strength,
            feather=options.feather,
            num_kept=model.num_tokens - drawn,
        ),
    )


def _whole_variation(image: Upload, picture: Image.Image, options: EditSettings, model: ModelInfo) -> EditSource:
    """Raises InvalidRequest."""
    if picture.getchannel("A").point(NOT_OPAQUE).getbbox() is not None:
        raise image.refuse(f"has transparent pixels, and {model.name} varies whole pictures")
    strength = options.strength
    assert strength is not None, "anything else was refused"
    kept = kept_prefix(model.known_layout.shape, strength)
    picture.putalpha(0)
    return EditSource(_png(picture), EditParams(mode="vary", strength=strength, feather=options.feather, num_kept=kept))


def _own_region(picture: Image.Image, options: EditSettings) -> Image.Image:
    """255 where the picture is not opaque, else 0; all 255 for a variation of an opaque one."""
    region = picture.getchannel("A").point(NOT_OPAQUE)
    if region.getbbox() is not None:
        return region
    if options.strength is None:
        message = "send a mask, or an image whose transparent pixels are to be painted"
        raise MissingField(message, field="mask")
    return Image.new("L", picture.size, 255)


def _mask_region(mask: Upload, file: ImageFile) -> Image.Image:
    """255 where the mask's alpha is 0, else 0."""
    region = _decode(mask, file).getchannel("A").point(TRANSPARENT)
    if region.getbbox() is None:
        why = "has no pixel of alpha 0, so that nothing would be painted"
        raise mask.refuse(f"{why}: make the part to be painted transparent; black and white mean nothing")
    return region


def _outpaint(
    image: Upload, mask: Upload | None, options: EditSettings, model: ModelInfo, settings: Settings
) -> EditSource:
    assert options.offset is not None
    for field, value in (("mask", mask), ("strength", options.strength)):
        if value is not None:
            message = f"{field} does not go with offset, which paints all that is around the picture"
            raise InvalidField(message, field=field)
    file = _read(image, settings)
    (height, width), (down, right) = model.image_size, options.offset
    whole = file.upright_size
    box = (max(0, -right), max(0, -down), min(whole[0], width - right), min(whole[1], height - down))
    if box[0] >= box[2] or box[1] >= box[3]:
        raise InvalidField(f"the image does not lie on the {model.size} canvas", field="offset")
    visible = _decode(image, file).crop(box)
    if visible.getchannel("A").point(NOT_OPAQUE).getbbox() is not None:
        raise image.refuse("has transparent pixels; a picture that is painted around has to be opaque")
    visible.putalpha(255)
    down, right = max(0, down), max(0, right)
    region = Image.new("L", (width, height), 255)
    region.paste(0, (right, down, right + visible.width, down + visible.height))
    touched = _count_patches(region, model)
    if not touched:
        raise InvalidField("the image fills the whole canvas: nothing is left to paint", field="offset")
    return EditSource(
        _png(visible),
        EditParams(mode="outpaint", offset=(down, right), feather=options.feather, num_kept=model.num_tokens - touched),
    )


def _read(upload: Upload, settings: Settings) -> ImageFile:
    """Bounds what a decoder would have to do, without one. Raises InvalidRequest."""
    if len(upload.data) > settings.max_image_bytes:
        raise upload.refuse(f"has {len(upload.data)} bytes; the limit is {settings.max_image_bytes}")
    try:
        file = read_image_file(upload.data)
    except MalformedImage as error:
        raise upload.refuse(str(error)) from error
    if not file.num_pixels:
        raise upload.refuse("cannot be decoded: it has no pixels")
    if file.num_pixels > settings.max_image_pixels:
        raise upload.refuse(f"has {_size(file)} pixels; the limit is {settings.max_image_pixels} in all")
    most_scans = min(MAX_SCANS, MAX_LARGE_SCANS * settings.max_image_pixels // file.num_pixels)
    if file.num_scans > most_scans:
        raise upload.refuse(f"has {file.num_scans} scans; the limit for a JPEG of {_size(file)} pixels is {most_scans}")
    if file.is_animated:
        raise upload.refuse(ANIMATED)
    return file


def _decode(upload: Upload, file: ImageFile) -> Image.Image:
    """RGBA, upright. Raises InvalidRequest."""
    try:
        with Image.open(io.BytesIO(file.data), formats=[file.kind]) as picture:
            if picture.size != file.size:
                raise upload.refuse("cannot be decoded: it names two sizes")
            if getattr(picture, "n_frames", 1) > 1:
                raise upload.refuse(ANIMATED)
            pixels = _with_8_bits(picture).convert("RGBA")
    except InvalidRequest:
        raise
    except Exception as error:
        raise upload.refuse("cannot be decoded: it is damaged or cut short") from error
    turn = TURNS.get(file.orientation)
    return pixels if turn is None else pixels.transpose(turn)


def _with_8_bits(picture: Image.Image) -> Image.Image:
    """Modes that Pillow cannot bring to RGBA at once. Of grey in 16 bits the upper 8 are kept, as of colours."""
    if picture.mode == "I;16":
        return Image.frombytes("L", picture.size, picture.tobytes()[1::2])
    return picture.convert("RGB") if picture.mode == "CMYK" else picture


def _count_patches(region: Image.Image, model: ModelInfo) -> int:
    """Patches of the grid that the region touches."""
    return sum(touched_patches(region.tobytes(), model.image_size, model.grid))


def _size(file: ImageFile) -> str:
    return "{}x{}".format(*file.upright_size)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
