"""An imported model that was taught its order is served with it."""

from pathlib import Path

import torch

from oar_core.models.load import load_model
from oar_core.sampling.defaults import default_plan, default_sampling
from oar_core.sampling.generate import generate
from oar_core.sampling.request import SequenceRequest
from oar_core.train.model_export import ModelExport
from oar_core.train.run import Run
from oar_core.train.stage_trainer import StageTrainer
from oar_core.weights import write_manifest
from tests.models.folders import CLASS_NAMES, NUM_TOKENS
from tests.server.live import LiveServer
from tests.train.test_families import adopted, class_folder, short_settings

__all__ = ["class_folder"]


def test_a_model_that_was_taught_an_order_is_served_with_it(class_folder: Path, tmp_path: Path) -> None:
    begun = adopted("randar", class_folder, tmp_path)
    run = Run(short_settings(), begun.data, begun.folder, begun.device)
    StageTrainer(run).distill()
    StageTrainer(run).train_order_finetune()
    weights = tmp_path / "taught"
    ModelExport(run).export(weights / "tiny")
    write_manifest(weights, "tiny", {"tiny": ModelExport(run).licence})
    model = load_model(weights / "tiny", "cpu", torch.float32)
    plan, sampling = default_plan(model), default_sampling(model)
    assert plan.order == "distilled"
    wanted = generate(
        model.backbone,
        [SequenceRequest("a", model.encode_prompt(CLASS_NAMES[1]), 11, index, plan, sampling) for index in range(3)],
        model.unconditional_ids,
    )
    (tmp_path / "server").mkdir()
    with LiveServer(tmp_path / "server", weights) as server:
        (entry,) = server.client.get("/v1/models").json()["data"]
        assert "distilled" in entry["orders"]
        assert entry["defaults"]["order"] == "distilled"
        body = {"condition": {"class": CLASS_NAMES[1]}, "seed": 11, "n": 3}
        job = server.client.post("/v1/generations", json=body).json()
        patches = [event for event in server.events(job["id"]) if event["type"] == "patches"]
        for image in range(3):
            own = [patch for event in patches if event["image"] == image for patch in event["patches"]]
            told = [(patch["position"], patch["token"]) for patch in own]
            assert sorted(told) == list(enumerate(wanted[image]))
            assert len(told) == NUM_TOKENS
