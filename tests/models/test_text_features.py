"""Prompts through a T5 encoder: a tiny one with random weights."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from oar_core.errors import ConfigError, RequestError, WeightsError
from oar_core.models import text_features
from oar_core.models.base import Features
from oar_core.models.load import load_conditioner, load_model
from oar_core.models.text_features import ENCODER, ENCODER_CONFIG, TextFeatureConditioner, build_encoder
from oar_core.order.plan import PlanSpec
from oar_core.sampling.generate import generate
from oar_core.sampling.request import SequenceRequest
from oar_core.sampling.sampler import SamplingParams
from tests.models.folders import NUM_TOKENS, write_caption_model

WORDS = ["<pad>", "</s>", "<unk>", "a", "hen", "on", "grass"]
T5 = {
    "vocab_size": len(WORDS), "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4,
    "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
}  # fmt: skip


def tokenizer() -> Tokenizer:
    """Words, with an end token behind them as T5's has."""
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return made


def test_without_transformers_a_model_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(text_features, "import_module", missing)
    with pytest.raises(ConfigError, match=r"pip install .oar-server\[text-features\]"):
        build_encoder(T5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers", reason="the T5 encoder needs the package transformers (text-features)")
    path = tmp_path_factory.mktemp("captions") / "model"
    torch.manual_seed(0)
    conditioner = TextFeatureConditioner(tokenizer(), build_encoder(T5), 120)
    write_caption_model(path, conditioner, "text_features", ["a hen"])
    return path


def test_a_prompt_becomes_the_encoders_features(folder: Path) -> None:
    conditioner = load_conditioner(folder)
    found = conditioner.encode("a hen on grass", max_length=120)
    assert isinstance(found, Features)
    assert found.values.shape == (5, 32)  # with the end token
    encoder = build_encoder(T5).eval()
    encoder.load_state_dict(text_features.read_tensors(folder / ENCODER), strict=False)
    ids = torch.tensor([[3, 4, 5, 6, 1]])
    padded = torch.cat([ids, torch.zeros(1, 7, dtype=torch.long)], dim=1)  # theirs is padded and masked
    with torch.inference_mode():
        wanted = encoder(input_ids=padded, attention_mask=(padded != 0).long()).last_hidden_state[0, :5]
    torch.testing.assert_close(found.values, wanted, atol=1e-5, rtol=0)


def test_prompts_that_are_empty_or_too_long_are_refused_and_captions_cut(folder: Path) -> None:
    conditioner = load_conditioner(folder)
    assert conditioner.num_special_tokens == 1
    with pytest.raises(RequestError, match="the prompt is empty"):
        conditioner.encode("  ", max_length=120)
    with pytest.raises(RequestError, match="the prompt has 120 tokens; this model reads 119"):
        conditioner.encode("hen " * 120, max_length=120)
    nothing, cut = conditioner.encode_captions(["", "hen " * 300], max_length=120)
    assert nothing == conditioner.unconditional_ids == tuple(range(120))
    assert len(cut) == 120


def test_prompts_of_different_lengths_are_drawn_together_as_alone(folder: Path) -> None:
    model = load_model(folder, "cpu", torch.float32)
    assert (model.conditioner.kind, model.max_prompt_tokens) == ("text", 119)
    sampling = SamplingParams(guidance=7.5)
    requests = [
        SequenceRequest(text, model.encode_prompt(text), 4, 0, PlanSpec("raster"), sampling)
        for text in ("hen", "a hen on grass", "grass on a hen on grass")
    ]
    together = generate(model.backbone, requests, model.unconditional_ids)
    assert together == [generate(model.backbone, [request], model.unconditional_ids)[0] for request in requests]
    assert {len(tokens) for tokens in together} == {NUM_TOKENS}


def test_files_that_are_missing_or_of_another_encoder_are_refused(folder: Path, tmp_path: Path) -> None:
    for name in ("text.json", ENCODER, ENCODER_CONFIG):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    config = json.loads((folder / ENCODER_CONFIG).read_text())
    (tmp_path / ENCODER_CONFIG).write_text(json.dumps({**config, "encoder": {**T5, "num_layers": 3}}))
    with pytest.raises(WeightsError, match=r"does not fit its config: encoder\.block\.2"):
        TextFeatureConditioner.load(tmp_path)
    (tmp_path / ENCODER_CONFIG).write_text(json.dumps({**config, "encoder": {**T5, "d_ff": 64}}))
    with pytest.raises(WeightsError, match="does not fit its config"):
        TextFeatureConditioner.load(tmp_path)
    (tmp_path / ENCODER).unlink()
    with pytest.raises(WeightsError, match=f"{ENCODER} is missing"):
        TextFeatureConditioner.load(tmp_path)
