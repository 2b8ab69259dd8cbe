"""The answer of a part of the comparison."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Part:
    """`lines` are for people, `facts` for programs. `is_good` is whether the versions agree as far as they should."""

    title: str
    is_good: bool
    lines: list[str]
    facts: dict[str, Any] = field(default_factory=dict)


def part_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Columns that line up, as Markdown."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in cells]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]
