"""The convolutional tokenizer of LlamaGen and Janus, with attention at its lowest resolution. Modules have the names of
LlamaGen's files."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from oar_core.models.image_tokenizer import GridTokenizer
from oar_core.models.vq_config import VqConfig

GROUPS, EPS = 32, 1e-6


def group_norm(width: int) -> nn.GroupNorm:
    """A group norm as the published tokenizers have it."""
    return nn.GroupNorm(GROUPS, width, eps=EPS)


class ResidualBlock(nn.Module):
    def __init__(self, width: int, next_width: int) -> None:
        super().__init__()
        self.norm1 = group_norm(width)
        self.conv1 = nn.Conv2d(width, next_width, 3, padding=1)
        self.norm2 = group_norm(next_width)
        self.conv2 = nn.Conv2d(next_width, next_width, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(width, next_width, 1) if width != next_width else nn.Identity()

    def forward(self, x: Float[Tensor, "B D h w"]) -> Float[Tensor, "B D2 h w"]:
        hidden = self.conv1(F.silu(self.norm1(x)))
        return self.nin_shortcut(x) + self.conv2(F.silu(self.norm2(hidden)))


class AttentionBlock(nn.Module):
    """One head over all places."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = group_norm(width)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Float[Tensor, "B D h w"]) -> Float[Tensor, "B D h w"]:
        normed = self.norm(x)
        queries, keys, values = (part(normed).flatten(2).transpose(1, 2) for part in (self.q, self.k, self.v))
        seen = F.scaled_dot_product_attention(queries, keys, values)
        return x + self.proj_out(seen.transpose(1, 2).unflatten(2, x.shape[2:]))


class Upsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Float[Tensor, "B D h w"]) -> Float[Tensor, "B D h2 w2"]:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Downsample(nn.Module):
    """Padded on the right and at the bottom alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Float[Tensor, "B D h w"]) -> Float[Tensor, "B D h2 w2"]:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Level(nn.Module):
    """Residual blocks at one resolution, each followed by attention at the lowest one, then the way to the next."""

    def __init__(
        self, width: int, next_width: int, num_blocks: int, *, has_attention: bool, resample: str | None
    ) -> None:
        super().__init__()
        widths = [width, *[next_width] * num_blocks]
        self.res = nn.ModuleList(ResidualBlock(*pair) for pair in pairwise(widths))
        self.attn = nn.ModuleList(AttentionBlock(next_width) for _ in range(num_blocks if has_attention else 0))
        self.upsample = Upsample(next_width) if resample == "up" else None
        self.downsample = Downsample(next_width) if resample == "down" else None

    def forward(self, x: Float[Tensor, "B D h w"]) -> Float[Tensor, "B D2 h2 w2"]:
        for number, block in enumerate(self.res):
            x = block(x)
            if self.attn:
                x = self.attn[number](x)
        for resample in (self.upsample, self.downsample):
            x = x if resample is None else resample(x)
        return x


def _middle(width: int) -> nn.Sequential:
    return nn.Sequential(ResidualBlock(width, width), AttentionBlock(width), ResidualBlock(width, width))


class Encoder(nn.Module):
    def __init__(self, config: VqConfig) -> None:
        super().__init__()
        widths = [config.width * multiplier for multiplier in config.multipliers]
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(3, config.width, 3, padding=1)
        self.conv_blocks = nn.Sequential(
            *(
                Level(
                    before,
                    width,
                    config.encoder_blocks,
                    has_attention=level == last,
                    resample="down" if level < last else None,
                )
                for level, (before, width) in enumerate(zip([config.width, *widths], widths, strict=False))
            )
        )
        self.mid = _middle(widths[-1])
        self.norm_out = group_norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.hidden_width, 3, padding=1)

    def forward(self, images: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B D h w"]:
        return self.conv_out(F.silu(self.norm_out(self.mid(self.conv_blocks(self.conv_in(images))))))


class Decoder(nn.Module):
    """One residual block a level more than the encoder; levels are numbered in the order in which they are applied."""

    def __init__(self, config: VqConfig) -> None:
        super().__init__()
        widths = [config.width * multiplier for multiplier in config.multipliers[::-1]]
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(config.hidden_width, widths[0], 3, padding=1)
        self.mid = _middle(widths[0])
        self.conv_blocks = nn.Sequential(
            *(
                Level(
                    before,
                    width,
                    config.encoder_blocks + 1,
                    has_attention=level == 0,
                    resample="up" if level < last else None,
                )
                for level, (before, width) in enumerate(zip([widths[0], *widths], widths, strict=False))
            )
        )
        self.norm_out = group_norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, codes: Float[Tensor, "B D h w"]) -> Float[Tensor, "B 3 Y X"]:
        return self.conv_out(F.silu(self.norm_out(self.conv_blocks(self.mid(self.conv_in(codes))))))


class Codebook(nn.Module):
    """Rows are normalised at every use; the nearest row by cosine is a vector's code."""

    def __init__(self, vocab_size: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width)

    def lookup(self, token_ids: Int[Tensor, "B L"]) -> Float[Tensor, "B L C"]:
        return F.normalize(self.embedding(token_ids), dim=-1)

    def nearest(self, vectors: Float[Tensor, "B L C"]) -> Int[Tensor, "B L"]:
        rows = F.normalize(self.embedding.weight, dim=-1)
        return (F.normalize(vectors, dim=-1) @ rows.T).argmax(-1)


class VqTokenizer(GridTokenizer):
    """It has no code for "unknown": where a position is not known, a preview decodes a vector of zeros."""

    def __init__(self, config: VqConfig) -> None:
        super().__init__(config)
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quantize = Codebook(config.vocab_size, config.code_width)
        self.quant_conv = nn.Conv2d(config.hidden_width, config.code_width, 1)
        self.post_quant_conv = nn.Conv2d(config.code_width, config.hidden_width, 1)

    def encode(self, images: Float[Tensor, "B 3 Y X"]) -> Int[Tensor, "B L"]:
        return self.quantize.nearest(self.quant_conv(self.encoder(images)).flatten(2).transpose(1, 2))

    def decode(self, token_ids: Int[Tensor, "B L"]) -> Float[Tensor, "B 3 Y X"]:
        return self._paint(self.quantize.lookup(token_ids))

    def decode_partial(self, token_ids: Int[Tensor, "B L"], known: Bool[Tensor, "B L"]) -> Float[Tensor, "B 3 Y X"]:
        return self._paint(self.quantize.lookup(torch.where(known, token_ids, 0)) * known[..., None])

    def _paint(self, codes: Float[Tensor, "B L C"]) -> Float[Tensor, "B 3 Y X"]:
        grid = codes.transpose(1, 2).unflatten(2, self.grid)
        vectors = self.post_quant_conv(grid.contiguous(memory_format=torch.channels_last))
        return self.decoder(self.to_decoder(vectors)).float()
