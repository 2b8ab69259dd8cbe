"""Initial weights of transformers."""

from torch import nn

INIT_STD = 0.02


def draw_weights(network: nn.Module) -> None:
    """Draws the weights of all linear layers and embeddings."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.trunc_normal_(module.weight, std=INIT_STD)
