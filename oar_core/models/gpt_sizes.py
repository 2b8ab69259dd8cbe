"""The sizes of the networks of `gpt`, as the tensors of published checkpoints say."""

from typing import Any

from oar_core.models.importer import Config, Shapes, count_layers, heads, shape

TOKENS, CLASSES = "tok_embeddings.weight", "cls_embedding.embedding_table.weight"
HEADS = {768: 12, 1024: 16, 1280: 20, 1536: 24, 3200: 32}  # of the published widths
SIZES = {768: "B", 1024: "L", 1280: "XL", 1536: "XXL", 3200: "3B"}  # as their projects call them


def gpt_sizes(shapes: Shapes, given: Config) -> dict[str, Any]:
    """All but the grid, which no tensor tells, and the classes. Raises WeightsError."""
    vocab_size, width = shape(shapes, "output.weight", 2)
    return {
        "vocab_size": vocab_size,
        "width": width,
        "num_heads": heads(width, given, HEADS),
        "num_layers": count_layers(shapes, "layers.{}.attention.wqkv.weight"),
        "ffn_width": shape(shapes, "layers.0.feed_forward.w1.weight", 2)[0],
    }


def num_classes(shapes: Shapes) -> int:
    """Without the unconditional one. Raises WeightsError."""
    return shape(shapes, CLASSES, 2)[0] - 1
