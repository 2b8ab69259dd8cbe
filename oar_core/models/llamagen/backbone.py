"""The LlamaGen network: one causal stack, whose latest token says what the next one is."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from oar_core.config import OrderScore
from oar_core.models.base import BackboneSpec, Condition, GridLayout, Queries, Unconditional
from oar_core.models.gpt import Gpt, initialise
from oar_core.models.llamagen.captions import CaptionEmbedding
from oar_core.models.llamagen.config import LlamaGenConfig
from oar_core.models.next_token import NOWHERE, LastStateCache, NextTokenBackbone
from oar_core.nn.attention import KeyValueStore, Uncached, additive_mask


class LlamaGenBackbone(NextTokenBackbone):
    """A condition is one class, the last of which is the unconditional one, or the features of a caption's tokens."""

    def __init__(self, config: LlamaGenConfig) -> None:
        super().__init__()
        self.config = config
        self.order_score = OrderScore()
        self.order_tree = None
        self.embed = (
            CaptionEmbedding(config) if config.reads_captions else nn.Embedding(config.num_classes + 1, config.width)
        )
        self.gpt = Gpt(config)
        initialise(self)

    @property
    def spec(self) -> BackboneSpec:
        config = self.config
        length = config.max_caption if config.reads_captions else 1
        return BackboneSpec(
            layout=GridLayout(*config.grid),
            vocab_size=config.vocab_size,
            condition_vocab=length if config.reads_captions else config.num_classes + 1,
            max_condition=length,
            queries=Queries.NEXT,
            feature_width=config.caption_width,
            unconditional=Unconditional.LAST if config.reads_captions else Unconditional.FIXED,
        )

    def forward(
        self, condition: Condition, token_ids: Int[Tensor, "B L"], positions: Int[Tensor, "B L"]
    ) -> Float[Tensor, "B L V"]:
        num_condition, num_context = condition.ids.shape[1], positions.shape[1] - 1
        x = torch.cat([self.embed_condition(condition), self.embed_tokens(token_ids[:, :-1])], dim=1)
        nowhere = torch.full_like(condition.ids, self.gpt.nowhere)
        places = torch.cat([nowhere, positions[:, :-1]], dim=1)
        lengths = condition.lengths.to(x.device)
        states = self.gpt(x, places, Uncached(_training_mask(lengths, num_condition, num_context, x.dtype)))
        # Rank 0 is read at each row's last condition token, the others at the token before them.
        first = states[torch.arange(len(lengths), device=x.device), lengths - 1]
        return self.gpt.head(torch.cat([first[:, None], states[:, num_condition:]], dim=1))

    def new_cache(self, num_slots: int) -> LastStateCache:
        cache = self.gpt.new_cache(num_slots, self.spec.max_condition + self.config.num_tokens)
        return LastStateCache.of(cache, self.config.width, self.gpt.embed_token.weight.dtype)

    def embed_condition(self, condition: Condition) -> Float[Tensor, "B P D"]:
        return self.embed(condition if self.config.reads_captions else condition.ids)

    def embed_tokens(self, token_ids: Int[Tensor, "*S"]) -> Float[Tensor, "*S D"]:
        return self.gpt.embed_token(token_ids)

    def states(
        self,
        x: Float[Tensor, "M D"],
        positions: Int[Tensor, "M"],
        entries: Int[Tensor, "M"],
        store: KeyValueStore,
    ) -> Float[Tensor, "M D"]:
        del entries
        return self.gpt(x, positions.where(positions != NOWHERE, self.gpt.nowhere), store)

    def logits(self, states: Float[Tensor, "M D"]) -> Float[Tensor, "M V"]:
        return self.gpt.head(states)


def _training_mask(
    lengths: Int[Tensor, "B"], num_condition: int, num_context: int, dtype: torch.dtype
) -> Float[Tensor, "B 1 S S"]:
    """Of `[condition ; tokens]`: each sees itself and those before it, pads of conditions aside."""
    size = num_condition + num_context
    places = torch.arange(size, device=lengths.device)
    is_known = (places < lengths[:, None]) | (places >= num_condition)
    causal = places <= places[:, None]
    itself = places == places[:, None]  # so that a pad sees something
    return additive_mask(causal & is_known[:, None] | itself, dtype)[:, None]
