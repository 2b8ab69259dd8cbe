"""A language model that writes pictures in raster order, served by the same worker beside the native one."""

import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from oar_core.models.load import load_model
from oar_core.order.plan import PlanSpec
from oar_core.sampling.generate import generate
from oar_core.sampling.request import SequenceRequest
from oar_core.sampling.sampler import SamplingParams
from oar_core.weights import write_manifest
from tests.importing.command import Importing
from tests.models.janus.reference import NUM_TOKENS
from tests.server.live import LiveServer, wait_for_patches
from tests.server.tiny import NAME, write_tiny_weights
from tests.waiting import wait_for

JANUS = "janus"
PROMPTS = ("a red hen", "an orc with golden boots", "a green bird on snow", "a blue bird")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    job = Importing(tmp_path_factory.mktemp("import"), JANUS)
    folder = job.weights
    folder.mkdir()
    write_tiny_weights(folder)
    done = job.run(job.pickled(job.state()), None, "--name", JANUS)
    assert done.exit_code == 0, done.output
    write_manifest(folder, NAME, {NAME: "Apache-2.0", JANUS: "MIT"})
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Iterator[LiveServer]:
    with LiveServer(tmp_path_factory.mktemp("janus"), weights, OAR_MODELS=f"{NAME},{JANUS}", OAR_THREADS="1") as live:
        yield live


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_pictures_made_at_once_are_those_of_the_reference_loop(server: LiveServer, weights: Path) -> None:
    """Eight pictures of four prompts, one of them with a negative prompt, beside one of the native model."""
    jobs = [server.submit(model=JANUS, prompt=prompt, n=2, seed=21) for prompt in PROMPTS[:3]]
    jobs.append(server.submit(model=JANUS, prompt=PROMPTS[3], negative_prompt="a red bird", n=2, seed=21))
    native = server.submit(model=NAME, steps=6)
    model = load_model(weights / JANUS, "cpu", torch.float32)
    for prompt, job in zip(PROMPTS, jobs, strict=True):
        events = server.events(job["id"])
        negative = model.encode_prompt("a red bird") if prompt == PROMPTS[3] else None
        for image in range(2):
            told = [
                (patch["position"], patch["token"])
                for event in events
                if event["type"] == "patches" and event["image"] == image
                for patch in event["patches"]
            ]
            request = SequenceRequest(
                "alone", model.encode_prompt(prompt), 21, image, PlanSpec("raster"), SamplingParams(guidance=5.0),
                negative_ids=negative,
            )  # fmt: skip
            (tokens,) = generate(model.backbone, [request], model.unconditional_ids)
            assert told == list(enumerate(tokens)), "in raster order"
            assert np.array_equal(pixels(server.png(job["id"], image)), model.decode(torch.tensor([tokens]))[0])
    assert server.events(native["id"])[-1]["type"] == "completed"


@pytest.mark.running
def test_a_picture_goes_on_where_its_worker_was_killed(server: LiveServer, weights: Path, tmp_path: Path) -> None:
    asked = {"model": JANUS, "prompt": "a red hen", "n": 12, "seed": 4, "previews": False}
    undisturbed = server.submit(**asked)
    server.events(undisturbed["id"])
    settings = {"OAR_MODELS": f"{NAME},{JANUS}", "OAR_SLOTS": "2", "OAR_THREADS": "1"}
    with LiveServer(tmp_path, weights, is_gated=True, **settings) as other:
        with other.held(40):
            job = other.submit(**asked)
            wait_for_patches(other, job["id"], 20)
            (pid,) = wait_for(lambda: other.children("worker"))
            os.kill(pid, signal.SIGKILL)
        events = other.events(job["id"])
        pictures = [other.png(job["id"], image) for image in range(12)]
    positions = [
        (event["image"], patch["position"])
        for event in events
        if event["type"] == "patches"
        for patch in event["patches"]
    ]
    assert sorted(positions) == [(image, position) for image in range(12) for position in range(NUM_TOKENS)]
    assert "restarted" in {event["type"] for event in events}
    assert pictures == [server.png(undisturbed["id"], image) for image in range(12)]


def test_the_catalogue_says_that_it_writes_in_raster_order_alone(server: LiveServer) -> None:
    models = {entry["id"]: entry for entry in server.client.get("/v1/models").json()["data"]}
    entry = models[JANUS]
    assert entry["orders"] == ["raster"]
    assert entry["group_sizes"] == ["constant"]
    assert entry["has_fixed_steps"]
    assert not entry["can_edit"]
    assert entry["defaults"]["steps"] == NUM_TOKENS
    assert entry["defaults"]["guidance"] == 5.0
    assert (entry["grid"], entry["image_size"]) == ([4, 4], [8, 8])
    options = {option["name"]: option for option in entry["options"]}
    assert (options["steps"]["minimum"], options["steps"]["maximum"]) == (NUM_TOKENS, NUM_TOKENS)
    assert "negative_prompt" in options, "it reads text"
    assert models[NAME]["can_edit"]


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"order": "random"}, "invalid_order", "raster"),
        ({"order": "confidence"}, "invalid_order", "raster"),
        ({"steps": 4}, "invalid_steps", "one position a step"),
        ({"group_sizes": "adaptive"}, "invalid_steps", "constant"),
        ({"prompt": "a hen " * 30}, "prompt_too_long", "tokens"),
    ],
)
def test_what_it_cannot_do_is_refused_before_it_is_queued(
    server: LiveServer, fields: dict[str, object], code: str, words: str
) -> None:
    answer = server.client.post("/v1/generations", json={"model": JANUS, "prompt": "a hen", **fields})
    assert answer.status_code == 422, answer.text
    error = answer.json()["error"]
    assert error["code"] == code
    assert words in error["message"]


def test_an_edit_is_refused_with_a_sentence(server: LiveServer) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    answer = server.client.post(
        "/v1/edits", files={"image": picture.getvalue()}, data={"model": JANUS, "prompt": "a hen", "strength": "0.5"}
    )
    assert answer.status_code == 422, answer.text
    assert "can keep no part" in answer.json()["error"]["message"]


def test_a_prompt_with_a_sign_of_the_model_s_own_ends_with_a_sentence(server: LiveServer) -> None:
    job = server.submit(model=JANUS, prompt="a hen <begin_of_image>")
    ending = server.events(job["id"])[-1]
    assert ending["type"] == "failed"
    assert ending["error"]["code"] == "invalid_prompt"
    assert "<begin_of_image>" in ending["error"]["message"]
