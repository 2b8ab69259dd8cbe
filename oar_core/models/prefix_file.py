"""How a file of published tokenizers of sequences is known, and how long its sequence is: the backbone's file does not
tell."""

from oar_core.models.importer import Shapes, has_all, shape

QUERIES = "encoder.latent_tokens"


def recognises_tokenizer(shapes: Shapes) -> bool:
    return has_all(shapes, [QUERIES, "decoder.mask_token", "quantize.embedding.weight"])


def num_tokens(shapes: Shapes) -> int:
    """Raises WeightsError."""
    return shape(shapes, QUERIES, 3)[1]
