"""`GET .../images/{i}/painting`: a finished picture painting itself again."""

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from server.api.painting import GROUND, MAX_FRAMES, MAX_PIXELS, Painting, animate
from server.jobs.events import StoredEvent
from server.schemas.events import Patches, PatchInfo, Preview, Restarted
from tests.server.live import LiveServer
from tests.server.test_bad_input import check
from tests.server.uploads import encode, mask, picture

GRID = (4, 5)


def event(number: int, body: Any) -> StoredEvent:
    return StoredEvent("gen-1", number, body.type, 0.0, body.body())


def patches(*positions: int, rank: int = 0, image: int = 0) -> Patches:
    infos = [
        PatchInfo(rank=rank + index, position=place, row=place // 5, col=place % 5, token=0, confidence=1.0)
        for index, place in enumerate(positions)
    ]
    return Patches(image=image, step=1, steps=4, patches=tuple(infos))


def preview(known: int, colour: str = "red") -> Preview:
    data = base64.b64encode(encode(Image.new("RGB", (20, 16), colour), "WEBP", lossless=True)).decode()
    return Preview(image=0, known=known, total=20, width=20, height=16, data=data)


def read(*bodies: Any) -> Painting:
    return Painting.read([event(number, body) for number, body in enumerate(bodies, 1)], 0)


def frames(content: bytes) -> list[np.ndarray]:
    with Image.open(io.BytesIO(content)) as opened:
        shown = []
        for number in range(getattr(opened, "n_frames", 1)):
            opened.seek(number)
            shown.append(np.asarray(opened.convert("RGB")))
        return shown


# what the events say


def test_the_steps_are_those_of_one_image() -> None:
    painting = read(patches(3, 1), patches(9, image=1), patches(0, rank=2))
    assert painting.steps == ((3, 1), (0,))


def test_a_restart_keeps_what_it_says() -> None:
    """A worker that takes a job over paints again what it did not find in the log: it must not be shown twice."""
    again = read(patches(3, 1), patches(0, 2, rank=2), Restarted(known=(3,)), patches(2, 4, rank=3))
    assert again.steps == ((3, 1), (0,), (2, 4))
    anew = read(patches(3, 1), preview(2), Restarted(known=(0,), reason="model_changed"), patches(7))
    assert (anew.steps, anew.guesses) == (((7,),), ())


def test_a_preview_is_shown_from_its_moment_on() -> None:
    painting = read(patches(3, 1), preview(2), patches(*[place for place in range(20) if place not in (1, 3)], rank=2))
    assert painting.guess(1) is None
    assert painting.guess(2) is not None


def test_given_positions_of_an_edit_count_in_a_preview() -> None:
    """18 positions were given: a preview of 19 known ones was made after one was written."""
    painting = read(patches(3), preview(19), patches(1, rank=1))
    assert [guess.written for guess in painting.guesses] == [1]


def test_steps_are_gathered_beyond_the_bound() -> None:
    painting = Painting(tuple((place,) for place in range(1000)))
    gathered = painting.gathered(MAX_FRAMES)
    assert len(gathered.steps) <= MAX_FRAMES
    assert [place for step in gathered.steps for place in step] == list(range(1000))
    assert Painting(()).gathered(MAX_FRAMES).steps == ()


@pytest.mark.parametrize("side", [320, 640])
def test_frames_and_pixels_are_bounded(side: int) -> None:
    """A larger animation has fewer frames, so that none keeps a processor busy for long."""
    painting = Painting(tuple((place,) for place in range(400)))
    shown = frames(animate(painting, encode(picture((64, 64))), (20, 20), "webp", side=side))
    assert 2 < len(shown) <= MAX_FRAMES
    assert len(shown) * side * side <= MAX_PIXELS


# what is drawn


def test_patches_appear_in_their_order() -> None:
    final = picture(seed=3)
    painting = Painting(((0, 6), tuple(place for place in range(20) if place not in (0, 6))))
    first, second, *_, last = frames(animate(painting, encode(final), GRID, "webp", side=20))
    assert (first == np.array(GROUND)).all()
    pixels = np.asarray(final)
    assert np.array_equal(second[1:3, 1:3], pixels[1:3, 1:3]), "inside the mark, patch 0 has its final pixels"
    assert (second[8:, :4] == np.array(GROUND)).all(), "and patch 10 is not there yet"
    assert np.array_equal(last, pixels)


def test_what_is_not_written_shows_the_veiled_guess() -> None:
    painting = read(patches(0), preview(1), patches(*range(1, 20), rank=1))
    second = frames(animate(painting, encode(picture()), GRID, "webp", side=20))[1]
    red, green, blue = (int(channel) for channel in second[15, 19])
    assert red > 200 > 160 > max(green, blue)


def test_small_pictures_stay_crisp() -> None:
    painting = Painting((tuple(range(20)),))
    last = frames(animate(painting, encode(picture(seed=5)), GRID, "webp", side=100))[-1]
    assert last.shape == (80, 100, 3)
    assert np.array_equal(last, np.asarray(picture(seed=5)).repeat(5, 0).repeat(5, 1))


def test_large_pictures_are_made_smaller() -> None:
    content = animate(Painting((tuple(range(20)),)), encode(picture((200, 160))), GRID, "gif", side=100)
    assert frames(content)[0].shape == (80, 100, 3)


# the route


@pytest.fixture(scope="module")
def job(live: LiveServer) -> dict[str, Any]:
    return live.post(wait=15, seed=7, n=2, steps=8).json()


@pytest.mark.parametrize("kind", ["webp", "gif"])
def test_a_finished_picture_can_be_seen_painting(live: LiveServer, job: dict[str, Any], kind: str) -> None:
    url = job["images"][1]["url"]
    answer = live.client.get(f"{url}/painting", params={"format": kind})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == f"image/{kind}"
    shown = frames(answer.content)
    assert len(shown) == 8 + 2, "the empty canvas, eight steps, the finished picture"
    assert max(shown[0].shape[:2]) <= 320
    final = np.asarray(Image.open(io.BytesIO(live.png(job["id"], 1))))
    if kind == "webp":
        assert np.array_equal(shown[-1], final.repeat(16, 0).repeat(16, 1))
    with Image.open(io.BytesIO(answer.content)) as opened:
        assert opened.info.get("loop") == 0


def test_its_size_can_be_chosen(live: LiveServer, job: dict[str, Any]) -> None:
    url = f"{job['images'][0]['url']}/painting"
    assert frames(live.client.get(url, params={"size": 60}).content)[0].shape == (48, 60, 3)
    check(live.client.get(url, params={"size": 641}), 422, "invalid_size", "size")
    check(live.client.get(url, params={"format": "png"}), 422, "invalid_format", "format")


def test_it_may_be_kept_for_ever(live: LiveServer, job: dict[str, Any]) -> None:
    tags = set()
    for image in job["images"]:
        for query in ("format=webp", "format=gif", "format=gif&size=100"):
            url = f"{image['url']}/painting?{query}"
            answer = live.client.get(url)
            assert answer.headers["Cache-Control"] == "private, max-age=31536000, immutable"
            tags.add(answer.headers["ETag"])
            again = live.client.get(url, headers={"If-None-Match": answer.headers["ETag"]})
            assert (again.status_code, again.content) == (304, b"")
    assert len(tags) == 6


def test_an_edit_shows_what_was_given_from_the_start(live: LiveServer) -> None:
    source = picture(seed=9)
    files = {"image": ("image.png", encode(source)), "mask": ("mask.png", encode(mask()))}
    answer = live.client.post(
        "/v1/edits", data={"prompt": "a red circle", "seed": "1"}, files=files, headers={"Prefer": "wait=15"}
    )
    job = answer.json()
    shown = frames(live.client.get(f"{job['images'][0]['url']}/painting?size=20").content)
    assert np.array_equal(shown[0][:4, :4], np.asarray(source)[:4, :4])
    assert (shown[0][8, 8] == np.array(GROUND)).all() or len(shown) > 2


def test_what_cannot_be_shown(live: LiveServer, job: dict[str, Any]) -> None:
    url = f"/v1/generations/{job['id']}/images"
    check(live.client.get(f"{url}/2/painting"), 404, "image_not_found", "index")
    check(live.client.get("/v1/generations/gen-unknown/images/0/painting"), 404, "job_not_found")
    assert json.loads(live.client.get(f"{url}/x/painting").text)["error"]["code"] == "not_found"
