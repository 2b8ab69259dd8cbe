"""Facts of a recipe for whoever chooses one: what it makes and what that costs."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from oar_core.models.load import family
from oar_core.train.discriminator import Discriminator
from oar_core.train.recipe import Recipe
from oar_lab.eval.markdown import markdown_table

# A parameter in training: weight, gradient, two moments and the average, four bytes each.
BYTES_PER_PARAMETER = 20
MIB = 1 << 20


@dataclass(frozen=True)
class Measured:
    """Speeds of `oar bench training --recipe NAME --stage STAGE`, at its 32 pictures a step."""

    tokenizer_speed: float  # pictures per CPU second
    any_order_speed: float
    peak_mib: int  # of the process, in the stage that needs more


MEASURED = {
    "sprites-64": Measured(27.9, 31.6, 822),
    "pictures-64": Measured(27.9, 31.6, 822),  # the same networks
    "sprites-64-fine": Measured(35.5, 8.0, 1925),
    "fashion": Measured(17.9, 36.8, 924),  # on the other machine
    "sprites-64-gpu": Measured(7.9, 1.4, 5765),
}
MEASURED_ON = (
    "Speed and memory: `oar bench training`, 32 pictures a step, bf16, one core of an AMD EPYC that other work shared; "
    "alone it is about twice as fast. `fashion`: fp32, one core of an Intel Xeon. Parameters and pictures: of the "
    "tokenizer + of the any-order stage."
)


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
    measured: Measured | None  # None where it was not
    core_hours: float | None  # of both stages on one core, from the measured speeds


def recipe_facts(recipe: Recipe) -> RecipeFacts:
    with torch.device("meta"):
        networks = family(recipe.family)
        tokenizer = networks.build_tokenizer(recipe.family, recipe.tokenizer.to_dict())
        backbone = networks.build_backbone(recipe.family, recipe.backbone.to_dict())
        discriminator = Discriminator()
    sizes = _count(tokenizer), _count(backbone)
    measured = MEASURED.get(recipe.name)
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
        measured=measured,
        core_hours=_hours(measured, *pictures) if measured else None,
    )


def _hours(measured: Measured, tokenizer: int, any_order: int) -> float:
    return round((tokenizer / measured.tokenizer_speed + any_order / measured.any_order_speed) / 3600, 1)


def facts_table(facts: Sequence[RecipeFacts]) -> str:
    """Markdown."""
    header = ("recipe", "canvas", "grid", "tokens", "parameters", "memory", "pictures", "pictures/CPU s", "core hours")
    return markdown_table(header, [_row(fact) for fact in facts])


def _row(fact: RecipeFacts) -> list[str]:
    measured = fact.measured
    return [
        fact.name,
        f"{fact.canvas[1]}x{fact.canvas[0]}",
        f"{fact.grid[1]}x{fact.grid[0]}",
        str(fact.num_tokens),
        f"{fact.tokenizer_parameters / 1e6:.1f} + {fact.backbone_parameters / 1e6:.1f} M",
        f"{measured.peak_mib} MiB" if measured else "-",
        f"{fact.tokenizer_pictures:,} + {fact.any_order_pictures:,}",
        f"{measured.tokenizer_speed:g} + {measured.any_order_speed:g}" if measured else "-",
        "-" if fact.core_hours is None else f"{fact.core_hours:g}",
    ]


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
