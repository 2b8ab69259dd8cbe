"""Tiny networks with random weights that sway what they answer."""

import torch

from oar_core.detail_config import DetailBackboneConfig, DetailTokenizerConfig
from oar_core.models.detailflow.backbone import DetailBackbone
from oar_core.models.detailflow.tokenizer import DetailTokenizer

NUM_CODES = 32
TOKENIZER = DetailTokenizerConfig(
    image_size=(16, 16),
    patch_size=4,
    num_tokens=8,
    group_size=2,
    vocab_size=NUM_CODES,
    code_width=8,
    width=16,
    num_heads=2,
    encoder_layers=2,
    decoder_layers=2,
)
BACKBONE = DetailBackboneConfig(
    num_tokens=16,
    group_size=4,
    vocab_size=NUM_CODES,
    condition_vocab=16,
    max_condition=5,
    width=32,
    num_heads=2,
    num_layers=2,
)


def tokenizer(config: DetailTokenizerConfig = TOKENIZER) -> DetailTokenizer:
    network = DetailTokenizer(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.3)
        codebook = torch.randn(config.vocab_size, config.code_width)
        network.quantizer.codebook.copy_(torch.nn.functional.normalize(codebook, dim=-1))
    return network


def backbone(config: DetailBackboneConfig = BACKBONE) -> DetailBackbone:
    network = DetailBackbone(config).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15, generator=generator)
    return network
