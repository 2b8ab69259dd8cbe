"""Training of what writes from coarse to fine: each loss and its option, checkpoints, and the model at the end."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from oar_cli import main
from oar_core.detail_config import DetailBackboneConfig
from oar_core.errors import CheckpointError, ConfigError
from oar_core.models.load import load_model
from oar_core.order.plan import PlanSpec
from oar_core.sampling.generate import generate
from oar_core.sampling.request import SequenceRequest
from oar_core.sampling.sampler import SamplingParams
from oar_core.train.data import ImageSet
from oar_core.train.detail_trainer import DetailTrainer
from oar_core.train.first_token import FirstTokenHead
from oar_core.train.loop import LoopConfig, Step, train
from oar_core.train.model_export import ModelExport
from oar_core.train.recipe import Recipe, SamplingDefaults
from oar_core.train.recipe_file import load_recipe
from oar_core.train.recipes import find_recipe
from oar_core.train.run import Run
from oar_core.train.stage_trainer import StageTrainer
from oar_core.train.stages.coarse_to_fine import CoarseToFineStage, CoarseToFineStageConfig
from oar_core.train.stages.detail_tokenizer import DetailTokenizerStage, DetailTokenizerStageConfig
from oar_core.train.stages.views import draw_view
from oar_core.train.view_net import ViewNet
from oar_core.train.wrong_codes import correct, draw_wrong_span, near_codes
from tests.models.detailflow.tiny import TOKENIZER, tokenizer

CPU = torch.device("cpu")
TINY_LOOP = LoopConfig(num_images=32, batch_size=8, log_every=1, checkpoint_every=2)
STAGE = DetailTokenizerStageConfig(vgg_weight=0.0, alignment_weight=0.0, init_sample=32)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def a_step(number: int = 1, seed: int = 0) -> Step:
    return Step(number, 10, CPU, generator(seed))


@pytest.fixture
def images() -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 16, 16, 3), dtype=np.uint8)
    return ImageSet(pixels, [{"caption": "a thing"}] * 24, np.arange(24))


@pytest.fixture
def detail_recipe() -> Recipe:
    base = find_recipe("avatars-64-detail")
    return replace(
        base,
        name="tiny-detail",
        caption_source="plain",
        column_source="",
        attributes=(),
        text_vocab=280,
        tokenizer=TOKENIZER,
        tokenizer_loop=TINY_LOOP,
        views_loop=replace(TINY_LOOP, seed=5),
        detail_tokenizer_stage=replace(STAGE, alignment_weight=1.0),
        backbone=DetailBackboneConfig(
            num_tokens=8,
            group_size=2,
            vocab_size=32,
            condition_vocab=280,
            max_condition=8,
            width=16,
            num_heads=2,
            num_layers=1,
        ),
        any_order_loop=TINY_LOOP,
        defaults=SamplingDefaults(order="raster", steps=5, group_sizes="constant"),
    )


def test_a_wrong_span_is_a_token_of_the_first_group_or_a_whole_later_one() -> None:
    drawn = {draw_wrong_span(16, 4, generator(seed)) for seed in range(200)}
    assert drawn == {(0, 1), (1, 2), (2, 3), (3, 4), (4, 8), (8, 12)}  # never the last group
    assert {draw_wrong_span(3, 4, generator(seed)) for seed in range(50)} == {(0, 1), (1, 2), (2, 3)}


def test_a_wrong_code_is_one_of_the_nearest_to_the_right_one() -> None:
    codebook = torch.nn.functional.normalize(torch.randn(32, 8), dim=-1)
    token_ids = torch.arange(32).repeat(40, 1)
    wrong = near_codes(codebook, token_ids, 4, generator())
    for token in range(32):
        nearest = (codebook @ codebook[token]).topk(4).indices.tolist()
        assert set(wrong[:, token].tolist()) == set(nearest)
        assert token in nearest
    assert near_codes(codebook, token_ids, 1, generator()).equal(token_ids)


def test_prefixes_come_as_often_as_they_should_and_have_the_lengths_that_there_are(images: ImageSet) -> None:
    stage = DetailTokenizerStage(images, tokenizer(), replace(STAGE, prefix_share=0.5))
    drawn = [stage.draw_count(a_step(seed=seed)) for seed in range(400)]
    assert set(drawn) == {1, 2, 4, 6, 8}
    assert 140 < sum(count < 8 for count in drawn) < 260
    never = DetailTokenizerStage(images, tokenizer(), replace(STAGE, prefix_share=0.0))
    assert {never.draw_count(a_step(seed=seed)) for seed in range(50)} == {8}


def test_the_target_of_a_prefix_has_its_canvas_and_nothing_finer_than_its_resolution(images: ImageSet) -> None:
    stage = DetailTokenizerStage(images, tokenizer(), STAGE)
    real = images.images(torch.arange(3))
    assert stage.target(real, 8) is real
    coarse = stage.target(real, 1)
    assert coarse.shape == (3, 3, 4, 4)
    assert coarse.flatten(2).std(-1).max() < 1e-5  # one pixel
    assert (coarse.mean((2, 3)) - real.mean((2, 3))).abs().max() < 1e-5
    assert stage.target(real, 4).shape == (3, 3, 12, 12)


@pytest.mark.parametrize(
    "changes", [{}, {"has_correction": False}, {"prefix_share": 1.0}, {"alignment_weight": 1.0}, {"near": 1}]
)
def test_each_option_trains(images: ImageSet, changes: dict[str, float]) -> None:
    config = replace(STAGE, **changes)
    frozen = ViewNet().eval() if config.alignment_weight else None
    stage = DetailTokenizerStage(images, tokenizer(), config, frozen, ViewNet.width)
    stage.before_step(a_step(0))
    losses = stage.loss(torch.arange(8), a_step())
    losses["total"].backward()
    assert losses["total"].isfinite()
    assert ("alignment" in losses) is bool(config.alignment_weight)
    grads = {name for name, value in stage.tokenizer.named_parameters() if value.grad is not None}
    assert ("encoder.second_queries" in grads) is config.has_correction
    assert "decoder.patch" in grads


def test_a_wrong_prefix_is_decoded_beside_the_right_one_and_takes_no_gradient(images: ImageSet) -> None:
    stage = DetailTokenizerStage(images, tokenizer(), STAGE)
    memory = stage.tokenizer.read(images.images(torch.arange(4)))
    found = stage.tokenizer.quantizer(stage.tokenizer.describe(memory))
    for seed in range(6):
        span = draw_wrong_span(8, 2, generator(seed))
        corrected = correct(stage.tokenizer, memory, found.token_ids, span, 4, generator(seed))
        assert corrected.token_ids[:, : span.start].equal(found.token_ids[:, : span.start])
        assert torch.allclose(corrected.codes[:, : span.start], found.codes[:, : span.start], atol=1e-6)
        assert not corrected.codes.requires_grad, "what stands before takes none"
        assert corrected.behind.token_ids.shape == (4, 8 - span.end)
        assert corrected.vectors.requires_grad


def test_what_cannot_be_trained_is_refused(images: ImageSet, detail_recipe: Recipe) -> None:
    with pytest.raises(ConfigError, match="cannot correct those before them"):
        DetailTokenizerStage(images, tokenizer(replace(TOKENIZER, is_causal=False)), STAGE)
    with pytest.raises(ConfigError, match="no features to align"):
        DetailTokenizerStage(images, tokenizer(), replace(STAGE, alignment_weight=1.0))
    with pytest.raises(ConfigError, match="are shares"):
        replace(STAGE, prefix_share=1.5)
    with pytest.raises(ConfigError, match="are shares"):
        CoarseToFineStageConfig(corrected_share=2)
    with pytest.raises(ConfigError, match="differ in their groups"):
        replace(detail_recipe, tokenizer=replace(TOKENIZER, group_size=4))
    with pytest.raises(ConfigError, match="different families"):
        replace(detail_recipe, backbone=find_recipe("avatars-128").backbone)


def test_the_first_token_is_drawn_to_the_features() -> None:
    head, codes, features = FirstTokenHead(8, 16), torch.randn(6, 8, requires_grad=True), torch.randn(6, 16)
    loss = head(codes, features)
    loss.backward()
    assert 0 <= loss.item() <= 2
    assert codes.grad.abs().sum() > 0
    foretold = head.layers(codes).detach()
    assert head(codes, 3 * foretold).item() == pytest.approx(0, abs=1e-5)


def test_a_view_is_of_the_same_picture_and_differs_each_time(images: ImageSet) -> None:
    real = images.images(torch.arange(4))
    first, second = draw_view(real, generator(1)), draw_view(real, generator(2))
    assert first.shape == real.shape
    assert first.abs().max() <= 1
    assert not first.equal(second)
    assert draw_view(real, generator(1)).equal(first)


def test_a_share_of_the_sequences_is_corrected_and_what_is_asked_for_is_right(images: ImageSet) -> None:
    network = tokenizer()
    token_ids = network.encode(images.images(torch.arange(24)))
    captioner = SimpleNamespace(tokens=SimpleNamespace(token_ids=token_ids))
    backbone = torch.nn.Linear(1, 1)
    stage = CoarseToFineStage(captioner, backbone, CoarseToFineStageConfig(0.5), network, images, near=4)
    indices = torch.arange(8)
    for seed in range(8):
        span = draw_wrong_span(8, 2, generator(seed))
        context, wanted = stage._with_corrections(token_ids[indices], indices, a_step(seed=seed))
        assert context[4:].equal(token_ids[4:8])
        assert wanted[4:].equal(token_ids[4:8])
        assert wanted[:4, : span.end].equal(token_ids[:4, : span.end])  # the right code where a wrong one is seen
        assert context[:4, span.end :].equal(wanted[:4, span.end :])
        assert context[:4, : span.start].equal(token_ids[:4, : span.start])
    plain = CoarseToFineStage(captioner, backbone, CoarseToFineStageConfig(0.0), network, None, near=4)
    assert plain._with_corrections(token_ids, indices, a_step())[0] is token_ids


def test_a_run_goes_on_from_its_checkpoint_along_the_same_curve(images: ImageSet, tmp_path: Path) -> None:
    def stage() -> DetailTokenizerStage:
        torch.manual_seed(3)
        return DetailTokenizerStage(images, tokenizer(), STAGE)

    train(stage(), TINY_LOOP, tmp_path / "whole", CPU)

    class Killed(DetailTokenizerStage):
        def before_step(self, step: Step) -> None:
            if step.number == 3:
                raise KeyboardInterrupt
            super().before_step(step)

    torch.manual_seed(3)
    with pytest.raises(KeyboardInterrupt):
        train(Killed(images, tokenizer(), STAGE), TINY_LOOP, tmp_path / "cut", CPU)
    train(stage(), TINY_LOOP, tmp_path / "cut", CPU)
    assert (tmp_path / "cut" / "curve.csv").read_text() == (tmp_path / "whole" / "curve.csv").read_text()


def test_the_stages_make_a_model_that_draws(picture_folder: Path, detail_recipe: Recipe, tmp_path: Path) -> None:
    run = Run(detail_recipe, picture_folder, tmp_path / "run", CPU)
    with pytest.raises(ConfigError, match="oar train views"):
        StageTrainer(run).train_tokenizer()
    DetailTrainer(run).train_views()
    StageTrainer(run).train_tokenizer()
    with pytest.raises(CheckpointError, match="does not exist"):
        run.drawing_backbone("coarse_to_fine")
    DetailTrainer(run).train_coarse_to_fine()
    ModelExport(run).export(tmp_path / "model")
    model = load_model(tmp_path / "model", "cpu", torch.float32)
    request = SequenceRequest(
        "a", model.encode_prompt("a red square"), 1, 0, PlanSpec("raster"), SamplingParams(guidance=2.0)
    )
    (tokens,) = generate(model.backbone, [request], model.unconditional_ids)
    assert model.decode(torch.tensor([tokens])).shape == (1, 16, 16, 3)
    assert ModelExport(run).pipeline("coarse_to_fine", torch.float32).orders == ("raster",)


@pytest.mark.parametrize("stage", ["any_order", "decoder", "from_scratch"])
def test_stages_of_a_grid_are_refused(stage: str, picture_folder: Path, tmp_path: Path) -> None:
    words = ["train", stage, "--recipe", "avatars-64-detail", "--data", str(picture_folder), "--run", str(tmp_path)]
    result = CliRunner().invoke(main, [*words, "--device", "cpu"])
    assert result.exit_code == 1
    assert "writes pictures from coarse to fine; this stage is for a grid" in result.output


def test_a_recipe_of_a_grid_has_no_such_stage(picture_folder: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="whose first stage is any_order"):
        DetailTrainer(Run(tiny_recipe, picture_folder, tmp_path, CPU)).train_coarse_to_fine()


def test_a_file_changes_the_groups_of_both_networks(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('base = "avatars-64-detail"\ntokenizer.num_tokens = 16\ntokenizer.group_size = 2\n')
    mine = load_recipe(str(path))
    assert (mine.backbone.num_tokens, mine.backbone.group_size, mine.defaults.steps) == (16, 2, 2 + 16 // 2 - 1)
    path.write_text('base = "avatars-64-detail"\ndefaults.steps = 8\n')
    with pytest.raises(ConfigError, match="one group a step: 11 steps"):
        load_recipe(str(path))
    path.write_text('base = "avatars-128-detail"\ntokenizer.has_causal_first = false\n')
    assert load_recipe(str(path)).defaults.steps == 8
