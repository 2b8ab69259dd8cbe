"""A tiny model with random weights, in the files that a real one ships in."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from oar_core.config import BackboneConfig, OrderPolicyConfig, TokenizerConfig
from oar_core.models.model import BACKBONE, CONFIG, ORDER_TREE, POLICY, TOKENIZER
from oar_core.models.oar.backbone import OarBackbone
from oar_core.models.oar.vqgan import VQGAN
from oar_core.models.order_policy import OrderPolicy
from oar_core.order.paths import halton, spiral
from oar_core.order.tree import LEAF, OrderTree
from oar_core.text import TextTokenizer
from oar_core.weights import write_manifest

NAME = "tiny"
GRID = (4, 5)
NUM_TOKENS = 20
PROMPTS = ["a red circle", "a blue square, seen from the front"]
DEFAULTS = {
    "order": "random",
    "steps": 8,
    "group_sizes": "cosine",
    "guidance": 2.0,
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
}


# Of prompts without a certain token, and of prompts with it.
PROMPTED_ORDERS = halton(GRID), spiral(GRID)


def order_tree(text: TextTokenizer) -> OrderTree:
    """Asks for a token that the second prompt has and the first lacks."""
    first, second = (set(text.encode(prompt, max_length=24)) for prompt in PROMPTS)
    nodes = [[min(second - first), 1, 2], [LEAF, 0, 0], [LEAF, 1, 1]]
    return OrderTree(torch.tensor(nodes), torch.tensor(PROMPTED_ORDERS))


def write_tiny_weights(weights_dir: Path) -> None:
    folder = weights_dir / NAME
    folder.mkdir(parents=True)
    text = TextTokenizer.train(PROMPTS, vocab_size=280)
    text.save(folder)
    backbone = BackboneConfig(
        grid=GRID,
        vocab_size=24,
        condition_vocab=text.vocab_size,
        max_condition=24,
        width=32,
        num_heads=2,
        num_context_layers=2,
        num_query_layers=2,
    )
    tokenizer = TokenizerConfig(image_size=(16, 20), widths=(8, 16), head_width=8, vocab_size=24, code_width=4)
    policy = OrderPolicyConfig(width=16, num_layers=1)
    config = {
        "name": NAME,
        "backbone": backbone.to_dict(),
        "tokenizer": tokenizer.to_dict(),
        "policy": policy.to_dict(),
        "defaults": DEFAULTS,
        "example_prompts": PROMPTS,
        "pixel_art": True,  # so that what a page shows can be compared pixel by pixel
    }
    (folder / CONFIG).write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(7)
    modules = {BACKBONE: OarBackbone(backbone), TOKENIZER: VQGAN(tokenizer), POLICY: OrderPolicy(policy, backbone)}
    for name, module in modules.items():
        tensors = {key: value.contiguous() for key, value in module.state_dict().items()}
        for tensor in tensors.values():
            if tensor.dim() > 1 and tensor.is_floating_point():
                tensor.normal_(0, 0.25, generator=generator)
        save_file(tensors, folder / name)
    save_file(order_tree(text).tensors(), folder / ORDER_TREE)
    write_manifest(weights_dir, NAME, {NAME: "Apache-2.0"})
