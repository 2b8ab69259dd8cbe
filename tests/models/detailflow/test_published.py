"""Published checkpoints, in their own layout: this library's networks follow the rules that are written out beside."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from oar_core.detail_config import DetailBackboneConfig
from oar_core.errors import WeightsError
from oar_core.models.base import Commit, Condition, Query
from oar_core.models.checkpoint import check_fits
from oar_core.models.detailflow.backbone import DetailBackbone
from oar_core.models.detailflow_vit import DetailVitConfig, DetailVitTokenizer
from oar_core.models.importer import Importer
from oar_core.models.load import family
from oar_core.models.prefix_resolution import in_whole_patches, resolution
from tests.models.detailflow import published

CLOSE = 2e-5


def importers() -> tuple[Importer, Importer]:
    backbone, tokenizer = family("detailflow").importer, family("detailflow_vit").tokenizer_importer
    assert backbone is not None
    assert tokenizer is not None
    return backbone, tokenizer


def shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def backbone_of(state: Mapping[str, Tensor]) -> DetailBackbone:
    importer, _ = importers()
    config = importer.infer(shapes(state), {**published.BACKBONE_GIVEN, "num_tokens": published.TOKENS})
    network = DetailBackbone(DetailBackboneConfig.from_dict(config)).eval()
    tensors = importer.native_state(state, config)
    check_fits(tensors, shapes(network.state_dict()))
    network.load_state_dict(tensors)
    return network


def tokenizer_of(state: Mapping[str, Tensor]) -> DetailVitTokenizer:
    _, importer = importers()
    config = importer.infer(shapes(state), {**published.TOKENIZER_GIVEN, "group_size": published.GROUP})
    network = DetailVitTokenizer(DetailVitConfig.from_dict(config)).eval()
    network.load_state_dict(importer.native_state(state, config))
    return network


def test_the_backbone_answers_as_the_published_rules_say() -> None:
    """In a whole pass, and with a cache, group by group."""
    state, generator = published.backbone_state(), torch.Generator().manual_seed(3)
    network = backbone_of(state)
    tokens = torch.randint(published.CODES, (published.TOKENS,), generator=generator)
    expected = published.logits(state, 2, tokens[: -published.GROUP].tolist())
    condition = Condition(torch.tensor([[2]]), torch.tensor([1]))
    with torch.no_grad():
        whole = network(condition, tokens[None], torch.arange(published.TOKENS)[None])[0]
    assert (whole - expected).abs().max() < CLOSE
    cache, slots = network.new_cache(1), torch.tensor([0])
    nothing = Commit(tokens[None, :0], tokens[None, :0], torch.tensor([0]))
    network.prefill(cache, slots, condition, nothing)
    start, commit = 0, nothing
    for size in network.spec.fixed_sizes or ():
        asked = torch.arange(start, start + size)
        found = network.step(cache, slots, commit, Query(asked, (size,)))
        assert (found - expected[start : start + size]).abs().max() < CLOSE
        commit = Commit(tokens[asked][None], asked[None], torch.tensor([size]))
        start += size
    assert start == published.TOKENS


def test_the_tokenizer_encodes_as_the_published_rules_say() -> None:
    state, generator = published.tokenizer_state(), torch.Generator().manual_seed(3)
    images = torch.rand(2, 3, published.SIZE, published.SIZE, generator=generator) * 2 - 1
    with torch.no_grad():
        found = tokenizer_of(state).encode(images)
    assert found.tolist() == [published.encode(state, image) for image in images]


def test_each_prefix_is_decoded_at_the_published_resolution() -> None:
    state, generator = published.tokenizer_state(), torch.Generator().manual_seed(4)
    network = tokenizer_of(state)
    tokens = torch.randint(published.CODES, (published.TOKENS,), generator=generator)
    sides: set[int] = set()
    found = torch.empty(0)
    for count in network.config.groups.ends:
        pixels = in_whole_patches(resolution(count, published.TOKENS, published.SIZE, 1.5), published.PATCH)
        expected = published.decode(state, tokens[:count].tolist(), pixels // published.PATCH)
        with torch.no_grad():
            found = network.paint(network.lookup(tokens[None, :count]))[0]
        assert found.shape == expected.shape
        assert (found - expected).abs().max() < CLOSE
        sides.add(pixels)
    assert len(sides) > 2
    with torch.no_grad():
        assert torch.equal(network.decode(tokens[None])[0], found.clamp(-1, 1))


def test_published_sizes_are_read_from_the_shapes() -> None:
    """Of DetailFlow-32: 256 tokens in groups of 8, a GPT-L, SigLIP's layers at both ends."""
    (backbone, tokenizer), width, ffn = importers(), 1024, 2816
    found: dict[str, tuple[int, ...]] = {
        "tok_embeddings.weight": (8192, width),
        "output.weight": (8192, width),
        "cls_embedding.embedding_table.weight": (1001, width),
        "spe_tok_embeddings.special_embeddings.weight": (7, width),
    }
    for layer in range(24):
        found[f"layers.{layer}.attention.wqkv.weight"] = (3 * width, width)
        found[f"layers.{layer}.feed_forward.w1.weight"] = (ffn, width)
    codes = {
        "quantize.embedding.weight": (8192, 8),
        "encoder.latent_tokens": (1, 256, 1152),
        "encoder.visual_model.embeddings.patch_embedding.weight": (1152, 768),
        "encoder.visual_model.embeddings.position_embedding.weight": (256, 1152),
        "encoder.visual_model.encoder.layers.0.mlp.fc1.weight": (4304, 1152),
        "decoder.mask_token": (1, 1, 768),
        "decoder.to_pixel.model.weight": (768, 768),
        "decoder.visual_model.embeddings.position_embedding.weight": (256, 768),
        "decoder.visual_model.encoder.layers.0.mlp.fc1.weight": (3072, 768),
    }
    for part in ("encoder", "decoder"):
        for layer in range(12):
            codes[f"{part}.visual_model.encoder.layers.{layer}.layer_norm1.weight"] = (1,)
    assert backbone.partner is not None
    config = backbone.infer(found, backbone.partner.backbone(codes))
    assert DetailBackboneConfig.from_dict(config).groups.sizes == (*(1,) * 8, *(8,) * 31)
    assert (config["num_heads"], config["num_layers"], config["ffn_width"]) == (16, 24, ffn)
    assert backbone.publication is not None
    card = backbone.publication(config)
    assert (card.title, card.defaults["steps"], card.defaults["guidance"]) == ("DetailFlow-32-GPT-L", 39, 1.5)
    settled = tokenizer.infer(codes, {"grid": (1, 256), **backbone.partner.tokenizer(codes, config)})
    assert settled == replace(DetailVitConfig(), num_tokens=256).to_dict()


@pytest.mark.parametrize(
    ("key", "shape", "words"),
    [
        (
            "decoder.to_pixel.model.weight",
            (48, 16),
            "reads patches of 192 numbers and its decoder writes patches of 48",
        ),
        (
            "encoder.visual_model.embeddings.position_embedding.weight",
            (15, 24),
            "15 places of its encoder are no square",
        ),
        ("encoder.latent_tokens", (16, 24), r"encoder.latent_tokens has the shape \[16, 24\]"),
    ],
)
def test_other_networks_of_that_kind_are_refused(key: str, shape: tuple[int, ...], words: str) -> None:
    _, importer = importers()
    with pytest.raises(WeightsError, match=words):
        importer.infer({**shapes(published.tokenizer_state()), key: shape}, published.TOKENIZER_GIVEN)


def test_heads_of_other_widths_are_asked_for() -> None:
    _, importer = importers()
    with pytest.raises(WeightsError, match="the config has to say encoder_heads"):
        importer.infer(shapes(published.tokenizer_state()), {"image_size": [32, 32]})
