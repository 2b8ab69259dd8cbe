"""Attributes of pictures: which label columns an evaluator reads, and the classes that each one has."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Int
from torch import Tensor

from oar_core.errors import DataError
from oar_core.train.avatar_looks import COLUMNS

Row = Mapping[str, str]
OTHER = "other"
UNKNOWN = -1  # the label of a value that no class covers; neither learned nor counted


@dataclass(frozen=True)
class Attribute:
    """A label column; its values beyond the `max_classes` most frequent ones share the class `other`."""

    column: str
    max_classes: int = 64
    is_partial: bool = False  # rows with an empty value have no label there; else empty is a value like others


AVATAR_LOOKS = tuple(column for column in COLUMNS if column != "facial_hair_colour")
ATTRIBUTE_SETS: dict[str, tuple[Attribute, ...]] = {
    "sprites": tuple(map(Attribute, ("action", "direction", "body", "hair", "topwear", "bottomwear", "shoes"))),
    "fashion": (
        Attribute("masterCategory"),
        Attribute("subCategory"),
        Attribute("articleType", max_classes=40),
        Attribute("baseColour", max_classes=20),
    ),
    # Part names like variant07 have no words: what a prompt decides is in the columns that `train.columns` adds.
    "avatars": (
        Attribute("style"),
        Attribute("background"),
        *(Attribute(f"look_{name}", is_partial=True) for name in AVATAR_LOOKS),
    ),
}


@dataclass(frozen=True)
class AttributeVocabulary:
    """The classes of each attribute, most frequent first."""

    classes: dict[str, tuple[str, ...]]

    @classmethod
    def build(cls, attributes: Sequence[Attribute], rows: Sequence[Row]) -> Self:
        """Raises DataError when the rows lack a column."""
        return cls({attribute.column: _classes(attribute, rows) for attribute in attributes})

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.classes)

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(map(len, self.classes.values()))

    def encode(self, rows: Sequence[Row]) -> Int[Tensor, "R A"]:
        """Class indices; a value without a class is `other` where there is that class, else UNKNOWN. An empty value
        without a class is UNKNOWN."""
        columns = [_encode(column, names, rows) for column, names in self.classes.items()]
        return torch.tensor(columns, dtype=torch.int64).reshape(len(columns), len(rows)).T.contiguous()


def _classes(attribute: Attribute, rows: Sequence[Row]) -> tuple[str, ...]:
    counts = Counter(_values(attribute.column, rows))
    if attribute.is_partial:
        counts.pop("", None)
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    kept = ranked[: attribute.max_classes]
    return tuple(kept) if len(kept) == len(ranked) else (*kept, OTHER)


def _encode(column: str, names: tuple[str, ...], rows: Sequence[Row]) -> list[int]:
    index = {name: number for number, name in enumerate(names)}
    fallback = index.get(OTHER, UNKNOWN)
    return [index.get(value, fallback if value else UNKNOWN) for value in _values(column, rows)]


def _values(column: str, rows: Sequence[Row]) -> list[str]:
    if any(column not in row for row in rows):
        raise DataError(f"the label rows have no column {column!r}, which the recipe names as an attribute")
    return [row[column] for row in rows]
