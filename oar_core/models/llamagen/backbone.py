"""The LlamaGen network: one causal stack, whose latest token says what the next one is."""

from jaxtyping import Float, Int
from torch import Tensor, nn

from oar_core.config import OrderScore
from oar_core.models.base import BackboneSpec, Condition, GridLayout, Queries, Unconditional
from oar_core.models.gpt import Gpt
from oar_core.models.llamagen.captions import CaptionEmbedding
from oar_core.models.llamagen.config import LlamaGenConfig
from oar_core.models.next_token import NOWHERE, LastStateCache, NextTokenBackbone
from oar_core.nn.attention import KeyValueStore
from oar_core.nn.initial import draw_weights


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
        draw_weights(self)

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

    def new_cache(self, num_slots: int) -> LastStateCache:
        cache = self.gpt.new_cache(num_slots, self.spec.max_condition + self.config.num_tokens)
        return LastStateCache.of(cache, self.config.width, self.gpt.embed_token.weight.dtype)

    def embed_condition(self, condition: Condition) -> Float[Tensor, "B P D"]:
        return self.embed(condition if self.config.reads_captions else condition.ids)

    def embed_tokens(self, token_ids: Int[Tensor, "*S"]) -> Float[Tensor, "*S D"]:
        return self.gpt.embed_token(token_ids)

    def states(
        self, x: Float[Tensor, "*S D"], positions: Int[Tensor, "*S"], entries: Int[Tensor, "*S"], store: KeyValueStore
    ) -> Float[Tensor, "*S D"]:
        del entries
        return self.gpt(x, positions.where(positions != NOWHERE, self.gpt.nowhere), store)

    def logits(self, states: Float[Tensor, "*S D"]) -> Float[Tensor, "*S V"]:
        return self.gpt.head(states)
