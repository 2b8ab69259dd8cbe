"""Tables of figures."""

from collections.abc import Iterable, Sequence

from oar_lab.eval.markdown import markdown_table


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Formats a table in Markdown. Floats have three significant digits."""
    return markdown_table(headers, [[_cell(value) for value in row] for row in rows])


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
