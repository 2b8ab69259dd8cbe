"""The families' loops written plainly: what their projects' own code does for a batch, without anything done for speed.

All pictures of the batch go through the network together, in groups of one size, with a preallocated cache, PyTorch's
own linear layers and attention, `softmax` and `multinomial`; guided: conditional rows first, unconditional rows after
them. The arithmetic is the family's own; tests compare its tokens with the engine's.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from oar_core.models.base import Backbone
from oar_core.models.janus.backbone import JanusBackbone
from oar_core.models.llamagen.backbone import LlamaGenBackbone
from oar_core.models.lpd.backbone import LpdBackbone
from oar_core.models.oar.backbone import OarBackbone
from oar_core.models.randar.backbone import RandarBackbone

Draw = Callable[[Float[Tensor, "B G V"]], Int[Tensor, "B G"]]


def multinomial(logits: Float[Tensor, "B G V"]) -> Int[Tensor, "B G"]:
    """Draws from all codes, at temperature 1."""
    return torch.multinomial(logits.softmax(-1).flatten(0, 1), 1).view(logits.shape[:2])


class PlainCache:
    """Keys and values of rows that all have the same length. Also the store and the memory of this library's layers."""

    def __init__(self, num_layers: int, rows: int, num_heads: int, capacity: int, head_width: int) -> None:
        self.keys, self.values = torch.zeros(2, num_layers, rows, num_heads, capacity, head_width)
        self.length = 0
        self.mask: Bool[Tensor, "S T"] | None = None  # of what is fed now over the cached entries and it; None: all

    def write(self, layer: int, keys: Float[Tensor, "B S N H"], values: Float[Tensor, "B S N H"]) -> int:
        end = self.length + keys.shape[1]
        self.keys[layer, :, :, self.length : end] = keys.transpose(1, 2)
        self.values[layer, :, :, self.length : end] = values.transpose(1, 2)
        return end

    def read(self, layer: int, queries: Float[Tensor, "B S N H"], end: int) -> Float[Tensor, "B S D"]:
        keys, values = self.keys[layer, :, :, :end], self.values[layer, :, :, :end]
        return (
            F.scaled_dot_product_attention(queries.transpose(1, 2), keys, values, self.mask).transpose(1, 2).flatten(2)
        )

    def attend(
        self,
        layer: int,
        queries: Float[Tensor, "B S N H"],
        keys: Float[Tensor, "B S N H"],
        values: Float[Tensor, "B S N H"],
    ) -> Float[Tensor, "B S D"]:
        return self.read(layer, queries, self.write(layer, keys, values))


class PlainMemory:
    """One layer of a cache, as queries read it."""

    def __init__(self, cache: PlainCache, layer: int) -> None:
        self._cache, self._layer = cache, layer

    def attend(self, queries: Float[Tensor, "B G N H"]) -> Float[Tensor, "B G D"]:
        return self._cache.read(self._layer, queries, self._cache.length)


class PlainLoop(ABC):
    """One batch of guided pictures. A family says what a step feeds; the rest is the same for all."""

    entries: ClassVar[int] = 1  # of the cache, a token

    def __init__(
        self, backbone: Backbone, conditions: Sequence[Sequence[int]], unconditional: Sequence[int], guidance: float
    ) -> None:
        """All conditions are equally long, the unconditional one too."""
        self.backbone, self.guidance = backbone, guidance
        self.condition = torch.tensor([*conditions, *(unconditional for _ in conditions)])

    @torch.inference_mode()
    def run(self, orders: Int[Tensor, "B L"], sizes: Sequence[int], draw: Draw = multinomial) -> Int[Tensor, "B L"]:
        """The tokens of each picture in raster order, drawn in these orders in groups of these sizes."""
        tokens = torch.zeros_like(orders)
        ends = [0, *torch.tensor(sizes).cumsum(0).tolist()]
        self.start(2 * len(orders))
        done = tokens[:, :0], orders[:, :0]  # of the last group: its tokens, by rank, and its positions
        for start, end in pairwise(ends):
            asked = orders[:, start:end]
            twice = [table.repeat(2, 1) for table in (*done, asked)]
            conditional, unconditional = self.step(*twice).chunk(2)
            done = draw(unconditional + self.guidance * (conditional - unconditional)), asked
            tokens.scatter_(1, asked, done[0])
        return tokens

    def start(self, rows: int) -> None:
        """Makes an empty cache of so many rows."""
        config: Any = self.backbone.config
        capacity = self.condition.shape[1] + self.entries * config.num_tokens
        self.cache = PlainCache(self.num_layers, rows, config.num_heads, capacity, config.head_width)

    @property
    def num_layers(self) -> int:
        return cast("Any", self.backbone.config).num_layers

    @abstractmethod
    def step(
        self, tokens: Int[Tensor, "B K"], places: Int[Tensor, "B K"], asked: Int[Tensor, "B G"]
    ) -> Float[Tensor, "B G V"]:
        """Logits at the positions that are asked, after the tokens of the last group."""


class PlainLpd(PlainLoop):
    backbone: LpdBackbone

    def step(
        self, tokens: Int[Tensor, "B K"], places: Int[Tensor, "B K"], asked: Int[Tensor, "B G"]
    ) -> Float[Tensor, "B G V"]:
        net = self.backbone
        if self.cache.length:
            fed = net.embed_token(tokens) + net.place[1 + places]
        else:
            fed = net.embed_class(self.condition) + net.place[0]
        x = net.input_norm(torch.cat([fed, net.mask_token + net.place[1 + asked]], dim=1))
        count, total = fed.shape[1], x.shape[1]
        # Tokens see what was there and each other, queries all that is fed.
        mask = torch.ones(total, self.cache.length + total, dtype=torch.bool)
        mask[:count, self.cache.length + count :] = False
        self.cache.mask = mask
        for layer, block in enumerate(net.blocks):
            x = block(x, layer, self.cache)
        self.cache.length += count
        return net.head(net.norm(x[:, count:]))


class PlainRandar(PlainLoop):
    backbone: RandarBackbone
    entries = 2

    def step(
        self, tokens: Int[Tensor, "B K"], places: Int[Tensor, "B K"], asked: Int[Tensor, "B G"]
    ) -> Float[Tensor, "B G V"]:
        """Feeds the class, or `x0, i1, x1, ...` of the last group behind its first instruction; then what is asked."""
        net, cache, is_first = self.backbone, self.cache, not self.cache.length
        if is_first:
            x, positions = net.embed_class(self.condition), torch.full_like(self.condition, net.gpt.nowhere)
        else:
            pairs = torch.stack([net.instructions(places), net.gpt.embed_token(tokens)], dim=2)
            x, positions = pairs.flatten(1, 2)[:, 1:], places.repeat_interleave(2, dim=1)[:, 1:]
        kept = x.shape[1] + 1  # the first question stays
        x = torch.cat([x, net.instructions(asked)], dim=1)
        total = x.shape[1]
        cache.mask = torch.ones(total, cache.length + total, dtype=torch.bool).tril(cache.length)
        states = net.gpt(x, torch.cat([positions, asked], dim=1), cache)
        cache.length += kept
        return net.gpt.head(states[:, kept - 1 :])


class PlainLlamaGen(PlainLoop):
    backbone: LlamaGenBackbone

    def step(
        self,
        tokens: Int[Tensor, "B K"],
        places: Int[Tensor, "B K"],
        asked: Int[Tensor, "B G"],  # noqa: ARG002
    ) -> Float[Tensor, "B G V"]:
        gpt = self.backbone.gpt
        if self.cache.length:
            states = gpt(gpt.embed_token(tokens), places, self.cache)
        else:
            states = gpt(self.backbone.embed(self.condition), torch.full_like(self.condition, gpt.nowhere), self.cache)
        self.cache.length += 1
        return gpt.head(states)


class PlainJanus(PlainLoop):
    backbone: JanusBackbone

    def step(
        self,
        tokens: Int[Tensor, "B K"],
        places: Int[Tensor, "B K"],  # noqa: ARG002
        asked: Int[Tensor, "B G"],  # noqa: ARG002
    ) -> Float[Tensor, "B G V"]:
        net, cache = self.backbone, self.cache
        x = net.align(net.embed_code(tokens)) if cache.length else net.embed_prompt(self.condition)
        count = x.shape[1]
        cache.mask = torch.ones(count, count, dtype=torch.bool).tril() if count > 1 else None
        rotation = net.rotary(torch.arange(cache.length, cache.length + count).expand(len(x), -1), x.dtype)
        for layer, block in enumerate(net.blocks):
            x = block(x, rotation, layer, cache)
        cache.length += count
        return net.head(net.norm(x[:, -1:]))


class PlainTwoStacks(PlainLoop):
    """ARPG, and the native network with commits in groups of its own kind."""

    backbone: OarBackbone

    @property
    def num_layers(self) -> int:
        return self.backbone.config.num_context_layers + 1

    def step(
        self, tokens: Int[Tensor, "B K"], places: Int[Tensor, "B K"], asked: Int[Tensor, "B G"]
    ) -> Float[Tensor, "B G V"]:
        net, cache = self.backbone, self.cache
        memory_layer = net.config.num_context_layers
        if cache.length:
            x, positions = net.embed_token(tokens, places), places
        else:
            x, positions = net.embed_condition(self.condition), torch.full_like(self.condition, net.rotary.nowhere)
        is_causal = not net.config.has_mutual_commits
        count = x.shape[1]
        cache.mask = torch.ones(count, cache.length + count, dtype=torch.bool).tril(cache.length) if is_causal else None
        cache.length = cache.write(memory_layer, *net.context(x, net.rotary(positions, x.dtype), cache))
        cache.mask = None
        return net.query(net.embed_query(asked), net.rotary(asked, x.dtype), PlainMemory(cache, memory_layer))


PLAIN_LOOPS: dict[str, type[PlainLoop]] = {
    "oar": PlainTwoStacks,
    "arpg": PlainTwoStacks,
    "lpd": PlainLpd,
    "randar": PlainRandar,
    "llamagen": PlainLlamaGen,
    "janus": PlainJanus,
}


def as_published(network: nn.Module) -> None:
    """Has the weights of linear layers lie row by row in memory, as a checkpoint's do, in place."""
    for linear in network.modules():
        if isinstance(linear, nn.Linear):
            linear.weight.data = linear.weight.data.contiguous()
