"""Prompt agreement: attributes that the evaluator reads back from pictures, against those of their label rows."""

from jaxtyping import Int
from torch import Tensor

from oar_core.train.attributes import UNKNOWN


def agreement(read: Int[Tensor, "M A"], expected: Int[Tensor, "M A"], names: tuple[str, ...]) -> dict[str, float]:
    """Share of pictures whose reading is right, per attribute and their plain mean under `mean`.

    Pictures whose label has no class are left out; so is an attribute of which nothing is known.
    """
    known = expected != UNKNOWN
    hits = (read == expected) & known
    shares = {
        name: (hits[:, column].sum() / known[:, column].sum()).item()
        for column, name in enumerate(names)
        if known[:, column].any()
    }
    return {**shares, "mean": sum(shares.values()) / len(shares)} if shares else {}


def relative(reached: dict[str, float], possible: dict[str, float]) -> dict[str, float]:
    """Agreement as a share of what the evaluator reads off real pictures."""
    return {name: reached[name] / possible[name] for name in reached if possible.get(name, 0.0) > 0}
