"""Requests of a benchmark and their times: the same for one seed."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice, product

from oar_client import Options


@dataclass(frozen=True)
class Wish:
    """One request for one picture."""

    model: str
    prompt: str
    seed: int
    steps: int
    order: str
    previews: bool

    @property
    def options(self) -> Options:
        return {
            "model": self.model,
            "seed": self.seed,
            "steps": self.steps,
            "order": self.order,
            "previews": self.previews,
        }


def wishes(
    count: int,
    model: str,
    prompts: Sequence[str],
    steps: Sequence[int],
    orders: Sequence[str],
    *,
    previews: bool,
    seed: int,
) -> list[Wish]:
    """Every combination of steps and orders equally often, as far as `count` allows, shuffled; prompts in turn."""
    kinds = list(islice(cycle(product(steps, orders)), count))
    random.Random(seed).shuffle(kinds)
    return [
        Wish(model, prompts[number % len(prompts)], seed + number, *kind, previews) for number, kind in enumerate(kinds)
    ]
