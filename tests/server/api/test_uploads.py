"""What becomes of an uploaded picture before it is stored: checked, never scaled, one form for the worker."""

import base64
import contextlib
import io
import json
import random
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image, ImageCms

from oar_wire.edit import EditSettings
from oar_wire.errors import InvalidRequest
from oar_wire.model import GenerationDefaults, ModelInfo
from server.api.image_files.reader import read_image_file
from server.api.uploads import MAX_ESCAPES, SLICE_BYTES, EditSource, Upload, from_base64, prepare
from server.settings import Settings
from tests.server.hostile import json_bodies
from tests.server.oriented import CORNERS, corners, oriented
from tests.server.uploads import (
    BOX,
    SIZE,
    after_header,
    broken,
    chunk,
    encode,
    mask,
    picture,
    png_16_bits,
    png_header,
    progressive,
    refused,
    taken,
    text_bomb,
)

MODEL = ModelInfo(
    name="tiny",
    grid=(4, 5),
    image_size=(16, 20),
    orders=("raster",),
    group_sizes=("cosine",),
    defaults=GenerationDefaults(),
)
SETTINGS = Settings(data_dir=Path("unused"))
REFUSED_UNDECODED = {
    "png bomb": "50000x50000 pixels",
    "webp bomb": "16384x16384 pixels",
    "too many scans": "scans",
    "too many chunks": "chunks",
    "too many segments": "segments",
    "animated png": "animated",
    "too wide": "21x16 pixels",
    "gif": "it is a GIF",
    "tiff": "it is a TIFF",
    "empty": "empty",
}
ORIENTED = oriented()
TOUCHED = 9  # patches of 4 x 4 pixels that BOX touches


def put(image: bytes, mask: bytes | None = None, settings: Settings = SETTINGS, **options: Any) -> EditSource:
    upload = None if mask is None else Upload(mask, "mask")
    return prepare(Upload(image, "image"), upload, EditSettings(**options), MODEL, settings)


def refusal(*args: Any, **options: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        put(*args, **options)
    return caught.value


def stored(source: EditSource) -> Image.Image:
    return Image.open(io.BytesIO(source.png))


def test_what_is_stored_is_the_picture_transparent_where_it_is_painted() -> None:
    source = put(encode(picture()), encode(mask()))
    image = stored(source)
    assert (image.mode, image.size) == ("RGBA", SIZE)
    assert image.convert("RGB").tobytes() == picture().tobytes(), "the pixels under the mask too"
    hole = image.getchannel("A").point([255] + [0] * 255)
    assert hole.getbbox() == BOX
    assert set(image.getchannel("A").tobytes()) == {0, 255}
    assert (source.params.mode, source.params.num_kept) == ("inpaint", 20 - TOUCHED)


@pytest.mark.parametrize("name", taken())
def test_every_kind_of_picture_is_taken(name: str) -> None:
    assert stored(put(taken()[name], encode(mask()))).size == SIZE


@pytest.mark.parametrize("name", refused())
def test_a_picture_that_cannot_be_edited_is_refused_with_a_sentence(name: str) -> None:
    error = refusal(refused()[name], encode(mask()))
    assert (error.code, error.field) == ("invalid_image", "image")
    assert error.message.startswith("the image ")


@pytest.mark.parametrize("name", refused())
def test_and_so_is_a_mask(name: str) -> None:
    error = refusal(encode(picture()), refused()[name])
    assert (error.code, error.field) == ("invalid_mask", "mask")


@pytest.mark.parametrize("options", [{}, {"lossless": True}])
def test_a_mask_may_be_a_webp(options: dict[str, bool]) -> None:
    source = put(encode(picture()), encode(mask(), "WEBP", **options))
    assert source.params.num_kept == 20 - TOUCHED


def test_a_mask_in_black_and_white_is_refused_with_what_it_should_be() -> None:
    for kind in ("PNG", "JPEG"):
        assert "transparent" in refusal(encode(picture()), encode(picture(mode="L"), kind)).message


@pytest.mark.parametrize("image", [picture(), picture(mode="L"), picture(mode="RGBA")])
def test_a_mask_without_transparency_paints_nothing(image: Image.Image) -> None:
    assert "alpha 0" in refusal(encode(picture()), encode(image)).message


def test_only_alpha_0_opens_a_mask() -> None:
    thin = mask()
    thin.putpixel((0, 0), (0, 0, 0, 1))
    assert put(encode(picture()), encode(thin)).params.num_kept == 20 - TOUCHED


def test_a_palette_mask_with_one_transparent_colour() -> None:
    flat = Image.new("P", SIZE, 1)
    flat.putpalette([0, 0, 0, 255, 255, 255])
    flat.paste(0, BOX)
    source = put(encode(picture()), encode(flat, transparency=0))
    assert source.params.num_kept == 20 - TOUCHED


def test_without_a_mask_the_picture_says_by_its_own_alpha() -> None:
    image = picture(mode="RGBA")
    image.putalpha(mask().getchannel("A"))
    source = put(encode(image))
    assert source.params.num_kept == 20 - TOUCHED
    assert source.png == put(encode(picture()), encode(mask())).png
    error = refusal(encode(picture()))
    assert (error.code, error.field) == ("missing_field", "mask")


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("WEBP", {"quality": 60, "alpha_quality": 30})]
)
def test_what_a_soft_eraser_touched_is_painted(kind: str, options: dict[str, Any]) -> None:
    """From alpha 250 on a pixel counts as opaque: lossy alpha, and the rounding of editors."""
    image = picture(mode="RGBA")
    alpha = Image.new("L", SIZE, 255)
    alpha.paste(251, (0, 0, 20, 4))
    alpha.paste(130, BOX)
    alpha.paste(0, (BOX[0] + 2, BOX[1] + 2, BOX[2] - 2, BOX[3] - 2))
    image.putalpha(alpha)
    source = put(encode(image, kind, **options))
    assert stored(source).getchannel("A").point([255] + [0] * 255).getbbox() == BOX
    assert source.params.num_kept == 20 - TOUCHED


def test_an_image_that_is_nearly_opaque_goes_with_a_mask() -> None:
    image = picture(mode="RGBA")
    image.putalpha(254)
    assert put(encode(image), encode(mask())).png == put(encode(picture()), encode(mask())).png
    assert refusal(encode(image)).code == "missing_field"
    around = stored(put(encode(image.crop((0, 0, 8, 8))), offset=[4, 4]))
    assert around.getchannel("A").getextrema() == (255, 255)


def test_transparency_that_would_be_lost_is_refused() -> None:
    image = picture(mode="RGBA")
    image.putpixel((0, 0), (1, 2, 3, 249))
    assert "opaque" in refusal(encode(image), encode(mask())).message
    image.putpixel((0, 0), (1, 2, 3, 255))
    image.putpixel((BOX[0], BOX[1]), (1, 2, 3, 128))
    put(encode(image), encode(mask()))


def test_a_variation_keeps_a_share() -> None:
    half = put(encode(picture()), encode(mask()), strength=0.5).params
    assert (half.mode, half.strength, half.num_kept) == ("vary", 0.5, 20 - round(TOUCHED / 2))
    assert put(encode(picture()), strength=0.1).params.num_kept == 18, "without a mask, of the whole picture"


@pytest.mark.parametrize(
    ("size", "offset", "kept_offset", "visible"),
    [
        ((8, 8), (4, 8), (4, 8), (8, 8)),
        ((20, 16), (0, 8), (0, 8), (12, 16)),
        ((20, 16), (-4, 0), (0, 0), (20, 12)),
        ((100, 90), (3, -85), (3, 0), (15, 13)),
        ((100, 8), (15, -50), (15, 0), (20, 1)),
    ],
)
def test_outpainting_stores_what_lies_on_the_canvas(
    size: tuple[int, int], offset: tuple[int, int], kept_offset: tuple[int, int], visible: tuple[int, int]
) -> None:
    source = put(encode(picture(size)), offset=list(offset))
    assert (source.params.mode, source.params.offset) == ("outpaint", kept_offset)
    assert stored(source).size == visible
    left, top = max(0, -offset[1]), max(0, -offset[0])
    box = (left, top, left + visible[0], top + visible[1])
    assert stored(source).convert("RGB").tobytes() == picture(size).crop(box).tobytes()


@pytest.mark.parametrize("offset", [[16, 0], [0, 20], [-16, 0], [0, -20], [0, 0]])
def test_an_offset_that_leaves_nothing_to_do(offset: list[int]) -> None:
    assert refusal(encode(picture()), offset=offset).code == "invalid_offset"


def test_outpainting_takes_neither_mask_nor_strength_nor_transparency() -> None:
    assert refusal(encode(picture()), encode(mask()), offset=[4, 4]).field == "mask"
    assert refusal(encode(picture()), offset=[4, 4], strength=0.5).field == "strength"
    assert refusal(encode(mask()), offset=[4, 4]).field == "image"


def test_the_limits_are_settings() -> None:
    small = SETTINGS.model_copy(update={"max_image_pixels": 319})
    assert "20x16 pixels; the limit is 319" in refusal(encode(picture()), encode(mask()), small).message
    light = SETTINGS.model_copy(update={"max_image_bytes": 500})
    assert "the limit is 500" in refusal(encode(picture()), encode(mask()), light).message


def test_no_decoder_sees_metadata() -> None:
    plain = read_image_file(encode(picture()))
    for data in (text_bomb(), taken()["malformed profile"], taken()["malformed exif"], taken()["trailing bytes"]):
        assert read_image_file(data) == plain
    phone, jpeg = read_image_file(taken()["phone"]), read_image_file(encode(picture(), "JPEG"))
    assert phone == jpeg, "the first picture alone"


@pytest.mark.parametrize("name", [*REFUSED_UNDECODED])
def test_what_would_be_dear_is_refused_before_it_is_decoded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", lambda *args, **options: pytest.fail("a decoder was asked"))
    assert REFUSED_UNDECODED[name] in refusal(refused()[name], encode(mask())).message


@pytest.mark.parametrize(
    ("side", "scans", "is_taken"), [(2048, 16, True), (2048, 17, False), (64, 64, True), (64, 65, False)]
)
def test_scans_times_pixels_of_a_jpeg_are_bounded(side: int, scans: int, *, is_taken: bool) -> None:
    jpeg = progressive((side, side), scans)
    assert read_image_file(jpeg).num_scans == scans
    if is_taken:
        assert put(jpeg, offset=[8, 8]).params.mode == "outpaint"
    else:
        assert f"has {scans} scans" in refusal(jpeg, offset=[8, 8]).message


@pytest.mark.parametrize("num_bytes", range(65_525, 65_537))
def test_a_marker_is_found_wherever_it_lies(num_bytes: int) -> None:
    """Across the windows that are searched at once, too."""
    jpeg = encode(picture(), "JPEG")
    shifted = read_image_file(jpeg[:2] + b"\xff" * num_bytes + jpeg[2:])
    assert shifted == read_image_file(jpeg)


def test_an_offset_beside_the_canvas_is_refused_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    large = encode(picture((900, 900)))
    monkeypatch.setattr(Image, "open", lambda *args, **options: pytest.fail("a decoder was asked"))
    assert refusal(large, offset=[16, 0]).code == "invalid_offset"


def upright(data: bytes) -> tuple[int, ...]:
    """The colours of the corners top left, top right and bottom left, as an edit would keep them."""
    source = stored(put(data, encode(mask(box=(9, 7, 10, 8)))))
    return tuple(round(source.getpixel(place)[0] / 60) for place in ((1, 1), (18, 1), (1, 14)))  # pyright: ignore


@pytest.mark.parametrize("name", ORIENTED)
def test_orientation_is_what_browsers_show(name: str) -> None:
    """tests/browser/test_pictures.py holds the same files against Chromium."""
    data, orientation = ORIENTED[name]
    assert upright(data) == CORNERS[orientation]


def test_a_directory_that_points_anywhere_means_upright() -> None:
    for head in (b"MM\0*\xff\xff\xff\xff", b"II*\0\0\0\0\0", b"MM\0*", b"MM\0*\0\0\0\x08\xff\xff"):
        assert upright(after_header(encode(corners()), chunk(b"eXIf", head))) == CORNERS[1]


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_transparent_grey_of_any_depth(depth: int) -> None:
    """The last column of pixels is of the transparent grey."""
    most = (1 << depth) - 1
    row = int(
        "".join(format(most - (x == 19), f"0{depth}b") for x in range(20)).ljust(20 * depth + -20 * depth % 8, "0"), 2
    )
    rows = (b"\0" + row.to_bytes(-(-20 * depth // 8), "big")) * 16
    key = chunk(b"tRNS", (most - 1).to_bytes(2, "big"))
    data = png_header(20, 16, depth, colour=0) + key + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    hole = stored(put(data)).getchannel("A").point([255] + [0] * 255)
    assert hole.getbbox() == (19, 0, 20, 16)


def test_16_bits_keep_their_upper_8() -> None:
    colours = stored(put(png_16_bits(), encode(mask())))
    greys = stored(put(encode(Image.new("I;16", SIZE, 0x8040)), encode(mask())))
    assert colours.getpixel((0, 0)) == greys.getpixel((0, 0)) == (0x80, 0x80, 0x80, 255)


def test_the_numbers_of_pixels_are_kept_whatever_profile_or_gamma_they_have() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    gamma = after_header(encode(picture()), chunk(b"gAMA", struct.pack(">I", 100_000)))
    for data in (gamma, encode(picture(), icc_profile=profile)):
        assert put(data, encode(mask())).png == put(encode(picture()), encode(mask())).png


def test_base64_as_people_send_it() -> None:
    data = bytes(range(256)) + b"\xfb\xef\xbe\xff"  # with + and / in it, and padding
    plain = base64.b64encode(data).decode()
    wrapped = base64.encodebytes(data).decode()
    sent = {
        "plain": plain,
        "url": f"data:image/png;base64,{plain}",
        "upper case": f"DATA:image/png;BASE64,{plain}",
        "charset": f"data:image/png;charset=utf-8;base64,{plain}",
        "another type": f"data:image/jpeg;base64,{plain}",
        "no type": f"data:;base64,{plain}",
        "percent-encoded": f"data:image/png;base64,{quote(plain, safe='')}",
        "line breaks": wrapped,
        "CRLF": wrapped.replace("\n", "\r\n"),
        "indented": wrapped.replace("\n", "\n  "),
        "lines joined by spaces": wrapped.strip().replace("\n", " "),
        "a line break at the end": f"{plain}\n",
        "spaces around": f"  {plain}  ",
        "URL-safe": base64.urlsafe_b64encode(data).decode(),
        "no padding": plain.rstrip("="),
        "URL-safe, no padding, url": f"data:image/png;base64,{base64.urlsafe_b64encode(data).decode().rstrip('=')}",
    }
    assert {name: from_base64(text, "image").data == data for name, text in sent.items()} == dict.fromkeys(sent, True)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a", "no base64"),
        ("aGk=aGk=", "no base64"),
        ("ü", "no base64"),
        ("%", "no base64"),
        ("data:image/png;base64,?", "no base64"),
        ("data:image/png,abc", "without ;base64"),
        ("https://pictures.example/a.png", "fetches none"),
        ("file:///etc/passwd", "fetches none"),
        ("iVBORw0KGgo AAA NSUhEUgAA", "%2B"),
    ],
)
def test_what_is_no_base64_is_refused_with_what_is_wrong(text: str, sentence: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        from_base64(text, "mask")
    assert (caught.value.code, caught.value.field) == ("invalid_mask", "mask")
    assert sentence in caught.value.message


@pytest.mark.parametrize("shift", range(4))
def test_long_base64_is_decoded_in_slices_as_in_one_piece(shift: int) -> None:
    data = random.Random(1).randbytes(3 * SLICE_BYTES + 1)
    plain = " " * shift + base64.b64encode(data).decode()
    for text in (plain, f"data:;base64,{quote(plain, safe='')}"):
        assert from_base64(text, "image").data == data


def test_a_picture_of_the_largest_size_may_be_escaped() -> None:
    data = random.Random(1).randbytes(Settings().max_image_bytes)
    text = base64.encodebytes(data).decode()
    assert from_base64(f"data:image/png;base64,{quote(text, safe='')}", "image").data == data


PICTURES_AS_TEXT = {name: body for name, body in json_bodies(1 << 20).items() if b'"image"' in body}


@pytest.mark.parametrize("shape", PICTURES_AS_TEXT)
def test_reading_base64_takes_little_memory_whatever_it_is(shape: str) -> None:
    """Escapes took 180 times their length, and all a pod has for 8 MiB of them."""
    text: str = json.loads(PICTURES_AS_TEXT[shape])["image"]
    tracemalloc.start()
    try:
        with contextlib.suppress(InvalidRequest):
            from_base64(text, "image")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * len(PICTURES_AS_TEXT[shape]) + (4 << 20)


def test_more_escapes_than_base64_needs_are_refused() -> None:
    most = "data:;base64," + "%41" * MAX_ESCAPES
    assert from_base64(most, "image").data == bytes(3 * MAX_ESCAPES // 4)
    with pytest.raises(InvalidRequest, match="percent signs"):
        from_base64(f"{most}%41", "image")


def test_an_empty_picture_is_called_empty() -> None:
    for text in ("", "data:image/png;base64,", " \n"):
        assert refusal(from_base64(text, "image").data, encode(mask())).message == "the image is empty"


def fuzz(count: int, seed: int) -> None:
    for index, data in enumerate(broken(count, seed)):
        pair = (data, encode(mask())) if index % 2 else (encode(picture()), data)
        try:
            source = put(*pair)
        except InvalidRequest:
            continue
        assert stored(source).size == SIZE


def test_broken_pictures_are_taken_or_refused() -> None:
    fuzz(60, seed=1)


@pytest.mark.slow
def test_thousands_of_broken_pictures_are_taken_or_refused() -> None:
    fuzz(6000, seed=2)
