"""The tokenizer of the published DetailFlow: a picture's patches and learned queries through a stack of SigLIP's
layers, and back through another one."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from oar_core.models.detailflow_vit.config import DetailVitConfig
from oar_core.models.detailflow_vit.stack import VitStack
from oar_core.models.oar.quantizer import nearest
from oar_core.models.patches import cut, join
from oar_core.models.prefix_mask import encoder_mask
from oar_core.models.prefix_tokenizer import PrefixTokenizer
from oar_core.nn.attention import additive_mask


class VitEncoder(nn.Module):
    """Patches see patches; a query sees them all, and the queries of its group and of groups before."""

    def __init__(self, config: DetailVitConfig) -> None:
        super().__init__()
        self.config = config
        width = config.encoder_width
        self.embed_patch = nn.Linear(3 * config.patch_size**2, width)
        self.queries = nn.Parameter(torch.zeros(config.num_tokens, width))
        self.query_place = nn.Parameter(torch.zeros(config.num_tokens, width))
        self.stack = VitStack(
            width, config.encoder_heads, config.encoder_layers, config.encoder_hidden, config.encoder_side
        )
        self.project = nn.Linear(width, config.code_width)

    def forward(self, images: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B L C"]:
        patches = self.embed_patch(cut(images, self.config.patch_size)) + self.stack.places(self.config.patches)
        queries = (self.queries + self.query_place).expand(len(images), -1, -1)
        x = self.stack(torch.cat([patches, queries], dim=1), self._mask(patches))
        return self.project(x[:, patches.shape[1] :])

    def _mask(self, patches: Float[Tensor, "B P D"]) -> Float[Tensor, "1 1 S S"]:
        config, num_patches = self.config, patches.shape[1]
        limits = config.groups.limits if config.is_causal else (config.num_tokens,) * config.num_tokens
        visible = encoder_mask(num_patches, limits).to(patches.device)
        return additive_mask(visible, patches.dtype)[None, None]


class VitDecoder(nn.Module):
    """One learned vector stands for each patch of the canvas; patches and codes all see each other."""

    def __init__(self, config: DetailVitConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        width = config.decoder_width
        self.embed_code = nn.Linear(config.code_width, width)
        self.code_place = nn.Parameter(torch.zeros(config.num_tokens, width))
        self.patch = nn.Parameter(torch.zeros(width))
        self.stack = VitStack(
            width, config.decoder_heads, config.decoder_layers, config.decoder_hidden, config.decoder_side
        )
        self.to_pixels = nn.Linear(width, 3 * config.patch_size**2)

    def forward(self, codes: Float[Tensor, "B K C"], grid: tuple[int, int]) -> Float[Tensor, "B 3 y x"]:
        """A canvas of `grid` patches."""
        patches = (self.patch + self.stack.places(grid)).expand(len(codes), -1, -1)
        known = self.embed_code(codes) + self.code_place[: codes.shape[1]]
        x = self.stack(torch.cat([patches, known], dim=1))
        return join(self.to_pixels(x[:, : patches.shape[1]]), grid, self.patch_size)


class DetailVitTokenizer(PrefixTokenizer):
    codebook: Tensor  # of length 1 each

    def __init__(self, config: DetailVitConfig) -> None:
        super().__init__(config)
        self.config = config
        self.encoder = VitEncoder(config)
        self.decoder = VitDecoder(config)
        self.register_buffer("codebook", torch.zeros(config.vocab_size, config.code_width))

    def encode(self, images: Float[Tensor, "B 3 Y X"]) -> Int[Tensor, "B L"]:
        return nearest(F.normalize(self.encoder(images).float(), dim=-1), self.codebook)

    def lookup(self, token_ids: Int[Tensor, "B K"]) -> Float[Tensor, "B K C"]:
        return F.embedding(token_ids, self.codebook).to(next(self.decoder.parameters()).dtype)

    def paint(self, codes: Float[Tensor, "B K C"]) -> Float[Tensor, "B 3 y x"]:
        height, width = self.canvas_size(codes.shape[1])
        size = self.config.patch_size
        return self.decoder(codes, (height // size, width // size))
