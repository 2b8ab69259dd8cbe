"""The shipped model, served: whatever shares its steps, a picture is the one that its seed makes alone (fp32, CPU)."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from oar_core.models.load import load_model
from oar_core.models.model import Model
from oar_core.order.plan import GROUP_SIZES, PlanSpec
from oar_core.sampling.generate import generate
from oar_core.sampling.request import SequenceRequest
from oar_core.sampling.sampler import SamplingParams
from oar_core.weights import Manifest
from tests.server.live import LiveServer

WEIGHTS = Path(__file__).parents[2] / "weights"
ORDERS = ("raster", "spiral", "hilbert", "halton", "random", "confidence", list(reversed(range(64))))


@pytest.fixture(scope="module")
def pipeline() -> Model:
    manifest = Manifest.load(WEIGHTS)
    return load_model(manifest.folder(manifest.default), "cpu", torch.float32)


def mixed_bodies(prompts: tuple[str, ...], count: int) -> list[dict[str, Any]]:
    """Different orders, seeds, steps, group sizes, guidance and truncation."""
    return [
        {
            "prompt": prompts[index % len(prompts)],
            "seed": 100 + index,
            "order": ORDERS[index % 7],
            "steps": (8, 16, 5, 12, 64)[index % 5],
            "group_sizes": GROUP_SIZES[index % 3],
            "guidance": (1.0, 2.0, 3.5)[index % 3],
            "temperature": (1.0, 0.8)[index % 2],
            "top_k": (0, 100)[index % 2],
            "top_p": (1.0, 0.95, 1.0)[index % 3],
        }
        for index in range(count)
    ]


def alone(pipeline: Model, body: dict[str, Any]) -> tuple[int, ...]:
    order = body["order"] if isinstance(body["order"], str) else tuple(body["order"])
    sampling = {name: body[name] for name in ("guidance", "temperature", "top_k", "top_p")}
    request = SequenceRequest(
        id="alone",
        condition_ids=pipeline.encode_prompt(body["prompt"]),
        seed=body["seed"],
        image_index=0,
        plan=PlanSpec(order, body["steps"], body["group_sizes"]),
        sampling=SamplingParams(**sampling),
    )
    return generate(pipeline.backbone, [request], pipeline.unconditional_ids)[0]


def test_32_different_pictures_at_once_equal_those_made_alone(pipeline: Model, tmp_path: Path) -> None:
    bodies = mixed_bodies(pipeline.example_prompts, 32)
    with LiveServer(tmp_path, WEIGHTS) as server, ThreadPoolExecutor(32) as pool:
        jobs = list(pool.map(lambda body: server.submit(**body), bodies))
        logs = list(pool.map(lambda job: server.events(job["id"]), jobs))
        pngs = [server.png(job["id"]) for job in jobs]
    for body, log, png in zip(bodies, logs, pngs):
        patches = [patch for event in log if event["type"] == "patches" for patch in event["patches"]]
        tokens = tuple(patch["token"] for patch in sorted(patches, key=lambda patch: patch["position"]))
        assert tokens == alone(pipeline, body), body
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(png))), pipeline.decode(torch.tensor([tokens]))[0])
