"""The sizes of a LlamaGen tokenizer: those of the network that it shares with others."""

from oar_core.models.vq_config import VqConfig

__all__ = ["VqConfig"]
