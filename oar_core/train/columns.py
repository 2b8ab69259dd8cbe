"""Column sources: label columns that are derived from those that a folder has, for attributes and captions to read."""

from collections.abc import Callable, Mapping, Sequence

from oar_core.errors import DataError
from oar_core.train.avatar_looks import add_look

Row = dict[str, str]
ColumnSource = Callable[[Mapping[str, str]], Row]

COLUMN_SOURCES: dict[str, ColumnSource] = {"avatars": add_look}


def add_columns(rows: Sequence[Row], source: str) -> list[Row]:
    """Each row with the columns that the source derives from it; as they are for a source without a name.

    Raises DataError where the rows lack what the source reads.
    """
    if not source:
        return list(rows)
    try:
        return [COLUMN_SOURCES[source](row) for row in rows]
    except KeyError as error:
        raise DataError(f"the rows have no column or value {error}, which column source {source!r} reads") from error
