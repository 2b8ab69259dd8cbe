"""Published DetailFlow networks: their keys as this library's."""

from collections.abc import Mapping

from torch import Tensor

from oar_core.detail_config import DetailBackboneConfig
from oar_core.models.checkpoint import read_fitting
from oar_core.models.detailflow.entry_layout import EntryLayout
from oar_core.models.gpt import GptConfig, native_tensors, published_shapes
from oar_core.models.gpt_sizes import CLASSES

PADS = "spe_tok_embeddings.special_embeddings.weight"
IGNORED = ("freqs_cis",)


def detail_state(state: Mapping[str, Tensor], config: DetailBackboneConfig) -> dict[str, Tensor]:
    """The tensors of a `DetailBackbone`, in fp32. Places are told by angles alone: their tables are zero. Raises
    WeightsError for a checkpoint of other keys or sizes."""
    gpt = GptConfig(
        grid=config.grid,
        vocab_size=config.vocab_size,
        width=config.width,
        num_heads=config.num_heads,
        num_layers=config.num_layers,
        ffn_width=config.ffn_width,
    )
    layout, width = EntryLayout(config.groups), config.width
    own = {CLASSES: (config.condition_vocab, width), PADS: (layout.num_pads, width)}
    found = read_fitting(state, {**published_shapes(gpt), **own}, "DetailFlow", IGNORED)
    classes = found[CLASSES]
    return {
        **native_tensors(found, gpt),
        "embed_condition.token.weight": classes.clone(),
        "embed_condition.place.weight": classes.new_zeros(config.max_condition, width),
        "place": classes.new_zeros(layout.capacity + 1, width),
        "pad": found[PADS].clone(),
    }
