"""How rows of a warehouse become zones, or an error that names the table and the field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..errors import SourceError
from ..model import Zone

COLUMNS = ("id", "name", "region_code")


def require_columns(columns: Iterable[str], table: str) -> None:
    """Check that a result has the columns of a zone; others are ignored.

    Raises:
        SourceError: some are not there.
    """
    present = tuple(columns)
    missing = [column for column in COLUMNS if column not in present]
    if missing:
        raise SourceError(
            f"{table} has no column {', '.join(missing)}: it has {', '.join(present) or 'none'}, "
            f"and zones need {', '.join(COLUMNS)}"
        )


def zone_from(row: Mapping[str, object], number: int, table: str) -> Zone:
    """Return the zone of one row.

    `id` is a string or an integer, which is written in decimal; `name` and `region_code` are strings. Nothing else is
    converted: a floating point id has more than one spelling, and a NULL belongs to no region.

    Args:
        row: the values by column.
        number: which row it is, from 1, for the error.
        table: what is read, for the error.

    Raises:
        SourceError: a value is of another type.
    """
    identity = row["id"]
    # A Boolean is an int to Python and none to a warehouse.
    if isinstance(identity, int) and not isinstance(identity, bool):
        identity = str(identity)
    values = {"id": identity, "name": row["name"], "region_code": row["region_code"]}
    for column, value in values.items():
        if not isinstance(value, str):
            raise SourceError(f"{table}, row {number}: {column} is {_kind(value)}, and must be {_expected(column)}")
    return Zone(**values)  # type: ignore[arg-type]  # each was just seen to be a str


def _kind(value: object) -> str:
    return "NULL" if value is None else f"of type {type(value).__name__}"


def _expected(column: str) -> str:
    return "a STRING or an INT64" if column == "id" else "a STRING"
