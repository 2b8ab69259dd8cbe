"""Drawing in chunks that survive, and what a picture costs."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from oar_core.errors import StepsError
from oar_core.models.model import Model
from oar_core.order.paths import spiral
from oar_core.order.plan import PlanSpec
from oar_core.sampling.sampler import SamplingParams
from oar_core.tensor_file import save_tensors
from oar_lab.eval import draws as draws_module
from oar_lab.eval.arms import guidance_text
from oar_lab.eval.draws import Draws, DrawSettings, counted_positions, draw_pictures, draws_path

PROMPTS = ["a red circle", "a blue square", "a red square", "a blue circle", "a circle"]
SETTINGS = DrawSettings(PlanSpec(order="random", steps=8), SamplingParams(guidance=2.0), seed=5)
SAMPLED = ("token_ids", "ranks", "steps", "query_evaluations", "policy_evaluations")


def same(first: Draws, second: Draws) -> bool:
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in SAMPLED)


def test_an_interrupted_draw_goes_on_to_the_same_pictures(
    tiny_pipeline: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = draw_pictures(tiny_pipeline, PROMPTS, SETTINGS, tmp_path / "whole.safetensors", batch_size=2)
    made: list[int] = []
    generate = draws_module.generate

    def dies_later(backbone, requests, *rest, **options):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(len(requests))
        return generate(backbone, requests, *rest, **options)

    monkeypatch.setattr(draws_module, "generate", dies_later)
    with pytest.raises(KeyboardInterrupt):
        draw_pictures(tiny_pipeline, PROMPTS, SETTINGS, tmp_path / "broken.safetensors", batch_size=2)
    made.clear()
    resumed = draw_pictures(tiny_pipeline, PROMPTS, SETTINGS, tmp_path / "broken.safetensors", batch_size=2)
    assert made == [1]
    assert same(whole, resumed)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.safetensors", "whole.safetensors"]


def test_every_picture_is_written_twice_however_many_batches_there_are(
    tiny_pipeline: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole file was written again with each batch."""
    written: list[int] = []
    save = draws_module.save_tensors

    def count(path, tensors, meta):
        written.append(len(tensors["token_ids"]))
        save(path, tensors, meta)

    monkeypatch.setattr(draws_module, "save_tensors", count)
    draw_pictures(tiny_pipeline, PROMPTS, SETTINGS, tmp_path / "draws.safetensors", batch_size=1)
    assert written == [1, 1, 1, 1, 1, 5]


def test_batches_that_the_whole_file_holds_already_are_not_read_again(tiny_pipeline: Model, tmp_path: Path) -> None:
    """A draw that was killed between its last two acts."""
    path = tmp_path / "draws.safetensors"
    drawn = draw_pictures(tiny_pipeline, PROMPTS[:3], SETTINGS, path, batch_size=2)
    for start, stale in ((0, drawn.head(2)), (2, drawn.head(1))):
        save_tensors(path.with_suffix(draws_module.PARTS) / f"{start}.safetensors", vars(stale), {})
    assert same(drawn, draw_pictures(tiny_pipeline, PROMPTS[:3], SETTINGS, path, batch_size=2))
    assert len(draw_pictures(tiny_pipeline, PROMPTS, SETTINGS, path, batch_size=2)) == 5
    assert [entry.name for entry in tmp_path.iterdir()] == ["draws.safetensors"]


def test_a_larger_draw_begins_with_the_smaller(tiny_pipeline: Model, tmp_path: Path) -> None:
    path = tmp_path / "draws.safetensors"
    small = draw_pictures(tiny_pipeline, PROMPTS[:2], SETTINGS, path, batch_size=2)
    large = draw_pictures(tiny_pipeline, PROMPTS, SETTINGS, path, batch_size=2)
    assert (len(small), len(large)) == (2, 5)
    assert same(small, large.head(2))
    assert same(small, draw_pictures(tiny_pipeline, PROMPTS[:2], SETTINGS, path))


def test_what_was_drawn_outlives_its_tokenizer_and_no_other_part(tiny_pipeline: Model, tmp_path: Path) -> None:
    decoder, backbone = copy.deepcopy(tiny_pipeline.tokenizer), copy.deepcopy(tiny_pipeline.backbone)
    for module in (decoder, backbone):
        next(module.parameters()).data.add_(1)
    pipelines = (tiny_pipeline, replace(tiny_pipeline, tokenizer=decoder), replace(tiny_pipeline, backbone=backbone))
    one, same_tokens, other = (draws_path(tmp_path, pipeline, SETTINGS, "captions") for pipeline in pipelines)
    assert one == same_tokens
    assert one != other


def test_pictures_differ_within_a_seed_and_between_seeds(tiny_pipeline: Model, tmp_path: Path) -> None:
    prompts = ["a red circle"] * 2
    drawn = [
        draw_pictures(
            tiny_pipeline, prompts, DrawSettings(SETTINGS.plan, SETTINGS.sampling, seed), tmp_path / str(seed)
        )
        for seed in (0, 1)
    ]
    pictures = torch.cat([part.token_ids for part in drawn])
    assert len(pictures.unique(dim=0)) == 4


def test_ranks_are_those_of_the_order(tiny_pipeline: Model, tmp_path: Path) -> None:
    settings = DrawSettings(PlanSpec(order="spiral", steps=3), SamplingParams())
    drawn = draw_pictures(tiny_pipeline, PROMPTS[:2], settings, tmp_path / "spiral.safetensors")
    order = torch.tensor(spiral(tiny_pipeline.grid))
    assert torch.equal(order[drawn.ranks[0].long()], torch.arange(20))
    assert drawn.steps.tolist() == [3, 3]


@pytest.mark.parametrize(
    ("order", "guidance", "queries"), [("random", 1.0, 20), ("random", 2.0, 40), ("confidence", 1.0, 210)]
)
def test_queries_are_counted_with_guidance_and_with_every_candidate(
    tiny_pipeline: Model, tmp_path: Path, order: str, guidance: float, queries: int
) -> None:
    settings = DrawSettings(PlanSpec(order=order, steps=20), SamplingParams(guidance=guidance))
    drawn = draw_pictures(tiny_pipeline, PROMPTS[:3], settings, tmp_path / "draws.safetensors")
    assert drawn.query_evaluations.tolist() == [queries] * 3
    assert drawn.policy_evaluations.tolist() == [0] * 3
    assert drawn.seconds.min() > 0


def test_each_part_is_counted_apart_and_only_meanwhile() -> None:
    module = nn.ModuleDict({"query": nn.Identity(), "policy": nn.Identity(), "other": nn.Identity()})
    with counted_positions(module, ("query", "policy", "absent")) as counts:
        module["query"](torch.zeros(2, 5, 7))
        module["query"](torch.zeros(6, 7))
        module["policy"](torch.zeros(12, dtype=torch.int64))
        module["policy"](torch.zeros(1, 1, dtype=torch.int64))
        module["other"](torch.zeros(9, 9))
    module["query"](torch.zeros(1, 1))
    assert counts == {"query": 16, "policy": 13, "absent": 0}


def test_each_setting_has_a_file_of_its_own(tiny_pipeline: Model, tmp_path: Path) -> None:
    variants = [
        SETTINGS,
        DrawSettings(PlanSpec(order="raster", steps=8), SETTINGS.sampling, 5),
        DrawSettings(SETTINGS.plan, SamplingParams(guidance=3.0), 5),
        DrawSettings(SETTINGS.plan, SETTINGS.sampling, 6),
    ]
    names = {draws_path(tmp_path, tiny_pipeline, variant, "prompts") for variant in variants}
    names.add(draws_path(tmp_path, tiny_pipeline, SETTINGS, "other prompts"))
    assert len(names) == 5


def test_a_long_caption_is_cut_as_in_training(tiny_pipeline: Model, tmp_path: Path) -> None:
    longest = tiny_pipeline.backbone.spec.max_condition
    drawn = draw_pictures(tiny_pipeline, ["a red circle " * longest], SETTINGS, tmp_path / "draws.safetensors")
    assert len(drawn) == 1


def test_a_plan_that_does_not_fit_is_refused(tiny_pipeline: Model, tmp_path: Path) -> None:
    settings = DrawSettings(PlanSpec(steps=21), SamplingParams())
    with pytest.raises(StepsError):
        draw_pictures(tiny_pipeline, PROMPTS, settings, tmp_path / "draws.safetensors")
    assert not (tmp_path / "draws.safetensors").exists()


def test_settings_without_a_changing_guidance_are_told_as_they_ever_were() -> None:
    """Else all that was drawn before would be drawn again."""
    sampling = SETTINGS.to_dict()["sampling"]
    assert sampling == {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "guidance": 2.0}
    late = replace(SETTINGS, sampling=replace(SETTINGS.sampling, guidance_interval=(0.2, 0.8)))
    growing = replace(SETTINGS, sampling=replace(SETTINGS.sampling, guidance_schedule="linear"))
    assert late.to_dict()["sampling"] == {**sampling, "guidance_interval": (0.2, 0.8)}
    assert growing.to_dict()["sampling"] == {**sampling, "guidance_schedule": "linear"}
    assert guidance_text(late.to_dict()["sampling"]) == "2 from 0.2 to 0.8"
    assert guidance_text(growing.to_dict()["sampling"]) == "2 linear"
    assert guidance_text(sampling) == "2"
