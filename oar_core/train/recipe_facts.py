"""What a recipe makes and what that costs, told before it is chosen."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from oar_core.eval.tables import markdown_table
from oar_core.models.oar import OarBackbone
from oar_core.tokenizers.vqgan import VQGAN
from oar_core.train.discriminator import Discriminator
from oar_core.train.recipes import Recipe

# A parameter in training: weight, gradient, two moments and the average, four bytes each.
BYTES_PER_PARAMETER = 20
MIB = 1 << 20

# Pictures per CPU second of the tokenizer and of the any-order stage. See MEASURED_ON.
MEASURED: dict[str, tuple[float, float]] = {}
MEASURED_ON = ""


@dataclass(frozen=True)
class RecipeFacts:
    name: str
    canvas: tuple[int, int]  # Y, X in pixels
    grid: tuple[int, int]  # h, w in tokens
    num_tokens: int
    vocab_size: int
    tokenizer_parameters: int
    backbone_parameters: int
    state_mib: int  # weights, gradients, moments and averages of the larger stage; activations come on top
    tokenizer_pictures: int  # that the stage sees
    any_order_pictures: int
    tokenizer_speed: float | None  # pictures per CPU second, measured; None where it was not
    any_order_speed: float | None
    core_hours: float | None  # of both stages on one core, from these


def recipe_facts(recipe: Recipe) -> RecipeFacts:
    with torch.device("meta"):
        tokenizer, backbone = VQGAN(recipe.tokenizer), OarBackbone(recipe.backbone)
        discriminator = Discriminator()
    sizes = _count(tokenizer), _count(backbone)
    speeds = MEASURED.get(recipe.name)
    pictures = recipe.tokenizer_loop.num_images, recipe.any_order_loop.num_images
    return RecipeFacts(
        name=recipe.name,
        canvas=recipe.tokenizer.image_size,
        grid=recipe.backbone.grid,
        num_tokens=recipe.backbone.num_tokens,
        vocab_size=recipe.backbone.vocab_size,
        tokenizer_parameters=sizes[0],
        backbone_parameters=sizes[1],
        state_mib=round(BYTES_PER_PARAMETER * max(sizes[0] + _count(discriminator), sizes[1]) / MIB),
        tokenizer_pictures=pictures[0],
        any_order_pictures=pictures[1],
        tokenizer_speed=speeds[0] if speeds else None,
        any_order_speed=speeds[1] if speeds else None,
        core_hours=round(sum(n / speed for n, speed in zip(pictures, speeds)) / 3600, 1) if speeds else None,
    )


def facts_table(facts: Sequence[RecipeFacts]) -> str:
    """Markdown."""
    header = ("recipe", "canvas", "grid", "tokens", "parameters", "state", "pictures", "pictures/CPU s", "core hours")
    return markdown_table(header, [_row(fact) for fact in facts])


def _row(fact: RecipeFacts) -> list[str]:
    speeds = (fact.tokenizer_speed, fact.any_order_speed)
    return [
        fact.name,
        f"{fact.canvas[1]}x{fact.canvas[0]}",
        f"{fact.grid[1]}x{fact.grid[0]}",
        str(fact.num_tokens),
        f"{fact.tokenizer_parameters / 1e6:.1f} + {fact.backbone_parameters / 1e6:.1f} M",
        f"{fact.state_mib} MiB",
        f"{fact.tokenizer_pictures:,} + {fact.any_order_pictures:,}",
        " + ".join("-" if speed is None else f"{speed:g}" for speed in speeds),
        "-" if fact.core_hours is None else f"{fact.core_hours:g}",
    ]


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
