"""Models of captions: those of a T5 encoder take prompts, those of features are for the library alone."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from oar_core.models.features import FeatureConditioner
from oar_core.models.load import load_model
from oar_core.models.text_features import TextFeatureConditioner, build_encoder
from oar_core.order.plan import PlanSpec
from oar_core.sampling.generate import generate
from oar_core.sampling.request import SequenceRequest
from oar_core.sampling.sampler import SamplingParams
from oar_core.weights import write_manifest
from tests.models.folders import write_caption_model
from tests.models.test_text_features import T5, tokenizer
from tests.server.live import LiveServer
from tests.server.tiny import NAME, write_tiny_weights

FEATURES, CAPTIONS = "of-features", "of-captions"
HAS_ENCODER = importlib.util.find_spec("transformers") is not None


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_tiny_weights(folder)
    write_caption_model(folder / FEATURES, FeatureConditioner(120), FeatureConditioner.kind)
    if HAS_ENCODER:
        torch.manual_seed(0)
        conditioner = TextFeatureConditioner(tokenizer(), build_encoder(T5), 120)
        write_caption_model(folder / CAPTIONS, conditioner, "text_features", ["a hen"])
    write_manifest(folder, NAME, dict.fromkeys((NAME, FEATURES, *([CAPTIONS] if HAS_ENCODER else [])), "MIT"))
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Iterator[LiveServer]:
    names = (NAME, FEATURES, *([CAPTIONS] if HAS_ENCODER else []))
    with LiveServer(tmp_path_factory.mktemp("captions"), weights, OAR_MODELS=",".join(names)) as live:
        yield live


def test_a_model_of_features_is_listed_and_refuses_requests_with_a_sentence(server: LiveServer) -> None:
    assert server.client.get(f"/v1/models/{FEATURES}").json()["orders"] == ["raster"]
    answer = server.client.post("/v1/generations", json={"model": FEATURES, "prompt": "a hen"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["field"]) == (422, "unsupported_by_model", "model")
    assert "reads features of captions" in error["message"]


@pytest.mark.skipif(not HAS_ENCODER, reason="the T5 encoder needs the package transformers (text-features)")
def test_prompts_are_encoded_counted_and_drawn_as_by_the_reference_loop(server: LiveServer, weights: Path) -> None:
    model = load_model(weights / CAPTIONS, "cpu", torch.float32)
    sampling, negative = SamplingParams(guidance=3.0), "grass"
    jobs = {
        text: server.submit(model=CAPTIONS, prompt=text, seed=5, n=2, negative_prompt=negative)
        for text in ("hen", "a hen on grass")
    }
    for text, job in jobs.items():
        events = server.events(job["id"])
        assert events[-1]["type"] == "completed"
        for image in range(2):
            told = {
                patch["position"]: patch["token"]
                for event in events
                if event["type"] == "patches" and event["image"] == image
                for patch in event["patches"]
            }
            request = SequenceRequest(
                text,
                model.encode_prompt(text),
                5,
                image,
                PlanSpec("raster"),
                sampling,
                negative_ids=model.encode_prompt(negative),
            )
            (wanted,) = generate(model.backbone, [request], model.unconditional_ids)
            assert tuple(told[position] for position in range(16)) == wanted
    answer = server.client.post("/v1/generations", json={"model": CAPTIONS, "prompt": "hen " * 120})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "prompt_too_long")
