"""The decoder: a prefix of codes and one learned vector for each patch of the canvas, which all see each other."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from oar_core.detail_config import DetailTokenizerConfig
from oar_core.models.detailflow.encoder import INIT_STD
from oar_core.models.patches import join
from oar_core.nn.attention import SelfAttention, Uncached, compute_dtype
from oar_core.nn.block import Block
from oar_core.nn.norm import make_norm
from oar_core.nn.rope import RotaryTable


class DetailDecoder(nn.Module):
    """Canvases are of whole patches. A patch knows its place on its canvas, and how large that is."""

    def __init__(self, config: DetailTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        width, (rows, columns) = config.width, config.patches
        self.embed_code = nn.Linear(config.code_width, width)
        self.code_place = nn.Parameter(torch.empty(config.num_tokens, width))
        self.patch = nn.Parameter(torch.empty(rows * columns, width))  # of the largest canvas
        self.canvas = nn.Parameter(torch.empty(max(rows, columns), width))  # by the patches of its longer side
        self.rotary = RotaryTable(config.patches, width // config.num_heads)
        self.blocks = nn.ModuleList(
            Block(width, SelfAttention(width, config.num_heads)) for _ in range(config.decoder_layers)
        )
        self.norm = make_norm("layer", width)
        self.to_pixels = nn.Linear(width, 3 * config.patch_size**2)
        for parameter in (self.code_place, self.patch, self.canvas):
            nn.init.trunc_normal_(parameter, std=INIT_STD)

    def forward(self, codes: Float[Tensor, "B K C"], grid: tuple[int, int]) -> Float[Tensor, "B 3 y x"]:
        """A canvas of `grid` patches."""
        count, (rows, columns) = codes.shape[1], grid
        told = self.embed_code(codes) + self.code_place[:count]
        asked = self._patches(grid).expand(len(codes), -1, -1)
        x = torch.cat([told, asked], dim=1)
        places = torch.arange(rows, device=x.device)[:, None] * self.config.patches[1]
        places = (places + torch.arange(columns, device=x.device)).flatten()
        positions = torch.cat([places.new_full((count,), self.rotary.nowhere), places]).expand(x.shape[:2])
        rotation = self.rotary(positions, compute_dtype(self.embed_code.weight))
        store = Uncached(x.new_zeros(1, 1, 1, 1))
        for layer, block in enumerate(self.blocks):
            x = block(x, rotation, layer, store)
        return join(self.to_pixels(self.norm(x[:, count:])), grid, self.config.patch_size)

    def _patches(self, grid: tuple[int, int]) -> Float[Tensor, "P D"]:
        """What stands for each patch: vectors of the largest canvas, shrunk to this one, and one for its size."""
        full = self.patch.T.unflatten(1, self.config.patches)[None]
        if grid != self.config.patches:
            full = F.interpolate(full, grid, mode="bilinear", antialias=True, align_corners=False)
        return full[0].flatten(1).T + self.canvas[max(grid) - 1]
