"""How rows of a warehouse become zones, or an error that names the table and the field."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from ..errors import SourceError
from ..model import Zone

logger = logging.getLogger("ctxmiddleware.zones")

COLUMNS = ("id", "name", "region_code")
_FAULTS_LOGGED = 5
_LEFT_OUT_AT_MOST = 5


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


class RowReader:
    """Turns rows into zones, and leaves out those that cannot be read: one bad row must not take all zones away.

    Args:
        table: what is read, for errors and the log.
    """

    def __init__(self, table: str) -> None:
        self._table = table
        self._zones: list[Zone] = []
        self._rows = 0
        self._faults: list[SourceError] = []
        self._left_out = 0

    def read(self, row: Mapping[str, object]) -> None:
        """Take the next row."""
        self._rows += 1
        try:
            self._zones.append(zone_from(row, self._rows, self._table))
        except SourceError as error:
            self._left_out += 1
            if len(self._faults) < _FAULTS_LOGGED:
                self._faults.append(error)

    def zones(self) -> tuple[Zone, ...]:
        """Return the zones, with a warning that names the first rows that were left out.

        Raises:
            SourceError: more than half of the rows cannot be read, or more than five and a tenth of them: what is known
                from before is better then.
        """
        if 2 * self._left_out > self._rows or self._left_out > max(_LEFT_OUT_AT_MOST, self._rows // 10):
            raise self._faults[0]
        if self._faults:
            logger.warning(
                "%s of %s rows of zones cannot be read and are left out: %s",
                self._left_out,
                self._rows,
                "; ".join(map(str, self._faults)),
            )
        return tuple(self._zones)


def _kind(value: object) -> str:
    return "NULL" if value is None else f"of type {type(value).__name__}"


def _expected(column: str) -> str:
    return "a STRING or an INT64" if column == "id" else "a STRING"
