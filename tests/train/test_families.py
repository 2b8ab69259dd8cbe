"""Imported models are taught an order by the same stages as the native one, on pictures with classes."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from oar_cli.lab import commands
from oar_core.config import OrderPolicyConfig
from oar_core.errors import ConfigError, PromptError
from oar_core.models.load import load_model
from oar_core.order.plan import PlanSpec
from oar_core.sampling.generate import generate
from oar_core.sampling.request import SequenceRequest
from oar_core.sampling.sampler import SamplingParams
from oar_core.train.adopted import AdoptedModel
from oar_core.train.adoption import adopt
from oar_core.train.kept_orders import KeptOrders
from oar_core.train.loop import Curve, LoopConfig
from oar_core.train.model_export import ModelExport
from oar_core.train.optim import OptimConfig
from oar_core.train.recipe import Recipe
from oar_core.train.recipes import RECIPES, find_recipe
from oar_core.train.run import Run
from oar_core.train.run_captions import RunCaptions
from oar_core.train.stage_trainer import StageTrainer
from oar_core.train.stages.order_distill import DistillConfig
from oar_core.weights import Manifest, write_manifest
from oar_lab.eval.likelihood import bits_per_token
from tests.importing.command import Importing
from tests.models.folders import CLASS_NAMES, write_golden_model

CPU = torch.device("cpu")
FAMILIES = ("arpg", "lpd", "randar")
USED = CLASS_NAMES[:3]
COLOURS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def class_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures of each of three classes to train on, and four held out, a folder for each class."""
    folder = tmp_path_factory.mktemp("classes")
    for split, count in (("train", 8), ("test", 4)):
        for name, colour in zip(USED, COLOURS):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                image = Image.new("RGB", (8, 8), "white")
                image.paste(colour, (number % 4, 0, number % 4 + 4, 8))
                image.save(folder / split / name / f"{number}.png")
    return folder


def settings() -> Recipe:
    loop = LoopConfig(num_images=480, batch_size=8, log_every=1, checkpoint_every=20, optim=OptimConfig(lr=1e-3))
    return replace(
        find_recipe("imported"),
        name="tiny",
        distill=DistillConfig(num_images=24, batch_size=8, block_size=8),
        order_finetune_loop=loop,
        order_policy=OrderPolicyConfig(width=16, num_layers=1),
        order_policy_loop=replace(loop, num_images=160),
    )


def short_settings() -> Recipe:
    """A few steps."""
    recipe_ = settings()
    return replace(recipe_, order_finetune_loop=replace(recipe_.order_finetune_loop, num_images=80))


def adopted(family: str, data: Path, folder: Path) -> Run:
    """A run that begins with the golden checkpoint of a family, as `oar import` makes a model of it."""
    folder.mkdir(exist_ok=True)
    importing = Importing(folder, family)
    assert importing.run(importing.golden).exit_code == 0
    (model,) = (path for path in importing.weights.iterdir() if path.is_dir())
    run = Run(settings(), data, folder / "run", CPU)
    adopt(run, model)
    return run


def held_out_bits(run: Run, stage: str, order: str) -> float:
    token_ids, conditions = RunCaptions(run).sample("test", 12)
    return bits_per_token(run.backbone(stage), token_ids, conditions, order)


def losses(run: Run, stage: str) -> list[float]:
    return [float(row["total"]) for row in Curve(run.folder / stage / "curve.csv", first_step=1 << 30).rows()]


@pytest.fixture(scope="module", params=FAMILIES)
def taught(request: pytest.FixtureRequest, class_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = adopted(request.param, class_folder, tmp_path_factory.mktemp(request.param))
    StageTrainer(run).distill()
    StageTrainer(run).train_order_policy("any_order")
    StageTrainer(run).train_order_finetune()
    return run


def test_the_loss_falls_and_so_do_held_out_bits_in_the_new_order(taught: Run) -> None:
    curve = losses(taught, "order_finetune")
    assert sum(curve[-5:]) < 0.8 * sum(curve[:5])
    before = held_out_bits(taught, "any_order", "distilled")
    after = held_out_bits(taught, "order_finetune", "distilled")
    assert after < 0.8 * before


def test_the_taught_model_is_a_folder_that_draws_in_its_own_order(taught: Run, tmp_path: Path) -> None:
    ModelExport(taught).export(tmp_path / "tiny")
    model = load_model(tmp_path / "tiny", "cpu", torch.float32)
    config = taught.adopted
    assert config is not None
    assert (model.family, model.defaults["order"]) == (config.config["family"], "distilled")
    assert "distilled" in model.orders
    assert "They are no longer those of its authors" in (tmp_path / "tiny" / "card.md").read_text()
    plan, sampling = PlanSpec(order="distilled", steps=5), SamplingParams(guidance=2.0)
    request = SequenceRequest("a", model.encode_prompt(USED[1]), 1, 0, plan, sampling)
    token_ids = generate(model.backbone, [request], model.unconditional_ids)
    assert model.decode(torch.tensor(token_ids)).shape == (1, 8, 8, 3)


def test_a_policy_learns_from_its_backbone_what_to_ask_next(taught: Run) -> None:
    curve = losses(taught, "any_order-policy")
    assert sum(curve[-5:]) < sum(curve[:5])


def test_a_class_may_decide_the_order_of_an_imported_model(class_folder: Path, tmp_path: Path) -> None:
    run = adopted("randar", class_folder, tmp_path)
    StageTrainer(run).distill()
    fitted = KeptOrders(run).fit()
    ModelExport(run).export(tmp_path / "tiny", "any_order")
    model = load_model(tmp_path / "tiny", "cpu", torch.float32)
    assert "prompted" in model.orders
    assert f"keeps {len(fitted.tree)} orders, which prompts decide" in (tmp_path / "tiny" / "card.md").read_text()
    prompt, plan = model.encode_prompt(USED[1]), PlanSpec(order="prompted", steps=5)
    request = SequenceRequest("a", prompt, 1, 0, plan, SamplingParams(guidance=2.0))
    seen: list[int] = []
    generate(
        model.backbone, [request], model.unconditional_ids,
        on_step=lambda i, step, steps, new: seen.extend(patch.position for patch in new),
    )  # fmt: skip
    assert isinstance(prompt, tuple)
    assert tuple(seen) == fitted.tree.order(prompt)


@pytest.mark.parametrize("orders", ["halton", "random"])
def test_an_order_that_is_no_policys_is_taught_too(
    orders: str, class_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = adopted("randar", class_folder, tmp_path)
    monkeypatch.setitem(RECIPES, "tiny", settings)
    options = ["--recipe", "tiny", "--data", str(run.data), "--run", str(run.folder), "--device", "cpu", "--json"]
    result = CliRunner().invoke(commands["train"], ["order_finetune", "--orders", orders, *options])
    assert result.exit_code == 0, result.output
    stage = f"order_finetune-{orders}"
    assert held_out_bits(run, stage, orders) < held_out_bits(run, "any_order", orders)
    weights = ["--weights", str(tmp_path / "out"), "--stage", stage]
    result = CliRunner().invoke(commands["train"], ["export", *weights, *options])
    assert result.exit_code == 0, result.output
    manifest = Manifest.load(tmp_path / "out")
    (name,) = manifest.models
    assert name.endswith("-ordered"), "the recipe is a shipped one, so the model has its own name"
    assert manifest.entries[name].licence == "MIT"
    assert json.loads((manifest.folder(name) / "config.json").read_text())["defaults"]["order"] == orders


@pytest.mark.parametrize("family", ["llamagen", "janus"])
def test_a_model_that_writes_row_by_row_is_refused(family: str, class_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=f"of family {family}, which writes in one order alone: there is no order to distil"
    ):
        adopted(family, class_folder, tmp_path)
    assert not (tmp_path / "run").exists()


def test_stages_that_the_model_brings_are_not_repeated(class_folder: Path, tmp_path: Path) -> None:
    run = adopted("lpd", class_folder, tmp_path)
    stages = (
        StageTrainer(run).train_tokenizer,
        StageTrainer(run).train_decoder,
        StageTrainer(run).train_any_order,
        lambda: StageTrainer(run).train_from_scratch("raster"),
    )
    for stage in stages:
        with pytest.raises(ConfigError, match="whose stages are done"):
            stage()
    with pytest.raises(ConfigError, match="a run adopts a model before anything is trained in it"):
        adopt(run, tmp_path / "weights" / next(iter(Manifest.load(tmp_path / "weights").models)))


def test_a_class_that_the_model_does_not_know_is_named(class_folder: Path, tmp_path: Path) -> None:
    run = adopted("lpd", class_folder, tmp_path)
    other = tmp_path / "others"
    for name in ("goldfish", "teapot"):
        (other / "train" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), "red").save(other / "train" / name / "1.png")
    with pytest.raises(PromptError, match="'teapot' is no class of this model"):
        StageTrainer(replace(run, data=other)).distill()


def test_a_run_knows_what_it_began_with(class_folder: Path, tmp_path: Path) -> None:
    assert AdoptedModel.find(tmp_path) is None
    run = adopted("arpg", class_folder, tmp_path)
    found = AdoptedModel.find(run.folder)
    assert found is not None
    assert (found.spec.grid, found.image_size, found.licence) == ((4, 4), (8, 8), "MIT")
    write_golden_model("arpg", tmp_path / "bare" / "arpg")
    other = replace(run, folder=tmp_path / "other")
    adopt(other, tmp_path / "bare" / "arpg")
    assert ModelExport(other).licence == "unknown", "no manifest lies beside the folder"
    names: Sequence[str] = [path.name for path in (other.folder / "model").iterdir()]
    assert sorted(names) == ["classes.json", "config.json", "origin.json", "tokenizer.safetensors"]
    write_manifest(tmp_path / "bare", "arpg", {"arpg": "CC0-1.0"})
