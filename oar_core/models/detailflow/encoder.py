"""The encoder: patches of a picture and learned queries, one for each token, through the same layers."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from oar_core.detail_config import DetailTokenizerConfig
from oar_core.models.coarse_to_fine import PatchMemory
from oar_core.models.detailflow.spread import Spread
from oar_core.models.patches import cut
from oar_core.models.prefix_mask import encoder_mask
from oar_core.nn.attention import KeyValueStore, SelfAttention, additive_mask, attend, compute_dtype
from oar_core.nn.block import Block
from oar_core.nn.norm import make_norm
from oar_core.nn.rope import RotaryTable

INIT_STD = 0.2  # of places and queries: not lost beside what is added to them, or all tokens say the same


@dataclass(frozen=True)
class BesidePatches:
    """A `KeyValueStore` of queries: they see all patches, and of each other what the mask leaves."""

    memory: PatchMemory
    mask: Float[Tensor, "1 1 K T"]

    def attend(
        self,
        layer: int,
        queries: Float[Tensor, "B K N H"],
        keys: Float[Tensor, "B K N H"],
        values: Float[Tensor, "B K N H"],
    ) -> Float[Tensor, "B K D"]:
        seen = [
            torch.cat([patches, own.transpose(1, 2)], dim=2)
            for patches, own in ((self.memory.keys[layer], keys), (self.memory.values[layer], values))
        ]
        return attend(queries, seen[0], seen[1], self.mask)


class DetailEncoder(nn.Module):
    """Patches never see queries, so that what they leave in each layer serves any number of passes of queries."""

    def __init__(self, config: DetailTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        width, num_tokens = config.width, config.num_tokens
        self.embed_patch = nn.Linear(3 * config.patch_size**2, width)
        self.place = nn.Parameter(torch.empty(config.patches[0] * config.patches[1], width))
        self.queries = nn.Parameter(torch.empty(num_tokens, width))
        self.second_queries = nn.Parameter(torch.empty(num_tokens, width))  # of a pass behind a given prefix
        self.embed_code = nn.Linear(config.code_width, width)
        self.rotary = RotaryTable(config.patches, width // config.num_heads)
        self.blocks = nn.ModuleList(
            Block(width, SelfAttention(width, config.num_heads)) for _ in range(config.encoder_layers)
        )
        self.norm = make_norm("layer", width)
        self.project = nn.Linear(width, config.code_width)
        self.spread = Spread(config.num_tokens, config.code_width)
        for parameter in (self.place, self.queries, self.second_queries):
            nn.init.trunc_normal_(parameter, std=INIT_STD)

    def read(self, images: Float[Tensor, "B 3 Y X"]) -> PatchMemory:
        patches = self.embed_patch(cut(images, self.config.patch_size)) + self.place
        memory = PatchMemory()
        positions = torch.arange(patches.shape[1], device=patches.device)
        self._through(patches, positions.expand(patches.shape[:2]), memory)
        return memory

    def describe(self, memory: PatchMemory) -> Float[Tensor, "B L C"]:
        vectors = self._describe(memory, self.queries.expand(len(memory.keys[0]), -1, -1))
        if self.training:
            self.spread.update(vectors)
        return self.spread(vectors)

    def describe_again(self, memory: PatchMemory, prefix: Float[Tensor, "B K C"]) -> Float[Tensor, "B rest C"]:
        count = prefix.shape[1]
        given, asked = self.second_queries.split([count, self.config.num_tokens - count])
        x = torch.cat([given + self.embed_code(prefix), asked.expand(len(prefix), -1, -1)], dim=1)
        return self.spread(self._describe(memory, x)[:, count:])

    def _describe(self, memory: PatchMemory, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L C"]:
        nowhere = torch.full(x.shape[:2], self.rotary.nowhere, device=x.device)
        return self.project(self.norm(self._through(x, nowhere, BesidePatches(memory, self._query_mask(x)))))

    def _through(self, x: Float[Tensor, "B S D"], positions: Tensor, store: KeyValueStore) -> Float[Tensor, "B S D"]:
        rotation = self.rotary(positions, compute_dtype(self.embed_patch.weight))
        for layer, block in enumerate(self.blocks):
            x = block(x, rotation, layer, store)
        return x

    def _query_mask(self, x: Tensor) -> Float[Tensor, "1 1 L T"]:
        config = self.config
        num_patches = config.patches[0] * config.patches[1]
        limits = config.groups.limits if config.is_causal else (config.num_tokens,) * config.num_tokens
        visible = encoder_mask(num_patches, limits)[num_patches:].to(x.device)
        return additive_mask(visible, compute_dtype(self.embed_patch.weight))[None, None]
