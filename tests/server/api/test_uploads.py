"""What becomes of an uploaded picture before it is stored: checked, never scaled, one form for the worker."""

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from oar_wire.edit import EditOptions
from oar_wire.model import GenerationDefaults, ModelInfo
from server.api.uploads import Source, Upload, from_base64, prepare
from server.errors import InvalidRequest
from server.settings import Settings
from tests.server.uploads import BOX, SIZE, broken, encode, mask, picture, refused, taken, text_bomb

MODEL = ModelInfo(
    name="tiny",
    grid=(4, 5),
    image_size=(16, 20),
    orders=("raster",),
    group_sizes=("cosine",),
    defaults=GenerationDefaults(),
)
SETTINGS = Settings(data_dir=Path("unused"))
TOUCHED = 9  # patches of 4 x 4 pixels that BOX touches


def put(image: bytes, mask: bytes | None = None, settings: Settings = SETTINGS, **options: Any) -> Source:
    upload = None if mask is None else Upload(mask, "mask")
    return prepare(Upload(image, "image"), upload, EditOptions(**options), MODEL, settings)


def refusal(*args: Any, **options: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        put(*args, **options)
    return caught.value


def stored(source: Source) -> Image.Image:
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


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_a_mask_is_a_png(kind: str) -> None:
    image = mask() if kind == "WEBP" else mask().convert("RGB")
    assert "no PNG" in refusal(encode(picture()), encode(image, kind)).message


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


def test_transparency_that_would_be_lost_is_refused() -> None:
    image = picture(mode="RGBA")
    image.putpixel((0, 0), (1, 2, 3, 128))
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


def test_a_picture_with_megabytes_of_text_in_it_ends_quickly() -> None:
    assert "decoded" in refusal(text_bomb(), encode(mask())).message


def test_base64_and_data_urls() -> None:
    assert from_base64("aGk=", "image").data == from_base64("data:image/png;base64,aGk=", "image").data == b"hi"
    for text in ("aGk", "a b c d", "data:image/png;base64,?", "ü"):
        with pytest.raises(InvalidRequest) as caught:
            from_base64(text, "mask")
        assert (caught.value.code, caught.value.field) == ("invalid_mask", "mask")


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
