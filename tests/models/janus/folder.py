"""A model's folder of the golden Janus."""

from oar_core.models.janus.config import JanusConfig
from oar_core.models.llamagen_vq.config import VqConfig
from tests.models.janus.reference import HEADS, HIDDEN, LAYERS, NUM_CODES, VOCAB, WIDTH

GRID = (4, 4)
BACKBONE_CONFIG = JanusConfig(
    grid=GRID,
    vocab_size=NUM_CODES,
    condition_vocab=VOCAB,
    max_condition=40,
    width=WIDTH,
    num_heads=HEADS,
    num_layers=LAYERS,
    ffn_width=HIDDEN,
)
TOKENIZER_CONFIG = VqConfig(
    grid=GRID, width=32, multipliers=(1, 1), encoder_blocks=1, vocab_size=NUM_CODES, code_width=8, hidden_width=32
)
