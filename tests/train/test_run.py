"""A recipe from pictures to a model folder that generates."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from oar_cli.lab import commands
from oar_core.config import OrderScore
from oar_core.errors import CheckpointError, ConfigError, WeightsError
from oar_core.models.load import load_model
from oar_core.models.model import ORDER_TREE
from oar_core.order.paths import halton, symmetries
from oar_core.order.plan import PlanSpec
from oar_core.sampling.defaults import default_plan
from oar_core.sampling.generate import generate
from oar_core.sampling.request import SequenceRequest
from oar_core.sampling.sampler import SamplingParams
from oar_core.train.adoption import adopt
from oar_core.train.checkpoint import load_tensors, save_tensors
from oar_core.train.kept_orders import KeptOrders
from oar_core.train.model_export import ModelExport
from oar_core.train.parallel import Processes
from oar_core.train.recipe import Recipe
from oar_core.train.recipes import RECIPES, find_recipe
from oar_core.train.run import Run
from oar_core.train.run_captions import RunCaptions
from oar_core.train.run_data import load_pictures, load_tokens
from oar_core.train.stage_folders import finetune_stage, scratch_stage, taught_order
from oar_core.train.stage_trainer import STATS, StageTrainer
from oar_core.train.stages.cheapest_order import CheapestOrderConfig
from oar_core.train.stages.order_distill import DistillConfig, load_orders
from oar_core.train.stages.order_finetune import arm
from oar_core.train.stages.order_tree import OrderTreeConfig
from oar_core.weights import Manifest, write_manifest
from oar_lab.eval.likelihood import bits_per_token
from oar_lab.eval.stage_bits import measure_stage

CPU = torch.device("cpu")


@pytest.fixture
def trained(tmp_path: Path, picture_folder: Path, tiny_recipe: Recipe) -> Run:
    run = Run(tiny_recipe, picture_folder, tmp_path / "run", CPU)
    StageTrainer(run).train_tokenizer()
    StageTrainer(run).train_any_order()
    return run


def test_a_run_exports_a_model_that_generates(trained: Run, tmp_path: Path) -> None:
    ModelExport(trained).export(tmp_path / "weights" / "tiny")
    write_manifest(tmp_path / "weights", "tiny", {"tiny": "CC0-1.0"})
    pipeline = load_model(Manifest.load(tmp_path / "weights").folder("tiny"), "cpu", torch.float32)
    request = SequenceRequest(
        "a", pipeline.encode_prompt("a red square"), 1, 0, PlanSpec(steps=4), SamplingParams(guidance=2.0)
    )
    token_ids = generate(pipeline.backbone, [request], pipeline.unconditional_ids)
    pixels = pipeline.decode(torch.tensor(token_ids))
    assert pixels.shape == (1, 16, 16, 3)
    assert pixels.dtype == np.uint8
    assert pipeline.grid == (4, 4)
    assert pipeline.defaults["steps"] == 4


def test_a_file_that_was_changed_is_not_loaded(trained: Run, tmp_path: Path) -> None:
    ModelExport(trained).export(tmp_path / "weights" / "tiny")
    write_manifest(tmp_path / "weights", "tiny", {"tiny": "CC0-1.0"})
    path = tmp_path / "weights" / "tiny" / "backbone.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(WeightsError, match="sha256"):
        Manifest.load(tmp_path / "weights").folder("tiny")


def test_a_model_tells_whether_it_makes_pixel_art(trained: Run, tmp_path: Path) -> None:
    for pixel_art in (True, False):
        folder = tmp_path / str(pixel_art)
        ModelExport(replace(trained, recipe=replace(trained.recipe, pixel_art=pixel_art))).export(folder)
        assert load_model(folder, "cpu", torch.float32).pixel_art is pixel_art


def test_the_exported_text_tokenizer_is_the_one_that_was_trained_with(trained: Run, tmp_path: Path) -> None:
    ModelExport(trained).export(tmp_path / "tiny")
    rows = load_pictures(trained, "train").rows
    pipeline = load_model(tmp_path / "tiny", "cpu", torch.float32)
    assert pipeline.encode_prompt("A  blue square") == RunCaptions(trained).text_tokenizer(list(rows)).encode(
        "a  BLUE square", max_length=8
    )


def test_tokens_are_computed_anew_for_another_tokenizer(trained: Run, tmp_path: Path) -> None:
    before = load_tokens(trained, "train").token_ids
    assert torch.equal(load_tokens(trained, "train").token_ids, before)
    stored = trained.folder / "cache" / "tokens-train.safetensors"
    stamp = stored.stat().st_mtime_ns
    checkpoint = trained.folder / "tokenizer" / "checkpoint.safetensors"
    checkpoint.touch()
    shutil.copytree(trained.data, tmp_path / "moved")
    load_tokens(replace(trained, data=tmp_path / "moved"), "train")
    assert stored.stat().st_mtime_ns == stamp, "the same tokenizer and the same pixels, elsewhere and touched"
    tensors, meta = load_tensors(checkpoint)
    save_tensors(checkpoint, {name: value * 1.5 for name, value in tensors.items()}, meta)
    load_tokens(trained, "train")
    assert stored.stat().st_mtime_ns != stamp


def test_a_later_decoder_paints_the_same_tokens_in_another_way(trained: Run) -> None:
    before, token_ids = trained.tokenizer(), load_tokens(trained, "train").token_ids.long()
    stamp = (trained.folder / "cache" / "tokens-train.safetensors").stat().st_mtime_ns
    StageTrainer(trained).train_decoder()
    after = trained.tokenizer()
    for part in ("encoder", "quantizer"):
        same = zip(getattr(before, part).state_dict().values(), getattr(after, part).state_dict().values())
        assert all(torch.equal(one, other) for one, other in same)
    assert not torch.equal(before.decode(token_ids[:4]), after.decode(token_ids[:4]))
    assert torch.equal(load_tokens(trained, "train").token_ids.long(), token_ids)
    assert (trained.folder / "cache" / "tokens-train.safetensors").stat().st_mtime_ns == stamp


def test_one_order_for_all_pictures_is_that_of_the_distilled_ones(trained: Run) -> None:
    trained = replace(trained, recipe=replace(trained.recipe, distill=DistillConfig(num_images=5)))
    own = StageTrainer(trained).distill()
    for share, count in ((0.0, 5), (0.5, 5), (1.0, len(load_tokens(trained, "train")))):
        stage = replace(trained.recipe.order_finetune_stage, consensus=share)
        found = StageTrainer(
            replace(trained, recipe=replace(trained.recipe, order_finetune_stage=stage))
        ).finetuning_orders()
        assert len(found) == count
        assert torch.equal(found.orders[:5], own.drawn_together(share).orders)
        assert torch.equal(found.indices[:5], own.indices) or share == 1
    assert len(found.orders.unique(dim=0)) == 1


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_decoder_lies_between_what_it_began_with_and_what_it_became(trained: Run, share: float) -> None:
    StageTrainer(trained).train_decoder()
    first, last, between = (
        replace(trained, recipe=replace(trained.recipe, decoder_share=value)).tokenizer().state_dict()
        for value in (0.0, 1.0, share)
    )
    for name, value in between.items():
        torch.testing.assert_close(value, first[name] * (1 - share) + last[name] * share)
    assert not torch.equal(first["decoder.to_pixels.weight"], last["decoder.to_pixels.weight"])


def test_a_decoder_that_is_not_trained_to_its_end_is_not_used(trained: Run) -> None:
    before = trained.tokenizer().state_dict()
    path = StageTrainer(trained).train_decoder()
    tensors, meta = load_tensors(path)
    save_tensors(path, tensors, meta | {"step": meta["step"] - 1})
    assert all(torch.equal(value, before[name]) for name, value in trained.tokenizer().state_dict().items())


def test_an_adopted_tokenizer_gets_a_decoder_against_a_new_adversary(trained: Run, tmp_path: Path) -> None:
    ModelExport(trained).export(tmp_path / "tiny")
    run = replace(trained, folder=tmp_path / "other")
    adopt(run, tmp_path / "tiny", only_tokenizer=True)
    StageTrainer(run).train_decoder()
    assert not torch.equal(run.tokenizer().decoder.to_pixels.weight, trained.tokenizer().decoder.to_pixels.weight)


def test_held_out_bits_of_an_untrained_head_are_those_of_chance(trained: Run) -> None:
    backbone = trained.backbone()
    torch.nn.init.zeros_(backbone.query.head.weight)
    tokens = load_tokens(trained, "test")
    bits = bits_per_token(backbone, tokens.token_ids.long(), [(0,)] * len(tokens))
    assert bits == pytest.approx(4.0, abs=1e-5)


def test_an_untrained_stage_is_named(tmp_path: Path, picture_folder: Path, tiny_recipe: Recipe) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        Run(tiny_recipe, picture_folder, tmp_path / "empty", CPU).tokenizer()


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_is_consistent_and_named_after_itself(name: str) -> None:
    assert find_recipe(name).name == name


def test_distillation_fine_tuning_and_a_policy_make_a_model_that_paints_by_it(trained: Run, tmp_path: Path) -> None:
    orders = StageTrainer(trained).distill()
    assert len(orders) == 20
    stats = json.loads((trained.orders_folder / STATS).read_text())
    assert np.array(stats["mean_rank"]).shape == (4, 4)
    assert set(stats["agreement"]["max_probability / margin"]) == {"spearman", "kendall"}
    assert stats["background_rank"] is not None
    before = trained.backbone("any_order").state_dict()
    assert StageTrainer(trained).train_order_finetune() == trained.folder / "order_finetune" / "checkpoint.safetensors"
    tuned = trained.backbone()
    assert tuned.has_policy
    assert not torch.equal(tuned.state_dict()["embed_token.token.weight"], before["embed_token.token.weight"])
    ModelExport(trained).export(tmp_path / "tiny")
    pipeline = load_model(tmp_path / "tiny", "cpu", torch.float32)
    request = SequenceRequest("a", (0,), 1, 0, PlanSpec(order="distilled", steps=4), SamplingParams(guidance=2.0))
    assert len(generate(pipeline.backbone, [request], pipeline.unconditional_ids)[0]) == 16
    for name, value in pipeline.backbone.state_dict().items():
        torch.testing.assert_close(value, tuned.state_dict()[name], rtol=1e-2, atol=1e-3)


def test_a_policy_trained_alone_leaves_the_backbone_and_replaces_the_one_beside_it(trained: Run) -> None:
    StageTrainer(trained).distill()
    before = trained.backbone()
    assert not before.has_policy
    assert StageTrainer(trained).train_order_policy() == trained.folder / "any_order-policy" / "checkpoint.safetensors"
    after = trained.backbone()
    assert after.has_policy
    assert all(torch.equal(after.state_dict()[name], value) for name, value in before.state_dict().items())
    StageTrainer(trained).train_order_finetune()
    beside = trained.backbone().state_dict()["policy.head.weight"]
    StageTrainer(trained).train_order_policy("order_finetune")
    assert not torch.equal(trained.backbone().state_dict()["policy.head.weight"], beside)


def test_an_arm_has_a_folder_of_its_own_and_no_policy(trained: Run) -> None:
    recipe_ = replace(trained.recipe, order_finetune_stage=arm("raster", trained.recipe.order_finetune_stage))
    path = StageTrainer(replace(trained, recipe=recipe_)).train_order_finetune()
    assert path.parent.name == "order_finetune-raster"
    assert default_plan(ModelExport(trained).pipeline("order_finetune-raster", torch.float32)).order == "raster"
    assert not trained.backbone("order_finetune-raster").has_policy
    assert trained.latest_stage == "any_order"


@pytest.mark.parametrize(
    ("stage", "has_policy", "order"),
    [
        ("any_order", False, "random"),
        ("any_order", True, "distilled"),
        (finetune_stage("distilled"), True, "distilled"),
        (finetune_stage("distilled", 1, context_noise=0.1, consensus=1.0), True, "distilled"),
        (finetune_stage("distilled", score="entropy", consensus=1.0), True, "distilled"),
        (finetune_stage("halton"), True, "halton"),
        (finetune_stage("locality", 2), False, "locality"),
        (finetune_stage("prompted", 1), False, "prompted"),
        (finetune_stage("raster", context_noise=0.2), False, "raster"),
        (scratch_stage("raster", 3), False, "raster"),
    ],
)
def test_a_model_draws_in_the_order_that_it_was_taught(stage: str, has_policy: bool, order: str) -> None:
    assert taught_order(stage, has_policy=has_policy) == order


def test_orders_that_prompts_decide_are_fitted_taught_and_served(trained: Run, tmp_path: Path) -> None:
    recipe_ = replace(
        trained.recipe,
        order_tree=OrderTreeConfig(num_leaves=3, min_pictures=2),
        order_finetune_stage=arm("prompted", trained.recipe.order_finetune_stage),
    )
    run = replace(trained, recipe=recipe_)
    StageTrainer(run).distill()
    with pytest.raises(CheckpointError, match="oar train order_tree"):
        StageTrainer(run).train_order_finetune()
    fitted = KeptOrders(run).fit()
    assert (fitted.num_pictures, 1 <= len(fitted.tree) <= 3) == (20, True)
    stage = StageTrainer(run).train_order_finetune().parent.name
    assert stage == "order_finetune-prompted"
    KeptOrders(replace(run, recipe=replace(recipe_, order_tree=OrderTreeConfig(num_leaves=1)))).fit()
    kept = run.backbone(stage).order_tree
    assert kept is not None
    assert torch.equal(kept.orders, fitted.tree.orders), "a later tree is not the one that it was taught"
    ModelExport(run).export(tmp_path / "tiny", stage)
    model = load_model(tmp_path / "tiny", "cpu", torch.float32)
    assert default_plan(model).order == "prompted"
    assert model.backbone.order_tree is not None
    assert torch.equal(model.backbone.order_tree.orders, fitted.tree.orders)
    assert "prompted" in model.orders
    measured = [measure_stage(run, name, "test", 8, 4, (4,)) for name in ("any_order:halton", stage)]
    assert [one.label for one in measured] == ["any_order:halton", "order_finetune-prompted:prompted"]
    rows = measured[1].rows(measured[0])
    assert [row["schedule"] for row in rows] == ["one a step", "4 cosine", "4 best"]
    assert all(sum(row["sizes"]) == 16 and len(row["sizes"]) == 4 for row in rows[1:])
    assert all(row["interval"][0] < row["difference"] < row["interval"][1] for row in rows)
    (run.orders_folder / ORDER_TREE).unlink()
    ModelExport(run).export(tmp_path / "tiny", "any_order")
    assert "prompted" not in load_model(tmp_path / "tiny", "cpu", torch.float32).orders, "nothing is left of the other"


def test_a_stage_is_taught_one_tree_of_orders(trained: Run, tmp_path: Path) -> None:
    run = replace(
        trained,
        recipe=replace(trained.recipe, order_finetune_stage=arm("prompted", trained.recipe.order_finetune_stage)),
    )
    kept = KeptOrders(run)
    folder = run.folder / "order_finetune-prompted"
    searched = [kept.search(CheapestOrderConfig(steps=4, num_trials=trials)).tree for trials in (1, 400)]
    assert not searched[0].is_same(searched[1])
    save_tensors(folder / ORDER_TREE, searched[0].tensors(), {})
    assert kept.keep(folder.name).is_same(searched[1]), "nothing was trained on the copy yet"
    before = StageTrainer(run).train_order_finetune().read_bytes()
    assert StageTrainer(run).train_order_finetune().read_bytes() == before, "the same tree: nothing is left to do"
    kept.search(CheapestOrderConfig(steps=4, num_trials=1))
    with pytest.raises(
        CheckpointError, match=r"was trained on other orders .* remove .*order_finetune-prompted or take"
    ):
        StageTrainer(run).train_order_finetune()
    own = run.own_order_tree(folder.name)
    assert own is not None
    assert own.is_same(searched[1])
    (run.orders_folder / ORDER_TREE).unlink()
    StageTrainer(run).train_order_finetune()


def test_one_process_alone_writes_the_copy_of_a_tree(trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    KeptOrders(trained).search(CheapestOrderConfig(steps=4, num_trials=1))
    monkeypatch.setattr(Processes, "current", lambda: Processes(1, 2))
    monkeypatch.setattr(Processes, "wait", lambda _: None)
    KeptOrders(trained).keep("order_finetune-prompted")
    assert not (trained.folder / "order_finetune-prompted").exists()


def test_a_model_offers_the_orders_of_a_tree_that_it_was_taught(trained: Run, tmp_path: Path) -> None:
    """A backbone of any order can be drawn with along any tree; one of the Halton order along none."""
    taught = replace(
        trained, recipe=replace(trained.recipe, order_finetune_stage=arm("halton", trained.recipe.order_finetune_stage))
    )
    stage = StageTrainer(taught).train_order_finetune().parent.name
    hashes = {ModelExport(trained).pipeline("any_order", torch.float32).model_hash}
    for trials in (1, 400):
        KeptOrders(trained).search(CheapestOrderConfig(steps=4, num_trials=trials))
        hashes.add(ModelExport(trained).pipeline("any_order", torch.float32).model_hash)
    assert len(hashes) == 3, "other orders for prompts are another model"
    for name, is_offered in ((stage, False), ("any_order", True)):
        ModelExport(trained).export(tmp_path / name, name)
        assert ("prompted" in load_model(tmp_path / name, "cpu", torch.float32).orders) is is_offered
        assert ("prompted" in ModelExport(trained).pipeline(name, torch.float32).orders) is is_offered


def test_stages_are_not_compared_on_too_few_pictures(trained: Run) -> None:
    with pytest.raises(ConfigError, match=r"split 'test' has 12 pictures; 8 are .* fitted on 5 others"):
        measure_stage(trained, "any_order:halton", "test", 8, 5, (4,))
    with pytest.raises(ConfigError, match="split 'test' has 12 pictures; 13 are"):
        measure_stage(trained, "any_order:halton", "test", 13, 5, ())
    assert len(measure_stage(trained, "any_order:halton", "test", 12, 5, ()).bits[0]) == 12


def test_the_cheapest_order_is_one_order_for_all_prompts(trained: Run) -> None:
    found = KeptOrders(trained).search(CheapestOrderConfig(steps=4, num_trials=200))
    assert found.excess <= found.start_excess <= found.halton_excess
    start = KeptOrders(trained).search(CheapestOrderConfig(steps=4, num_trials=0))
    assert start.order in symmetries(halton((4, 4)), (4, 4))
    assert start.excess == start.start_excess
    assert sum(found.sizes) == len(found.order) == 16
    again = KeptOrders(trained).search(CheapestOrderConfig(sizes=found.sizes, num_trials=200))
    assert again == found, "of the same pictures"
    tree = trained.backbone("any_order").order_tree
    assert tree is not None
    assert tree.order(()) == found.order
    with pytest.raises(ConfigError, match="sizes sum to 6; a picture has 16 positions"):
        KeptOrders(trained).search(CheapestOrderConfig(sizes=(2, 4)))


def test_fine_tuning_without_orders_says_what_to_run(trained: Run) -> None:
    with pytest.raises(CheckpointError, match="oar distill"):
        StageTrainer(trained).train_order_finetune()


def test_a_tree_is_taught_where_fine_tuning_goes_by_another_score(
    trained: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recipe may name one score for distilled orders that are trained on; a tree is of those that are distilled."""
    stage = replace(trained.recipe.order_finetune_stage, score="margin")
    recipe_ = replace(trained.recipe, order_finetune_stage=stage)
    monkeypatch.setitem(RECIPES, "sprites-64", lambda: recipe_)
    options = ["--data", str(trained.data), "--run", str(trained.folder), "--device", "cpu"]
    orders = trained.folder / "orders"
    for words in (
        ["train", "cheapest_order", "--trials", "1"],
        ["train", "order_finetune", "--images", "16", "--orders", "prompted"],
    ):
        result = CliRunner().invoke(commands[words[0]], [*words[1:], *options])
        assert result.exit_code == 0, result.output
    assert [path.name for path in orders.iterdir()] == [trained.recipe.distill.name]
    for words in (["distill", "--images", "6"], ["train", "order_tree", "--min-pictures", "1"]):
        result = CliRunner().invoke(commands[words[0]], [*words[1:], *options])
        assert result.exit_code == 0, result.output
    assert [path.name for path in orders.iterdir()] == [trained.recipe.distill.name]


def test_the_commands_of_the_stages_run_them(trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RECIPES, "sprites-64", lambda: trained.recipe)
    options = ["--data", str(trained.data), "--run", str(trained.folder), "--device", "cpu"]

    def call(*words: str) -> str:
        result = CliRunner().invoke(commands[words[0]], [*words[1:], *options, "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)["path"]

    assert "no distilled orders" in CliRunner().invoke(commands["train"], ["order_finetune", *options]).output
    score = ("--score", "margin", "--distance-weight", "0.5")
    assert "no distilled orders" in CliRunner().invoke(commands["train"], ["order_finetune", *score, *options]).output
    assert call("distill", "--images", "6", "--per-step", "4", *score).endswith("margin+0.5/stats.json")
    assert len(load_orders(trained.folder / "orders" / "margin+0.5")) == 6
    call("train", "order_finetune", "--images", "16", "--random-share", "0.5", "--context-noise", "0.1", *score)
    stage = Path(call("train", "order_finetune", "--images", "16", "--consensus", "1", *score)).parent
    assert stage.name == "order_finetune-margin-consensus1"
    call("train", "order_finetune", "--images", "16", "--orders", "locality")
    assert call("train", "order_tree", "--leaves", "2", "--min-pictures", "1", *score).endswith("orders.safetensors")
    taught = call("train", "order_finetune", "--images", "16", "--orders", "prompted", *score)
    assert Path(taught).parent.name == "order_finetune-prompted"
    assert "a score is of distilled orders" in CliRunner().invoke(
        commands["train"], ["order_finetune", "--orders", "raster", "--score", "margin", *options]
    ).output.replace("\n", " ")
    assert call("train", "decoder", "--images", "16").endswith("decoder/checkpoint.safetensors")
    assert call("train", "cheapest_order", "--sizes", "2,6,8", "--trials", "9").endswith(ORDER_TREE)
    compared = ["stages", "--stage", "any_order:raster", "--stage", "order_finetune-locality", "--images", "6"]
    shown = CliRunner().invoke(commands["eval"], [*compared, *options])
    assert "| order_finetune-locality:locality | one a step |" in shown.output
    call("train", "order_policy", "--images", "16", "--stage", "any_order", "--teacher", "orders", *score)
    call("train", "export", "--stage", "any_order", "--weights", str(tmp_path / "weights"), *score)
    backbone = load_model(tmp_path / "weights" / "tiny", "cpu", torch.float32).backbone
    assert backbone.has_policy
    assert backbone.order_score == OrderScore("margin", 0.5)
