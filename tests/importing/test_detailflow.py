"""`oar import detailflow`: tiny networks in the published layout of keys."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import Tensor

from oar_cli import main
from oar_core.models.load import load_model
from oar_core.sampling.defaults import default_plan, default_sampling
from oar_core.sampling.edit import Edit
from oar_core.sampling.generate import generate
from oar_core.sampling.request import SequenceRequest
from tests.importing.command import TOKENIZER, golden_file, listing
from tests.models.detailflow import published

CONFIG = {
    "backbone": published.BACKBONE_GIVEN,
    "tokenizer": published.TOKENIZER_GIVEN,
    "classes": ["tench", "goldfish", "shark", "hen", "ray"],
}
STEPS = published.GROUP + published.TOKENS // published.GROUP - 1


def run(folder: Path, checkpoint: Any, tokenizer: dict[str, Tensor] | Path, config: dict[str, Any] = CONFIG) -> Any:
    """Both files are pickles, as their projects keep them."""
    torch.save(checkpoint, folder / "128.pt")
    codes = tokenizer if isinstance(tokenizer, Path) else folder / "codes.pt"
    if not isinstance(tokenizer, Path):
        torch.save({"model": tokenizer, "optimizer": {}, "steps": 3}, codes)
    (folder / "config.json").write_text(json.dumps(config))
    files = ["--checkpoint", str(folder / "128.pt"), "--tokenizer", str(codes), "--config", str(folder / "config.json")]
    return CliRunner().invoke(main, ["import", "detailflow", *files, "--name", "m", "--out", str(folder / "weights")])


def refusal(folder: Path, *given: Any) -> str:
    result = run(folder, *given)
    assert result.exit_code == 1, result.output
    assert listing(folder / "weights") == []
    (sentence,) = [line for line in result.output.splitlines() if not line.endswith(" ...")]
    return sentence


def test_a_checkpoint_becomes_a_model_that_draws_and_varies(tmp_path: Path) -> None:
    state, codes = published.backbone_state(), published.tokenizer_state()
    other = {key: torch.zeros_like(value) for key, value in state.items()}
    result = run(tmp_path, {"model": other, "ema": state, "optimizer": {}}, codes)
    assert result.exit_code == 0, result.output
    assert "no reference numbers of DetailFlow are at hand" in result.output
    folder = tmp_path / "weights" / "m"
    assert "was not compared" in (folder / "card.md").read_text()
    model = load_model(folder, "cpu", torch.float32)
    assert model.image_size == (published.SIZE, published.SIZE)
    assert (default_plan(model).steps, default_sampling(model).guidance) == (STEPS, 1.5)
    request = SequenceRequest("one", model.encode_prompt("shark"), 5, 0, default_plan(model), default_sampling(model))
    (tokens,) = generate(model.backbone, [request], model.unconditional_ids)
    assert len(tokens) == published.TOKENS
    (picture,) = model.decode(torch.tensor([tokens]))
    pixels = published.decode(codes, list(tokens), published.SIDE).clamp(-1, 1)
    expected = ((pixels.permute(1, 2, 0).numpy() + 1) * 127.5).round()
    assert np.abs(picture.astype(np.float32) - expected).max() <= 1
    own = model.encode(picture[None])[0].tolist()
    assert own == published.encode(codes, torch.tensor(picture).permute(2, 0, 1) / 127.5 - 1)
    edit = Edit.vary(model, picture, np.ones(model.image_size, bool), strength=0.5)
    assert list(edit.known.token_ids) == own[: published.TOKENS // 2]


def test_the_exponential_average_is_what_is_drawn_with(tmp_path: Path) -> None:
    """Without one, the weights themselves."""
    state = published.backbone_state()
    other = {key: value + 1 for key, value in state.items()}
    for name, found in (("a", {"model": other, "ema": state}), ("b", {"model": state})):
        (tmp_path / name).mkdir()
        assert run(tmp_path / name, found, published.tokenizer_state()).exit_code == 0
        model = load_model(tmp_path / name / "weights" / "m", "cpu", torch.float32)
        assert torch.equal(model.backbone.state_dict()["pad"], state["spe_tok_embeddings.special_embeddings.weight"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layers.1.attention_norm.weight": None}, "it has no layers.1.attention_norm.weight"),
        ({"adapter.weight": torch.zeros(2)}, "it also has adapter.weight"),
        (
            {"layers.1.attention.wo.weight": torch.zeros(9, 16)},
            "layers.1.attention.wo.weight is [9, 16] and not [16, 16]",
        ),
        (
            {"spe_tok_embeddings.special_embeddings.weight": torch.zeros(2, 16)},
            "16 tokens do not divide into groups of 3",
        ),
    ],
)
def test_other_keys_and_shapes_are_named(tmp_path: Path, change: dict[str, Tensor | None], words: str) -> None:
    changed = {**published.backbone_state(), **change}
    state = {key: value for key, value in changed.items() if value is not None}
    assert words in refusal(tmp_path, {"model": state}, published.tokenizer_state())


def test_a_tokenizer_of_another_kind_or_size_is_refused(tmp_path: Path) -> None:
    state, codes = {"model": published.backbone_state()}, published.tokenizer_state()
    more = {**codes, "quantize.embedding.weight": torch.randn(25, 8)}
    assert "predicts 24 codes and codes.pt has 25" in refusal(tmp_path, state, more)
    extra = {**codes, "encoder.adapter": torch.zeros(2)}
    assert "it also has encoder.adapter, which detailflow_vit does not have" in refusal(tmp_path, state, extra)
    without = {key: value for key, value in codes.items() if key != "decoder.visual_model.post_layernorm.bias"}
    assert "it has no decoder.visual_model.post_layernorm.bias" in refusal(tmp_path, state, without)
    config = {**CONFIG, "tokenizer": {**published.TOKENIZER_GIVEN, "num_tokens": 8}}
    assert "its tensors say num_tokens 16, and the config says 8" in refusal(tmp_path, state, codes, config)
    assert "has" in refusal(tmp_path, state, golden_file(TOKENIZER))


def test_what_runs_something_is_not_read(tmp_path: Path) -> None:
    assert "wants to run" in refusal(tmp_path, {"model": Path("weights")}, published.tokenizer_state())


def test_its_files_are_called_by_their_names(tmp_path: Path) -> None:
    save_file(published.backbone_state(), tmp_path / "detail.safetensors")
    words = ["--tokenizer", str(golden_file(TOKENIZER)), "--out", str(tmp_path / "weights")]
    result = CliRunner().invoke(
        main, ["import", "llamagen", "--checkpoint", str(tmp_path / "detail.safetensors"), *words]
    )
    assert result.exit_code == 1
    assert "its keys are those of the backbone of detailflow" in result.output
