"""Pictures from coarse to fine, served by one worker beside those of a grid."""

import base64
import io
import json
import os
import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from oar_core.models.load import load_model
from oar_core.order.plan import PlanSpec
from oar_core.sampling.generate import generate
from oar_core.sampling.request import SequenceRequest
from oar_core.sampling.sampler import SamplingParams
from oar_core.weights import write_manifest
from server.api.painting import GROUND
from server.worker.render import WEBP_QUALITY
from tests.models.details import GROUPS, NUM_STEPS, NUM_TOKENS, PROMPTS, SIZE, write_detail_model
from tests.models.details import NAME as DETAIL
from tests.server.live import LiveServer
from tests.server.tiny import NAME, write_tiny_weights
from tests.server.uploads import encode, mask
from tests.server.uploads import picture as uploaded
from tests.waiting import wait_for

MODELS = f"{NAME},{DETAIL}"


@pytest.fixture(scope="module")
def both_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_tiny_weights(folder)
    write_detail_model(folder / DETAIL)
    write_manifest(folder, NAME, dict.fromkeys((NAME, DETAIL), "MIT"))
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, both_weights: Path) -> Iterator[LiveServer]:
    settings = {"OAR_MODELS": MODELS, "OAR_DETERMINISTIC": "true", "OAR_PREVIEW_INTERVAL": "0.05"}
    with LiveServer(tmp_path_factory.mktemp("details"), both_weights, is_gated=True, **settings) as live:
        yield live


def asked(**body: Any) -> dict[str, Any]:
    return {"model": DETAIL, "prompt": PROMPTS[0], **body}


def patches_of(events: list[dict[str, Any]], image: int = 0) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == "patches" and event["image"] == image]


def pixels(data: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


def test_the_catalogue_says_what_the_model_makes_and_takes(server: LiveServer) -> None:
    models = {entry["id"]: entry for entry in server.client.get("/v1/models").json()["data"]}
    detail, grid = models[DETAIL], models[NAME]
    assert detail["layout"] == {"kind": "sequence", "shape": list(GROUPS), "channels": 0}
    assert (detail["num_tokens"], detail["orders"], detail["group_sizes"]) == (NUM_TOKENS, ["raster"], ["constant"])
    assert (detail["can_edit"], detail["can_vary"], detail["has_previews"]) == (False, True, True)
    (steps,) = [option for option in detail["options"] if option["name"] == "steps"]
    assert (steps["minimum"], steps["maximum"], steps["default"]) == (NUM_STEPS,) * 3
    assert (grid["can_edit"], grid["can_vary"], grid["layout"]["kind"]) == (True, True, "grid")


def test_patches_say_group_and_place_and_the_picture_is_the_loop_s(server: LiveServer, both_weights: Path) -> None:
    detail, grid = server.submit(**asked(n=2, seed=6, guidance=2.5)), server.submit(seed=2)
    events = server.events(detail["id"])
    assert server.events(grid["id"])[-1]["type"] == events[-1]["type"] == "completed"
    model = load_model(both_weights / DETAIL, "cpu", torch.float32)
    for image in range(2):
        told = patches_of(events, image)
        assert [(event["step"], event["steps"]) for event in told] == [(n + 1, NUM_STEPS) for n in range(NUM_STEPS)]
        assert tuple(len(event["patches"]) for event in told) == GROUPS
        flat = [patch for event in told for patch in event["patches"]]
        assert [patch["position"] for patch in flat] == list(range(NUM_TOKENS))
        places = [(group, place) for group, size in enumerate(GROUPS) for place in range(size)]
        assert [(patch["group"], patch["place"]) for patch in flat] == places
        assert not any({"row", "col"} & set(patch) for patch in flat)
        plan, sampling = PlanSpec("raster"), SamplingParams(guidance=2.5)
        request = SequenceRequest("alone", model.encode_prompt(PROMPTS[0]), 6, image, plan, sampling)
        (tokens,) = generate(model.backbone, [request], model.unconditional_ids)
        assert [patch["token"] for patch in flat] == list(tokens)
        assert np.array_equal(pixels(server.png(detail["id"], image)), model.decode(torch.tensor([tokens]))[0])
    of_grid = patches_of(server.events(grid["id"]))[0]["patches"][0]
    assert {"row", "col"} <= set(of_grid)
    assert not {"group", "place"} & set(of_grid)


@pytest.mark.running
def test_a_preview_is_the_prefix_at_its_resolution(server: LiveServer, both_weights: Path) -> None:
    with server.held(6):  # five steps are told of when the sixth is held
        job = server.submit(**asked(seed=5, previews=True))
        with server.stream(job["id"]) as stream:
            tokens: list[int] = []
            for event in stream:
                if event["type"] == "patches":
                    tokens += [patch["token"] for patch in event["patches"]]
                if event["type"] == "preview" and event["known"] >= 4:
                    break
    known = event["known"]
    model = load_model(both_weights / DETAIL, "cpu", torch.float32)
    height, width = model.tokenizer.resolution(known)
    assert (event["total"], event["resolution"]) == (NUM_TOKENS, [width, height])
    assert (event["width"], event["height"]) == SIZE[::-1]
    padded = torch.tensor([tokens[:known] + [0] * (NUM_TOKENS - known)])
    shown = model.decode_partial(padded, torch.arange(NUM_TOKENS)[None] < known)[0]
    same = encode(Image.fromarray(shown), "WEBP", quality=WEBP_QUALITY)
    assert np.array_equal(pixels(base64.b64decode(event["data"])), pixels(same))
    assert server.events(job["id"])[-1]["type"] == "completed"


def test_an_animation_shows_the_decoded_prefixes_whole(server: LiveServer, both_weights: Path) -> None:
    """Tokens of a sequence have no place in the picture: none is uncovered, framed or veiled."""
    body = asked(seed=5, stream=True, partial_images=3, size=f"{SIZE[1]}x{SIZE[0]}")
    answer = server.client.post("/v1/images/generations", json=body)
    assert answer.status_code == 200, answer.text
    data = [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data: {")]
    job_id = data[-1]["oar"]["job_id"]
    events = server.events(job_id)
    tokens = [patch["token"] for event in patches_of(events) for patch in event["patches"]]
    model = load_model(both_weights / DETAIL, "cpu", torch.float32)
    known = [event["known"] for event in events if event["type"] == "partial"]
    assert known == [sum(GROUPS[:steps]) for steps in (2, 4, 6)]
    prefixes = [
        model.decode_partial(torch.tensor([tokens]), torch.arange(NUM_TOKENS)[None] < count)[0] for count in known
    ]
    plain = np.full((*SIZE, 3), GROUND, np.uint8)
    expected = [plain, *prefixes, pixels(server.png(job_id))]
    assert len({picture.tobytes() for picture in expected}) == len(expected)
    for size in (SIZE[0], 3 * SIZE[0]):
        animation = server.client.get(f"/v1/generations/{job_id}/images/0/painting", params={"size": size})
        shown = frames_of(animation.content)
        enlarged = [picture.repeat(size // SIZE[0], 0).repeat(size // SIZE[0], 1) for picture in expected]
        assert len(shown) == len(enlarged)
        assert all(map(np.array_equal, shown, enlarged))


def test_previews_that_are_kept_are_there_for_as_long_as_the_picture(server: LiveServer, both_weights: Path) -> None:
    """One for each step but the last, whenever one looks: each is the prefix, decoded."""
    job = server.submit(**asked(seed=5, previews=False, kept_previews=24))
    server.events(job["id"])
    events = server.events(job["id"])
    tokens = [patch["token"] for event in patches_of(events) for patch in event["patches"]]
    kept = [event for event in events if event["type"] == "partial"]
    assert [event["known"] for event in kept] == [sum(GROUPS[:step]) for step in range(1, NUM_STEPS)]
    model = load_model(both_weights / DETAIL, "cpu", torch.float32)
    for event in kept:
        prefix = model.decode_partial(torch.tensor([tokens]), torch.arange(NUM_TOKENS)[None] < event["known"])[0]
        assert np.array_equal(pixels(base64.b64decode(event["data"])), prefix)
    evenly = server.submit(seed=5, previews=False, kept_previews=2)
    assert [event["index"] for event in server.events(evenly["id"]) if event["type"] == "partial"] == [0, 1]
    answer = server.client.post("/v1/generations", json=asked(kept_previews=25))
    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == "kept_previews"


def frames_of(animation: bytes) -> list[np.ndarray]:
    """Those that differ from the one before."""
    with Image.open(io.BytesIO(animation)) as opened:
        frames = [np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(opened)]
    return frames[:1] + [after for before, after in pairwise(frames) if not np.array_equal(before, after)]


@pytest.mark.running
def test_a_picture_goes_on_where_its_worker_was_killed(server: LiveServer, both_weights: Path, tmp_path: Path) -> None:
    body = asked(n=3, seed=4, guidance=2.0)
    undisturbed = server.submit(**body)
    assert server.events(undisturbed["id"])[-1]["type"] == "completed"
    settings = {"OAR_MODELS": MODELS, "OAR_DETERMINISTIC": "true", "OAR_SLOTS": "4"}
    with LiveServer(tmp_path, both_weights, is_gated=True, **settings) as other:
        with other.held(4):
            job = other.submit(**body)
            with other.stream(job["id"]) as stream:
                next(event for event in stream if event["type"] == "patches" and event["step"] == 3)
            (pid,) = wait_for(lambda: other.children("worker"))
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: other.children("worker") not in ([], [pid]))
        events = other.events(job["id"])
        found = [other.png(job["id"], image) for image in range(3)]
    (restart,) = [event for event in events if event["type"] == "restarted"]
    assert max(restart["known"]) >= 3
    for image in range(3):
        made = [patch["position"] for event in patches_of(events, image) for patch in event["patches"]]
        assert made == list(range(NUM_TOKENS))
        assert np.array_equal(pixels(found[image]), pixels(server.png(undisturbed["id"], image)))


def test_a_variation_keeps_the_first_groups(server: LiveServer, both_weights: Path) -> None:
    source = server.submit(**asked(seed=1))
    assert server.events(source["id"])[-1]["type"] == "completed"
    png = server.png(source["id"])
    model = load_model(both_weights / DETAIL, "cpu", torch.float32)
    own = model.encode(pixels(png)[None])[0].tolist()
    body = asked(image=base64.b64encode(png).decode(), strength=0.5, seed=9, n=2)
    answer = server.client.post("/v1/edits", json=body)
    assert answer.status_code == 202, answer.text
    events = server.events(answer.json()["id"])
    assert events[-1]["type"] == "completed"
    for image in range(2):
        told = patches_of(events, image)
        assert [event["step"] for event in told] == [6, 7]
        drawn = [(patch["position"], patch["token"]) for event in told for patch in event["patches"]]
        assert [position for position, _ in drawn] == list(range(8, NUM_TOKENS))
        tokens = torch.tensor([[*own[:8], *(token for _, token in drawn)]])
        assert np.array_equal(pixels(server.png(answer.json()["id"], image)), model.decode(tokens)[0])
    wide = server.client.post("/v1/edits", json={**body, "strength": 1.0})
    told = patches_of(server.events(wide.json()["id"]))
    assert [event["step"] for event in told] == list(range(1, NUM_STEPS + 1))


@pytest.mark.parametrize(
    "fields",
    [
        {"mask": base64.b64encode(encode(mask(SIZE))).decode()},
        {"mask": base64.b64encode(encode(mask(SIZE))).decode(), "strength": 0.5},
        {"offset": [2, 2]},
        {},
    ],
)
def test_what_paints_into_a_part_is_refused_with_a_sentence(server: LiveServer, fields: dict[str, Any]) -> None:
    image = base64.b64encode(encode(uploaded(SIZE))).decode()
    answer = server.client.post("/v1/edits", json=asked(image=image, **fields))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (422, "unsupported_by_model")
    assert error["message"] == (
        "detail writes pictures from coarse to fine, and can keep no part of one that is given; it varies whole "
        "pictures: send strength, and neither a mask nor an offset"
    )


def test_a_transparent_picture_cannot_be_varied(server: LiveServer) -> None:
    image = base64.b64encode(encode(mask(SIZE))).decode()
    answer = server.client.post("/v1/edits", json=asked(image=image, strength=0.5))
    assert answer.status_code == 422
    assert "varies whole pictures" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "code", "sentence"),
    [
        ({"steps": 8}, "invalid_steps", "this model writes one group a step, which is 7 steps"),
        ({"order": "halton"}, "invalid_order", "'halton' is not one of raster"),
        ({"order": list(range(NUM_TOKENS))[::-1]}, "invalid_order", "this model writes from coarse to fine"),
        ({"group_sizes": [4, 4, 4, 4]}, "invalid_steps", "this model writes one group a step"),
        ({"group_sizes": "cosine"}, "invalid_steps", "'cosine' is not one of constant"),
        ({"revise": 3}, "invalid_steps", "revise"),
    ],
)
def test_what_the_model_cannot_do_is_refused(
    server: LiveServer, fields: dict[str, Any], code: str, sentence: str
) -> None:
    answer = server.client.post("/v1/generations", json=asked(**fields))
    error = answer.json()["error"]
    assert answer.status_code == 422
    assert sentence in error["message"]
    assert error["field"] == next(iter(fields))
    assert code == error["code"]


def test_openai_s_clients_get_pictures_and_variations(server: LiveServer) -> None:
    made = server.client.post("/v1/images/generations", json={"model": DETAIL, "prompt": PROMPTS[1], "n": 1})
    assert made.status_code == 200, made.text
    png = base64.b64decode(made.json()["data"][0]["b64_json"])
    files = {"image": ("picture.png", png, "image/png")}
    varied = server.client.post("/v1/images/variations", data={"model": DETAIL}, files=files)
    assert varied.status_code == 200, varied.text
    edited = server.client.post("/v1/images/edits", data={"model": DETAIL, "prompt": PROMPTS[0]}, files=files)
    assert edited.status_code == 200, edited.text
    assert "none was sent" in edited.headers["oar-warning"]
