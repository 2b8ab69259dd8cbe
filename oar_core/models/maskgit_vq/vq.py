"""A convolutional tokenizer without attention. Modules have the names of the published files."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from oar_core.models.image_tokenizer import GridTokenizer
from oar_core.models.maskgit_vq.config import MaskGitVqConfig
from oar_core.models.vq import group_norm


class MaskGitBlock(nn.Module):
    """A residual block. Where widths differ, its shortcut reads the block's output, as published weights need."""

    def __init__(self, width: int, next_width: int) -> None:
        super().__init__()
        self.norm1 = group_norm(width)
        self.conv1 = nn.Conv2d(width, next_width, 3, padding=1, bias=False)
        self.norm2 = group_norm(next_width)
        self.conv2 = nn.Conv2d(next_width, next_width, 3, padding=1, bias=False)
        self.nin_shortcut = nn.Conv2d(next_width, next_width, 1, bias=False) if width != next_width else None

    def forward(self, x: Float[Tensor, "B D h w"]) -> Float[Tensor, "B D2 h w"]:
        made = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return made + (x if self.nin_shortcut is None else self.nin_shortcut(made))


def _blocks(width: int, next_width: int, count: int) -> nn.Sequential:
    widths = [width, *[next_width] * count]
    return nn.Sequential(*(MaskGitBlock(*pair) for pair in pairwise(widths)))


class DownLevel(nn.Module):
    """Residual blocks at one resolution, then half of it: the mean of each four places."""

    def __init__(self, width: int, next_width: int, num_blocks: int, *, is_last: bool) -> None:
        super().__init__()
        self.block = _blocks(width, next_width, num_blocks)
        self._is_last = is_last

    def forward(self, x: Float[Tensor, "B D h w"]) -> Float[Tensor, "B D2 h2 w2"]:
        x = self.block(x)
        return x if self._is_last else F.avg_pool2d(x, 2)


class UpLevel(nn.Module):
    """Residual blocks at one resolution, then twice that."""

    def __init__(self, width: int, next_width: int, num_blocks: int, *, is_last: bool) -> None:
        super().__init__()
        self.block = _blocks(width, next_width, num_blocks)
        self.upsample_conv = None if is_last else nn.Conv2d(next_width, next_width, 3, padding=1)

    def forward(self, x: Float[Tensor, "B D h w"]) -> Float[Tensor, "B D2 h2 w2"]:
        x = self.block(x)
        if self.upsample_conv is None:
            return x
        return self.upsample_conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class MaskGitEncoder(nn.Module):
    def __init__(self, config: MaskGitVqConfig) -> None:
        super().__init__()
        widths = [config.width * multiplier for multiplier in config.multipliers]
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(3, config.width, 3, padding=1, bias=False)
        self.down = nn.Sequential(
            *(
                DownLevel(before, width, config.num_blocks, is_last=level == last)
                for level, (before, width) in enumerate(zip([config.width, *widths], widths, strict=False))
            )
        )
        self.mid = _blocks(widths[-1], widths[-1], config.num_blocks)
        self.norm_out = group_norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.code_width, 1)

    def forward(self, images: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B C h w"]:
        return self.conv_out(F.silu(self.norm_out(self.mid(self.down(self.conv_in(images))))))


class MaskGitDecoder(nn.Module):
    """Levels are numbered by resolution, the finest is 0, and applied from the last to the first."""

    def __init__(self, config: MaskGitVqConfig) -> None:
        super().__init__()
        widths = [config.width * multiplier for multiplier in config.multipliers]
        befores = [*widths[1:], widths[-1]]
        self.conv_in = nn.Conv2d(config.code_width, widths[-1], 3, padding=1)
        self.mid = _blocks(widths[-1], widths[-1], config.num_blocks)
        self.up = nn.ModuleList(
            UpLevel(before, width, config.num_blocks, is_last=level == 0)
            for level, (before, width) in enumerate(zip(befores, widths, strict=True))
        )
        self.norm_out = group_norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, codes: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 Y X"]:
        x = self.mid(self.conv_in(codes))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class MaskGitCodebook(nn.Module):
    """Vectors as they are; the nearest one by Euclidean distance is a vector's code."""

    def __init__(self, vocab_size: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width)

    def lookup(self, token_ids: Int[Tensor, "B L"]) -> Float[Tensor, "B L C"]:
        return self.embedding(token_ids)

    def nearest(self, vectors: Float[Tensor, "B L C"]) -> Int[Tensor, "B L"]:
        rows = self.embedding.weight
        # |z - e|^2 without |z|^2, which is the same for all codes.
        return (rows.square().sum(-1) - 2 * vectors @ rows.T).argmin(-1)

    @property
    def middle(self) -> Float[Tensor, "C"]:
        """The mean of all codes: what is nearest to every code at once."""
        return self.embedding.weight.mean(0)


class MaskGitVqTokenizer(GridTokenizer):
    """Its networks have pixels in [0, 1].

    It has no code for "unknown": where a position is not known, a preview decodes the mean of the codebook.
    """

    def __init__(self, config: MaskGitVqConfig) -> None:
        super().__init__(config)
        self.config = config
        self.encoder = MaskGitEncoder(config)
        self.decoder = MaskGitDecoder(config)
        self.quantize = MaskGitCodebook(config.vocab_size, config.code_width)

    def encode(self, images: Float[Tensor, "B 3 Y X"]) -> Int[Tensor, "B L"]:
        vectors = self.encoder(images.add(1).mul(0.5).contiguous(memory_format=torch.channels_last))
        return self.quantize.nearest(vectors.flatten(2).transpose(1, 2))

    def decode(self, token_ids: Int[Tensor, "B L"]) -> Float[Tensor, "B 3 Y X"]:
        return self._paint(self.quantize.lookup(token_ids))

    def decode_partial(self, token_ids: Int[Tensor, "B L"], known: Bool[Tensor, "B L"]) -> Float[Tensor, "B 3 Y X"]:
        codes = self.quantize.lookup(torch.where(known, token_ids, 0))
        return self._paint(torch.where(known[..., None], codes, self.quantize.middle))

    def _paint(self, codes: Float[Tensor, "B L C"]) -> Float[Tensor, "B 3 Y X"]:
        grid = codes.transpose(1, 2).unflatten(2, self.grid)
        return self.decoder(self.to_decoder(grid)).float().clamp(0, 1).mul(2).sub(1)
