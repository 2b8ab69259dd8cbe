"""Finished pictures on their way out: formats, caching, and what a PNG says about itself."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from server.api.pictures import Rendition, recipe, render
from server.schemas.generation import GenerationParams
from tests.server.live import LiveServer
from tests.server.test_bad_input import check
from tests.server.uploads import encode, picture

PARAMS = GenerationParams(
    model="tiny", prompt="grün", seed=7, n=2, order=(1, 0), steps=2, group_sizes="cosine", guidance=2.0,
    temperature=1.0, top_k=0, top_p=1.0, model_hash="abc",
)  # fmt: skip


def opened(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(answer.content))


def test_formats(live: LiveServer) -> None:
    url = live.post(wait=60, seed=7).json()["images"][0]["url"]
    exact = np.asarray(opened(live.client.get(url)))
    for kind in ("png", "webp", "jpeg"):
        answer = live.client.get(url, params={"format": kind})
        image = opened(answer)
        assert answer.headers["content-type"] == f"image/{kind}"
        assert (image.format, image.size) == (kind.upper(), (20, 16))
        if kind == "png":
            assert np.array_equal(np.asarray(image), exact)
    sizes = [len(live.client.get(url, params={"format": "webp", "compression": level}).content) for level in (0, 90)]
    assert sizes[0] < sizes[1]
    check(live.client.get(url, params={"format": "gif"}), 422, "invalid_format", "format")
    check(live.client.get(url, params={"compression": 101}), 422, "invalid_compression", "compression")
    check(live.client.get(url, params={"metadata": "perhaps"}), 422, "invalid_metadata", "metadata")


def test_every_rendition_is_cached_by_an_etag_of_its_own(live: LiveServer) -> None:
    url = live.post(wait=60, seed=7).json()["images"][0]["url"]
    tags = {}
    for query in ("format=png", "metadata=false", "format=webp", "format=webp&compression=5", "format=jpeg"):
        answer = live.client.get(f"{url}?{query}")
        assert answer.headers["Cache-Control"] == "private, max-age=31536000, immutable"
        tags[query] = answer.headers["ETag"]
        for known in (tags[query], f'"other", {tags[query]}', f"W/{tags[query]}", "*"):
            again = live.client.get(f"{url}?{query}", headers={"If-None-Match": known})
            assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tags[query])
    assert len(set(tags.values())) == len(tags)
    assert live.client.get(url, headers={"If-None-Match": tags["format=webp"]}).status_code == 200


def test_a_png_tells_how_to_make_it_again(live: LiveServer) -> None:
    job = live.post(wait=60, n=2, order="spiral", steps=5, guidance=1.5, temperature=0.8).json()
    first = live.client.get(job["images"][1]["url"])
    made = json.loads(opened(first).text["oar"])
    assert made.pop("model_hash") == live.client.get("/v1/models/tiny").json()["model_hash"]
    (completed,) = (event for event in live.events(job["id"]) if event["type"] == "completed")
    assert made.pop("fingerprint") == completed["fingerprint"]
    index = made.pop("image")
    again = live.post(wait=60, n=index + 1, **made).json()
    assert live.client.get(again["images"][index]["url"]).content == first.content


def test_a_png_tells_it_in_the_words_of_other_programs(live: LiveServer) -> None:
    job = live.post(wait=60, seed=7, order="spiral", steps=5, guidance=1.5).json()
    text = opened(live.client.get(job["images"][0]["url"])).text["parameters"]
    prompt, pairs = text.split("\n")
    assert prompt == "a red circle"
    told = dict(pair.split(": ") for pair in pairs.split(", "))
    assert list(told)[:4] == ["Steps", "Sampler", "CFG scale", "Seed"]
    assert (told["Steps"], told["Sampler"], told["CFG scale"], told["Seed"]) == ("5", "spiral", "1.5", "7")
    assert (told["Model"], told["Model hash"]) == ("tiny", job["params"]["model_hash"])
    assert told["Guidance interval"] == "0.0 1.0"
    assert told["Fingerprint"].split()[0] == told["Model hash"]


def test_the_server_can_be_told_never_to_say_it(tmp_path: Path, weights_dir: Path) -> None:
    with LiveServer(tmp_path, weights_dir, OAR_IMAGE_METADATA="false") as silent:
        url = silent.post(wait=60, seed=7).json()["images"][0]["url"]
        assert opened(silent.client.get(f"{url}?metadata=true")).text == {}
        body = {"prompt": "a red circle", "metadata": True}
        (image,) = silent.client.post("/v1/images/generations", json=body).json()["data"]
        assert Image.open(io.BytesIO(base64.b64decode(image["b64_json"]))).text == {}  # pyright: ignore


def test_it_can_be_left_out(live: LiveServer) -> None:
    url = live.post(wait=60, seed=7).json()["images"][0]["url"]
    image = opened(live.client.get(f"{url}?metadata=false"))
    assert image.text == {}
    assert np.array_equal(np.asarray(image), np.asarray(opened(live.client.get(url))))


@pytest.mark.parametrize("kind", ["webp", "jpeg"])
def test_other_formats_say_nothing(kind: Any) -> None:
    data = render(encode(picture()), Rendition(kind), recipe(PARAMS, 0, None))
    assert b"seed" not in data


def test_the_chunk_leaves_the_pixels_and_takes_any_prompt() -> None:
    plain = encode(picture())
    with Image.open(io.BytesIO(render(plain, Rendition(), recipe(PARAMS, 1, None)))) as image:
        image.load()
        facts = json.loads(image.text["oar"])  # pyright: ignore[reportAttributeAccessIssue]
        assert image.tobytes() == picture().tobytes()
        assert image.text["parameters"].startswith("grün\nSteps: 2, Sampler: 1 0, CFG scale: 2.0, Seed: 7")  # pyright: ignore[reportAttributeAccessIssue]
    assert (facts["prompt"], facts["image"], facts["order"], facts["model_hash"]) == ("grün", 1, [1, 0], "abc")
    assert render(plain, Rendition(metadata=False), recipe(PARAMS, 1, None)) == plain
