"""A convolutional VQGAN (Esser et al. 2021, arXiv 2012.09841) whose decoder can also paint an unfinished grid."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from oar_core.config import TokenizerConfig
from oar_core.models.image_tokenizer import GridTokenizer
from oar_core.models.oar.quantizer import Quantized, Quantizer


@dataclass(frozen=True)
class Reconstruction:
    images: Float[Tensor, "B 3 Y X"]
    encoded: Float[Tensor, "B L C"]
    quantized: Quantized


class VqganBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(_groups(width), width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.norm2 = nn.GroupNorm(_groups(width), width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Float[Tensor, "B D h w"]) -> Float[Tensor, "B D h w"]:
        hidden = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(hidden)))


class VqganEncoder(nn.Module):
    """Strided convolutions halve the picture once per width; residual blocks follow each halving."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for next_width in config.widths:
            layers.append(nn.Conv2d(width, next_width, 4, stride=2, padding=1))
            layers += [VqganBlock(next_width) for _ in range(config.encoder_blocks)]
            width = next_width
        self.stages = nn.Sequential(*layers)
        self.norm = nn.GroupNorm(_groups(width), width)
        self.project = nn.Conv2d(width, config.code_width, 1)

    def forward(self, images: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B C h w"]:
        return self.project(F.silu(self.norm(self.stages(images))))


class VqganDecoder(nn.Module):
    """The encoder's mirror: residual blocks, then twice the resolution, once per width."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        widths = config.widths[::-1]
        layers: list[nn.Module] = [nn.Conv2d(config.code_width, widths[0], 3, padding=1)]
        for width, next_width in zip(widths, (*widths[1:], config.head_width), strict=True):
            layers += [VqganBlock(width) for _ in range(config.decoder_blocks)]
            layers.append(_upsample(config.upsample, width, next_width))
        layers += [VqganBlock(config.head_width) for _ in range(config.full_blocks)]
        self.stages = nn.Sequential(*layers)
        self.to_pixels = nn.Conv2d(config.head_width, 3, 3, padding=1)

    def forward(self, codes: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 Y X"]:
        return self.to_pixels(F.silu(self.stages(codes)))


class VQGAN(GridTokenizer):
    """Image tokenizer; see `ImageTokenizer` for the contract of the public methods."""

    has_unknown_code = True

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__(config)
        self.config = config
        self.encoder = VqganEncoder(config)
        self.quantizer = Quantizer(config.vocab_size, config.code_width)
        self.decoder = VqganDecoder(config)
        self.unknown_code = nn.Parameter(torch.zeros(config.code_width))

    def encode(self, images: Float[Tensor, "B 3 Y X"]) -> Int[Tensor, "B L"]:
        return self.quantizer(self.encode_vectors(images)).token_ids

    def decode(self, token_ids: Int[Tensor, "B L"]) -> Float[Tensor, "B 3 Y X"]:
        return self._paint(self.quantizer.lookup(token_ids)).clamp(-1, 1)

    def decode_partial(self, token_ids: Int[Tensor, "B L"], known: Bool[Tensor, "B L"]) -> Float[Tensor, "B 3 Y X"]:
        """Positions that are not `known` hold the trained code for "unknown"; their ids are not read."""
        return self.repaint(torch.where(known, token_ids, 0), known).clamp(-1, 1)

    def repaint(self, token_ids: Int[Tensor, "B L"], known: Bool[Tensor, "B L"]) -> Float[Tensor, "B 3 Y X"]:
        """Training pass of the decoder alone: what is not `known` is hidden from it, and nothing is clamped."""
        return self._paint(self._hide(self.quantizer.lookup(token_ids), known))

    def encode_vectors(self, images: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B L C"]:
        images = images.contiguous(memory_format=torch.channels_last)
        return self.encoder(images).flatten(2).transpose(1, 2)

    def forward(self, images: Float[Tensor, "B 3 Y X"], known: Bool[Tensor, "B L"] | None = None) -> Reconstruction:
        """Training pass. `known` hides the other positions from the decoder; the encoder sees the whole picture."""
        encoded = self.encode_vectors(images)
        quantized = self.quantizer(encoded)
        codes = quantized.codes if known is None else self._hide(quantized.codes, known)
        return Reconstruction(self._paint(codes), encoded, quantized)

    def _hide(self, codes: Float[Tensor, "B L C"], known: Bool[Tensor, "B L"]) -> Float[Tensor, "B L C"]:
        return torch.where(known[..., None], codes, self.unknown_code)

    def _paint(self, codes: Float[Tensor, "B L C"]) -> Float[Tensor, "B 3 Y X"]:
        height, width = self.grid
        grid = codes.transpose(1, 2).unflatten(2, (height, width))
        return self.decoder(self.to_decoder(grid))


def _upsample(kind: str, width: int, next_width: int) -> nn.Module:
    if kind == "transposed":
        return nn.ConvTranspose2d(width, next_width, 4, stride=2, padding=1)
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(width, next_width, 3, padding=1))


def _groups(width: int) -> int:
    return max(1, width // 16)
