"""A model that draws without a condition, over HTTP."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from oar_cli import main
from oar_core.models.load import load_model
from oar_core.sampling.defaults import default_plan, default_sampling
from oar_core.sampling.generate import generate
from oar_core.sampling.request import SequenceRequest
from oar_core.weights import write_manifest
from tests.models.folders import write_unconditional_model
from tests.server.live import LiveServer

NAME = "of-nothing"
GENERATIONS, IMAGES = "/v1/generations", "/v1/images/generations"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_unconditional_model(folder / NAME)
    write_manifest(folder, NAME, {NAME: "MIT"})
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Iterator[LiveServer]:
    with LiveServer(tmp_path_factory.mktemp("unconditional"), weights, OAR_MODELS=NAME) as live:
        yield live


def test_its_entry_says_so_and_offers_nothing_that_needs_a_condition(server: LiveServer) -> None:
    entry = server.client.get(f"/v1/models/{NAME}").json()
    assert (entry["condition"], entry["max_prompt_tokens"]) == ("none", 0)
    names = {option["name"] for option in entry["options"]}
    assert {"order", "steps", "temperature"} <= names
    assert not names & {"guidance", "guidance_interval", "guidance_schedule", "negative_prompt"}


def test_a_request_without_a_prompt_is_drawn_as_by_the_reference_loop(server: LiveServer, weights: Path) -> None:
    job = server.submit(model=NAME, seed=5, prompt="")
    events = server.events(job["id"])
    assert events[-1]["type"] == "completed"
    told = {
        patch["position"]: patch["token"]
        for event in events
        if event["type"] == "patches"
        for patch in event["patches"]
    }
    model = load_model(weights / NAME, "cpu", torch.float32)
    plan, sampling = default_plan(model), default_sampling(model)
    request = SequenceRequest("a", model.unconditional_ids, 5, 0, plan, sampling)
    (drawn,) = generate(model.backbone, [request], model.unconditional_ids)
    assert tuple(told[position] for position in sorted(told)) == drawn


def test_a_prompt_is_not_required(server: LiveServer) -> None:
    answer = server.client.post(GENERATIONS, json={"seed": 1}, headers={"prefer": "wait=60"})
    assert (answer.status_code, answer.json()["status"]) == (200, "completed")
    assert answer.json()["params"]["prompt"] == ""


def test_the_command_line_needs_no_prompt_either(server: LiveServer, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    result = CliRunner().invoke(main, ["generate", "--url", server.url, "--json", "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert out.exists()


@pytest.mark.parametrize(
    ("said", "code", "field"),
    [
        ({"prompt": "a hen"}, "invalid_prompt", "prompt"),
        ({"condition": {"class": "hen"}}, "invalid_condition", "condition"),
        ({"guidance": 3.0}, "invalid_sampling", "guidance"),
        ({"guidance_schedule": "linear"}, "invalid_sampling", "guidance_schedule"),
        ({"negative_prompt": "a hen"}, "invalid_sampling", "negative_prompt"),
    ],
)
def test_what_would_say_something_is_refused(server: LiveServer, said: dict[str, Any], code: str, field: str) -> None:
    answer = server.client.post(GENERATIONS, json=said)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["field"]) == (422, code, field)
    assert NAME in error["message"]


def test_openais_clients_send_an_empty_prompt(server: LiveServer) -> None:
    answer = server.client.post(IMAGES, json={"prompt": "", "response_format": "b64_json"}, timeout=60)
    assert answer.status_code == 200, answer.text
    png = base64.b64decode(answer.json()["data"][0]["b64_json"])
    varied = server.client.post(
        "/v1/images/variations", files={"image": png}, data={"response_format": "b64_json"}, timeout=60
    )
    assert varied.status_code == 200, varied.text
    refused = server.client.post(IMAGES, json={"prompt": "a hen"}, timeout=60)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_prompt")
