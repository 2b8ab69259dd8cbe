"""The import interface of a family: how a published checkpoint becomes a network of this library, and its card.

A checkpoint's keys and sizes are its project's own. An importer reads the sizes from the shapes of its tensors, renames
and rearranges the tensors, and knows the recipe by which its project makes pictures. Files, downloads, memory and
everything that is the same for all families lie above, in `oar_core.importing`.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

from torch import Tensor

from oar_core.errors import ConfigError, WeightsError
from oar_core.models.base import Conditioner

Config = Mapping[str, Any]
Shapes = Mapping[str, tuple[int, ...]]
State = Mapping[str, Tensor]

PUBLISHED_GRID = (16, 16)  # of pictures of 256 x 256 pixels with 16 a token
UNTRUNCATED = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}  # sampling of most published recipes


@dataclass(frozen=True)
class Publication:
    """A project's description of its network of one size: the card of a model that is imported from it."""

    title: str  # as its project names it: "ARPG-XL"
    licence: str  # of the project; a checkpoint may have another, which the card says
    source: str  # where it is published
    defaults: Mapping[str, Any]  # the published recipe, as options of a drawing
    example_prompts: tuple[str, ...] = ()
    notice: str = ""  # what whoever imports it should know; a sentence


@dataclass(frozen=True)
class Partner:
    """What the two files of a model tell of each other, where the tensors of one do not say it. Both functions are
    given the shapes of the image tokenizer's file, and raise WeightsError."""

    backbone: Callable[[Shapes], dict[str, Any]]  # entries of the backbone's config
    tokenizer: Callable[[Shapes, Config], dict[str, Any]]  # of the tokenizer's, by the backbone's config too


@dataclass(frozen=True)
class Importer:
    """An importer of checkpoints of a backbone, or of an image tokenizer. All functions raise WeightsError, whose
    sentence is for whoever has the file.

    Keys that neither `native_state` reads nor `ignored` matches are refused: a file that holds more than the network is
    another network's.
    """

    # Whether the keys are those of this family. It tells a wrong family from a broken file, and finds a tokenizer's.
    recognises: Callable[[Shapes], bool]
    # The part's entry in a model's config: what the shapes say, and what they cannot (heads, grid) from the second
    # argument, which holds entries of the same names, or from the sizes that are published.
    infer: Callable[[Shapes, Config], dict[str, Any]]
    # The tensors of the network that the family builds from that config.
    native_state: Callable[[State, Config], dict[str, Tensor]]
    # The card; None for a tokenizer.
    publication: Callable[[Config], Publication] | None = None
    # What reads prompts, from the config and the file or folder of `--text`; None: the model draws classes.
    conditioner: Callable[[Config, Path | None], Conditioner | None] | None = None
    # Keys, or beginnings of keys that end with a dot, that are known and of no use.
    ignored: tuple[str, ...] = ()
    # The entry of a pickled file that its authors draw with, where the file has it; else the usual one.
    drawn_with: str = ""
    partner: Partner | None = None

    def ignores(self, key: str) -> bool:
        return any(key == name or (name.endswith(".") and key.startswith(name)) for name in self.ignored)


def reader(
    rearrange: Callable[..., dict[str, Tensor]], build: Callable[[Config], Any] | None = None
) -> Callable[[State, Config], dict[str, Tensor]]:
    """An importer's `native_state` from a function of the state, and of the config that `build` makes, if any."""
    return lambda state, config: rearrange(state) if build is None else rearrange(state, build(config))


class ReadKeys(Mapping[str, Tensor]):
    """A checkpoint that remembers which of its keys were read. A missing one raises WeightsError."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> Tensor:
        if key not in self._state:
            raise WeightsError(f"it has no {key}")
        self.read.add(key)
        return self._state[key]

    def __contains__(self, key: object) -> bool:
        return key in self._state

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)


def shape(shapes: Shapes, key: str, dimensions: int) -> tuple[int, ...]:
    """Raises WeightsError where there is no such tensor, or it has other dimensions."""
    if key not in shapes:
        raise WeightsError(f"it has no {key}")
    found = shapes[key]
    if len(found) != dimensions:
        raise WeightsError(f"{key} has the shape {list(found)}; {dimensions} dimensions were expected")
    return found


def count_layers(shapes: Shapes, pattern: str) -> int:
    """Counts layers from 0 on, by one of their keys: `{}` stands for the number. Raises WeightsError for
    none."""
    count = 0
    while pattern.format(count) in shapes:
        count += 1
    if not count:
        raise WeightsError(f"it has no {pattern.format(0)}")
    return count


def settle_config(found: Config, given: Config, assumed: Config | None = None) -> dict[str, Any]:
    """A config of what the shapes say, of what was given, and else of what is published. Raises WeightsError where the
    shapes say otherwise than what was given."""
    for name, value in found.items():
        if name in given and _plain(given[name]) != _plain(value):
            raise WeightsError(f"its tensors say {name} {_plain(value)}, and the config says {_plain(given[name])}")
    return {**(assumed or {}), **given, **found}


def heads(width: int, given: Config, published: Mapping[int, int]) -> int:
    """The number of attention heads, which no tensor tells. Raises WeightsError."""
    if "num_heads" in given:
        return int(given["num_heads"])
    if width not in published:
        raise WeightsError(
            f"its width is {width}, which is no published size: the config has to say num_heads, which no tensor tells"
        )
    return published[width]


def square_grid(num_tokens: int, given: Config) -> tuple[int, int]:
    """The grid of so many positions: as given, else a square. Raises WeightsError where it does not fit."""
    side = isqrt(num_tokens)
    height, width = given.get("grid", (side, side))
    if height * width != num_tokens:
        raise WeightsError(f"it has {num_tokens} positions, which are no grid of {height} x {width}")
    return height, width


def has_all(shapes: Shapes, keys: Collection[str]) -> bool:
    return all(key in shapes for key in keys)


def checked(build: Callable[..., Any], config: Config) -> dict[str, Any]:
    """The config in full, as a frozen config's `from_dict` reads it. Raises WeightsError."""
    try:
        return build(config).to_dict()
    except ConfigError as error:
        raise WeightsError(str(error)) from error


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value
