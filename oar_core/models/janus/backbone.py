"""The Janus network: a language model that reads a prompt and then codes, and has a head of its own for codes."""

from jaxtyping import Float, Int
from torch import Tensor, nn

from oar_core.config import OrderScore
from oar_core.models.base import BackboneSpec, Condition, GridLayout, Queries, Unconditional
from oar_core.models.janus.config import JanusConfig
from oar_core.models.next_token import LastStateCache, NextTokenBackbone
from oar_core.nn.attention import KeyValueStore, SelfAttention, compute_dtype
from oar_core.nn.block import Block
from oar_core.nn.initial import draw_weights
from oar_core.nn.kv_cache import KVCache
from oar_core.nn.norm import make_norm
from oar_core.nn.rope import SequenceRotary

NORM = "rms-6"


class JanusBackbone(NextTokenBackbone):
    """A condition is a prompt in its template, which ends with the token that begins a picture. Places count from the
    beginning of the prompt: a code's place on the grid is not told otherwise."""

    def __init__(self, config: JanusConfig) -> None:
        super().__init__()
        self.config = config
        self.order_score = OrderScore()
        self.order_tree = None
        width = config.width
        self.embed_prompt = nn.Embedding(config.condition_vocab, width)
        self.embed_code = nn.Embedding(config.vocab_size, config.code_width)
        self.align = nn.Sequential(nn.Linear(config.code_width, width), nn.GELU(), nn.Linear(width, width))
        self.rotary = SequenceRotary(config.max_cached, config.head_width, config.rotary_base)
        self.blocks = nn.ModuleList(
            Block(width, SelfAttention(width, config.num_heads), norm=NORM, ffn_width=config.ffn_width)
            for _ in range(config.num_layers)
        )
        self.norm = make_norm(NORM, width)
        self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, config.vocab_size))
        draw_weights(self)

    @property
    def spec(self) -> BackboneSpec:
        config = self.config
        return BackboneSpec(
            layout=GridLayout(*config.grid),
            vocab_size=config.vocab_size,
            condition_vocab=config.condition_vocab,
            max_condition=config.max_condition,
            queries=Queries.NEXT,
            unconditional=Unconditional.PADDED,
        )

    def new_cache(self, num_slots: int) -> LastStateCache:
        config, weight = self.config, self.embed_prompt.weight
        cache = KVCache.beside(
            weight,
            num_layers=config.num_layers,
            num_slots=num_slots,
            num_heads=config.num_heads,
            capacity=config.max_cached,
            head_width=config.head_width,
        )
        return LastStateCache.of(cache, config.width, weight.dtype)

    def embed_condition(self, condition: Condition) -> Float[Tensor, "B P D"]:
        return self.embed_prompt(condition.ids)

    def embed_tokens(self, token_ids: Int[Tensor, "*S"]) -> Float[Tensor, "*S D"]:
        return self.align(self.embed_code(token_ids))

    def states(
        self, x: Float[Tensor, "*S D"], positions: Int[Tensor, "*S"], entries: Int[Tensor, "*S"], store: KeyValueStore
    ) -> Float[Tensor, "*S D"]:
        del positions
        return self._trunk(x, entries, store)

    def logits(self, states: Float[Tensor, "*S D"]) -> Float[Tensor, "*S V"]:
        return self.head(states)

    def _trunk(
        self, x: Float[Tensor, "*S D"], places: Int[Tensor, "*S"], store: KeyValueStore
    ) -> Float[Tensor, "*S D"]:
        rotation = self.rotary(places, compute_dtype(self.embed_prompt.weight))
        for layer, block in enumerate(self.blocks):
            x = block(x, rotation, layer, store)
        return self.norm(x)
