"""Reports of benchmarks, and tables of figures."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, Protocol, cast

from oar_lab.eval.markdown import markdown_table


class BenchReport(Protocol):
    """A dataclass of figures, as people and as programs read it."""

    def table(self) -> str: ...

    def to_dict(self) -> dict[str, Any]:
        return asdict(cast("Any", self))


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Formats a table in Markdown. Floats have three significant digits."""
    return markdown_table(headers, [[_cell(value) for value in row] for row in rows])


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
