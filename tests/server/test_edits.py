"""Edits on a running server: what the mask leaves stays to the pixel, and nothing that is sent breaks anything."""

import asyncio
import base64
import io
import os
import random
import signal
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from oar_core.models.load import load_model
from oar_core.models.model import Model
from oar_core.order.plan import PlanSpec
from oar_core.sampling.edit import Edit, paint_edit
from oar_core.sampling.sampler import SamplingParams
from server.api.app import create_app
from server.settings import Settings
from tests.server.live import SLOW, LiveServer
from tests.server.test_bad_input import check
from tests.server.test_generations import previews_of_a_held_job
from tests.server.tiny import NAME
from tests.server.uploads import BOX, SIZE, bomb, broken, encode, mask, picture, refused, webp_bomb
from tests.waiting import wait_for

URL = "/v1/edits"
WISH = {"prompt": "a red circle", "seed": 3, "order": "spiral", "steps": 4}
MASK = np.asarray(mask())[..., 3] == 0


def base64_of(image: Image.Image) -> str:
    return base64.b64encode(encode(image)).decode()


def edit(live: LiveServer, wait: float = 60, **body: Any) -> httpx.Response:
    whole = {**WISH, "image": base64_of(picture()), "mask": base64_of(mask()), **body}
    given = {name: value for name, value in whole.items() if value is not None}
    return live.client.post(URL, json=given, headers={"Prefer": f"wait={wait:.0f}"} if wait else {})


def finished(live: LiveServer, answer: httpx.Response, index: int = 0) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "completed", answer.text
    return np.asarray(Image.open(io.BytesIO(live.png(answer.json()["id"], index))))


@pytest.fixture(scope="module")
def pipeline(weights_dir: Path) -> Model:
    return load_model(weights_dir / NAME, "cpu", torch.float32)


def alone(pipeline: Model, prepared: Edit, *, count: int = 1, feather: int = 0) -> np.ndarray:
    """The same edit by the library's reference loop."""
    plan, sampling = PlanSpec("spiral", 4), SamplingParams(guidance=2.0)
    return paint_edit(pipeline, prepared, "a red circle", plan, sampling, seed=3, count=count, feather=feather)


@pytest.mark.parametrize("feather", [0, 2])
def test_an_edit_is_the_librarys_and_leaves_every_other_pixel(live: LiveServer, pipeline: Model, feather: int) -> None:
    answer = edit(live, n=2, feather=feather)
    pixels = np.array(picture())
    expected = alone(pipeline, Edit.inpaint(pipeline, pixels, MASK), count=2, feather=feather)
    for index in range(2):
        made = finished(live, answer, index)
        assert np.array_equal(made, expected[index])
        assert np.array_equal(made[~MASK], pixels[~MASK])
        assert not np.array_equal(made[MASK], pixels[MASK])


def test_the_events_of_an_edit_tell_only_what_is_painted(live: LiveServer) -> None:
    job = edit(live).json()
    events = live.events(job["id"])
    patches = [patch for event in events if event["type"] == "patches" for patch in event["patches"]]
    assert sorted(patch["position"] for patch in patches) == [y * 5 + x for y in (1, 2, 3) for x in (1, 2, 3)]
    assert job["params"]["edit"]["num_kept"] == 11
    assert job["params"]["steps"] == 4
    assert edit(live, steps=20).json()["params"]["steps"] == 9, "one step for each position is the most"


def test_a_variation_and_an_outpainting_are_the_librarys(live: LiveServer, pipeline: Model) -> None:
    pixels = np.array(picture())
    varied = finished(live, edit(live, strength=0.4))
    assert np.array_equal(varied, alone(pipeline, Edit.vary(pipeline, pixels, MASK, strength=0.4, seed=3))[0])
    large = picture((30, 12))
    body = {"image": base64_of(large), "mask": None, "offset": [6, -4], "feather": 1}
    painted = finished(live, edit(live, **body))
    whole = Edit.outpaint(pipeline, np.array(large), (6, -4))
    assert np.array_equal(painted, alone(pipeline, whole, feather=1)[0])
    assert np.array_equal(painted[6:], np.asarray(large)[:10, 4:24])


def test_a_multipart_form_says_the_same(live: LiveServer) -> None:
    as_json = edit(live, guidance=1.5, feather=1)
    fields = {"prompt": "a red circle", "seed": "3", "order": "spiral", "steps": "4", "guidance": "1.5", "feather": "1"}
    files = {"image": encode(picture()), "mask": encode(mask())}
    as_form = live.client.post(URL, data=fields, files=files, headers={"Prefer": "wait=60"})
    assert np.array_equal(finished(live, as_form), finished(live, as_json))
    listed = {**fields, "order[]": [str(position) for position in range(20)]}
    del listed["order"]
    by_list = live.client.post(URL, data=listed, files=files, headers={"Prefer": "wait=60"})
    written = {**fields, "order": str(list(range(20)))}
    by_text = live.client.post(URL, data=written, files=files, headers={"Prefer": "wait=60"})
    assert by_list.json()["params"]["order"] == by_text.json()["params"]["order"] == list(range(20))


def test_a_picture_may_be_sent_in_many_ways(live: LiveServer) -> None:
    """All of them are the same edit."""
    plain = base64_of(picture())
    expected = finished(live, edit(live))
    wrapped = base64.encodebytes(encode(picture())).decode()
    for image in (wrapped, f"DATA:image/png;charset=utf-8;base64,{plain.rstrip('=')}"):
        assert np.array_equal(finished(live, edit(live, image=image)), expected)
    fields = {"prompt": "a red circle", "seed": "3", "order": "spiral", "steps": "4"}
    own = picture(mode="RGBA")
    own.putalpha(mask().getchannel("A"))
    for files in (
        {"image": encode(picture()), "mask": encode(mask(), "WEBP", lossless=True)},
        {"image": encode(own), "mask": ("no file was chosen", b"")},
    ):
        request = live.client.build_request("POST", URL, data=fields, files=files)
        # As browsers send an empty file input.
        body = request.read().replace(b'filename="no file was chosen"', b'filename=""')
        headers = {"Prefer": "wait=20", "content-type": request.headers["content-type"]}
        assert np.array_equal(finished(live, live.client.post(URL, content=body, headers=headers)), expected)


def test_an_edit_has_a_priority_and_a_deadline(live: LiveServer) -> None:
    fields = {"prompt": "a red circle", "priority": "low", "deadline": "200"}
    files = {"image": encode(picture()), "mask": encode(mask())}
    as_form = live.client.post(URL, data=fields, files=files, headers={"Cancel-After": "300"}).json()
    assert (as_form["params"]["priority"], as_form["params"]["deadline"]) == ("low", 200)
    as_json = edit(live, priority="high", deadline=200).json()
    assert (as_json["params"]["priority"], as_json["params"]["deadline"]) == ("high", 200)
    sooner = live.client.post(URL, data=fields, files=files, headers={"Cancel-After": "100"}).json()
    assert sooner["params"]["deadline"] == 100
    bad = live.client.post(URL, data=fields, files=files, headers={"Cancel-After": "soon"})
    check(bad, 422, "invalid_deadline", "Cancel-After")


@pytest.mark.running
def test_previews_of_an_edit_keep_what_is_kept(live: LiveServer) -> None:
    flat = Image.new("RGB", SIZE, (10, 200, 30))
    everything = {"image": base64_of(flat), "mask": base64_of(mask(box=(0, 0, 20, 12))), "n": 16, "steps": 15}
    previews = previews_of_a_held_job(live, lambda **body: edit(live, wait=0, **body).json(), **everything)
    assert previews
    for event in previews:
        assert event["known"] > 5, "the five tokens of the lowest row are known from the start"
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(event["data"]))).convert("RGB")).astype(int)
        assert abs(shown[14:] - (10, 200, 30)).mean() < 10, "WebP loses a little"


@pytest.mark.running
def test_an_edit_whose_worker_is_killed_ends_as_the_same_picture(
    live: LiveServer, tmp_path: Path, weights_dir: Path
) -> None:
    """The source picture is kept beside the job, and gives the same tokens again."""
    whole = {"mask": base64_of(mask(box=(0, 0, 20, 12))), "n": 12, "steps": 15, "guidance": 3.0, "previews": False}
    undisturbed = edit(live, **whole)
    with LiveServer(tmp_path, weights_dir, is_gated=True, **SLOW) as server:
        with server.held(40):
            job = edit(server, wait=0, **whole).json()
            with server.stream(job["id"]) as stream:
                next(event for event in stream if event["type"] == "patches" and event["image"] >= 2)
            (pid,) = wait_for(lambda: server.children("worker"))
            os.kill(pid, signal.SIGKILL)
        events = server.events(job["id"])
        assert [event["type"] for event in events if event["type"] in {"restarted", "completed"}] == [
            "restarted",
            "completed",
        ]
        pngs = [server.png(job["id"], index) for index in range(12)]
    assert pngs == [live.png(undisturbed.json()["id"], index) for index in range(12)]


def test_an_idempotency_key_goes_by_the_pictures_too(live: LiveServer) -> None:
    body = {**WISH, "image": base64_of(picture()), "mask": base64_of(mask())}
    headers = {"Idempotency-Key": "an edit"}
    first, again = (live.client.post(URL, json=body, headers=headers).json() for _ in range(2))
    assert first["id"] == again["id"]
    other = {**body, "image": base64_of(picture(seed=5))}
    check(live.client.post(URL, json=other, headers=headers), 422, "idempotency_key_reused", "Idempotency-Key")


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        ({"image": None}, 422, "missing_field", "image"),
        ({"mask": None}, 422, "missing_field", "mask"),
        ({"image": "%"}, 422, "invalid_image", "image"),
        ({"image": 5}, 422, "invalid_image", "image"),
        ({"image": base64_of(picture((64, 64)))}, 422, "invalid_image", "image"),
        ({"mask": base64_of(mask((10, 8)))}, 422, "invalid_mask", "mask"),
        ({"mask": base64_of(picture())}, 422, "invalid_mask", "mask"),
        ({"strength": 0}, 422, "invalid_strength", "strength"),
        ({"strength": 1.5}, 422, "invalid_strength", "strength"),
        ({"feather": -1}, 422, "invalid_feather", "feather"),
        ({"feather": 257}, 422, "invalid_feather", "feather"),
        ({"offset": [1]}, 422, "invalid_offset", "offset"),
        ({"offset": [1, 2, 3]}, 422, "invalid_offset", "offset"),
        ({"offset": [0, 1 << 15]}, 422, "invalid_offset", "offset"),
        ({"offset": [4, 4]}, 422, "invalid_mask", "mask"),
        ({"offset": [4, 4], "mask": None, "strength": 0.5}, 422, "invalid_strength", "strength"),
        ({"model": "other"}, 404, "model_not_found", "model"),
        ({"prompt": ""}, 422, "invalid_prompt", "prompt"),
        ({"clip_skip": 2}, 422, "unknown_field", "clip_skip"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_field_is_named(live: LiveServer, body: dict[str, Any], status: int, code: str, field: str) -> None:
    check(edit(live, **body), status, code, field)


def test_a_body_that_is_no_edit(live: LiveServer) -> None:
    post = live.client.post
    form = {"content-type": "multipart/form-data; boundary=x"}
    check(post(URL, content=b"{", headers={"content-type": "application/json"}), 400, "invalid_json")
    check(post(URL, content=b"[]", headers={"content-type": "application/json"}), 422, "invalid_request")
    check(post(URL, content=b"[" * 100_000, headers={"content-type": "application/json"}), 400, "invalid_json")
    check(post(URL, content=b"x", headers={"content-type": "text/plain"}), 415, "unsupported_media_type")
    check(post(URL), 415, "unsupported_media_type")
    check(post(URL, content=b"x", headers={"content-type": "multipart/form-data"}), 422, "invalid_form")
    check(post(URL, content=b"no form", headers=form), 422, "invalid_form")
    cut_short = b'--x\r\ncontent-disposition: form-data; name="prompt"\r\n\r\nx'
    check(post(URL, content=cut_short, headers=form), 422, "invalid_form")
    check(post(URL, data={"prompt": "x"}, files={"mask": b"x"}), 422, "missing_field", "image")
    check(post(URL, data={"prompt": "x", "image": "text"}, files={"mask": b"x"}), 422, "invalid_image", "image")
    check(post(URL, data={"prompt": "x"}, files={"image": b"x", "other": b"x"}), 422, "unknown_field", "other")
    check(post(URL, data={"prompt": "x", "n": "two"}, files={"image": b"x"}), 422, "invalid_n", "n")
    check(
        post(URL, data={"prompt": "x", "guidance": "NaN"}, files={"image": b"x"}), 422, "invalid_sampling", "guidance"
    )
    two = [("image", b"x"), ("image", b"y")]
    check(post(URL, data={"prompt": "x"}, files=two), 422, "invalid_image", "image")
    masks = [("image", b"x"), ("mask", b"x"), ("mask", b"y")]
    check(post(URL, data={"prompt": "x"}, files=masks), 422, "invalid_mask", "mask")


def test_an_edit_may_be_larger_than_other_bodies_and_not_endless(live: LiveServer) -> None:
    padded = encode(picture()) + bytes(3 << 20)
    answer = edit(live, image=base64.b64encode(padded).decode())
    assert answer.status_code == 200, "what follows a picture's end is nobody's business"
    check(live.client.post(URL, content=bytes(9 << 20)), 413, "body_too_large")


def test_the_limit_of_an_upload_is_a_setting(tmp_path: Path) -> None:
    app = create_app(Settings(data_dir=tmp_path, max_upload_bytes=2048))

    async def answers() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            return [await client.post(path, content=bytes(2049)) for path in (URL, "/v1/images/edits")]

    for answer in asyncio.run(answers()):
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
        assert "2048" in answer.json()["error"]["message"]


def test_bombs_cost_no_memory(live: LiveServer) -> None:
    """Nor the time to fill it."""
    api = live.children("api")[0]
    for data in (bomb(), webp_bomb()):
        check(edit(live, image=base64.b64encode(data).decode()), 422, "invalid_image", "image")
    peak = next(line for line in Path(f"/proc/{api}/status").read_text().splitlines() if line.startswith("VmHWM"))
    assert int(peak.split()[1]) < 1 << 20, f"{peak}: more than a gigabyte"


def send_broken(live: LiveServer, count: int, seed: int) -> set[int]:
    """Through both routes, in both ways; returns the statuses that came back."""
    statuses: set[int] = set()
    good = encode(picture()), encode(mask())
    for index, data in enumerate(broken(count, seed)):
        image, hole = (data, good[1]) if index % 2 else (good[0], data)
        fields, files = {"prompt": "a red circle", "steps": "1"}, {"image": image, "mask": hole}
        match index % 3:
            case 0:
                answer = live.client.post(URL, data=fields, files=files)
            case 1:
                answer = live.client.post("/v1/images/edits", data=fields, files=files)
            case _:
                body = {
                    "prompt": "x",
                    "image": base64.b64encode(image).decode(),
                    "mask": base64.b64encode(hole).decode(),
                }
                answer = live.client.post(URL, json=body)
        while answer.status_code == 429:  # many of them can be edited after all, faster than they are painted
            live.wait_until_idle()
            answer = live.client.send(answer.request)
        assert answer.status_code < 500, answer.text
        statuses.add(answer.status_code)
    return statuses


def test_broken_pictures_are_answered(live: LiveServer) -> None:
    assert send_broken(live, 36, seed=3) == {200, 202, 400, 422}
    for data in refused().values():
        answer = live.client.post(URL, data={"prompt": "x"}, files={"image": data, "mask": encode(mask())})
        assert answer.json()["error"]["code"] == "invalid_image"
    assert live.post(wait=60).status_code == 200
    assert "Traceback" not in live.log.read_text()


@pytest.mark.slow
def test_thousands_of_broken_pictures_are_answered(live: LiveServer) -> None:
    assert send_broken(live, 3000, seed=4) == {200, 202, 400, 422}
    assert live.post(wait=60).status_code == 200
    assert "Traceback" not in live.log.read_text()


@pytest.mark.slow
def test_thousands_of_broken_forms_are_answered(live: LiveServer) -> None:
    """The multipart body itself is damaged, not the pictures in it."""
    request = live.client.build_request(
        "POST", URL, data={"prompt": "x", "steps": "1"}, files={"image": encode(picture()), "mask": encode(mask())}
    )
    body, headers = request.read(), {"content-type": request.headers["content-type"]}
    chance = random.Random(6)
    for _ in range(2000):
        data = bytearray(body)
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(data))
            data[at : at + chance.randint(0, 9)] = chance.randbytes(chance.randint(0, 9))
        answer = live.client.post(URL, content=bytes(data), headers=headers)
        assert answer.status_code < 500, answer.text
    assert "Traceback" not in live.log.read_text()


def test_sizes_of_the_fixtures() -> None:
    assert ((MASK.shape[1], MASK.shape[0]), Image.fromarray(MASK).getbbox()) == (SIZE, BOX)
