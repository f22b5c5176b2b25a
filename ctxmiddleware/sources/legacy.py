"""How a context is put together from the tables, where the function is not installed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final, TypeVar

from ..address import normalise
from ..errors import SourceError, SourceMisconfigured
from ..model import Assignment, Employee, Region, Slot, UserContext
from .addresses import EmailSearch
from .endpoint import Server
from .exchange import Call, NotSupported
from .load import Load
from .rows import DanglingReference, Row, checked, columns_of, rows_from
from .way_out import migration_note

# Supabase cuts an answer at 1000 rows without a word; asking for more would only hide it.
_PAGE: Final = 1000
# Gateways refuse URLs somewhere above 4 KB; the rest of the address has its place beside the list.
_LIST_LENGTH: Final = 3500
# Rows among which one address is picked out, where the database cannot do that.
_MOST_CANDIDATES: Final = 1000
_NO_SEARCH: Final = (
    "the collation of employees.email does not let the table queries search by the e-mail rule: apply the migration, "
    "so that its function is called (`ctxmiddleware sql show`)"
)

R = TypeVar("R", bound=Row)
Query = dict[str, str]


async def read_tables(load: Load, email: str, search: EmailSearch) -> UserContext | None:
    """Return the context put together from employees, assignments, slots and regions, or None for an unknown user.

    The four are read one after the other, so a row may vanish in between: then everything is read once more.

    Args:
        load: the load to ask through.
        email: the address to look for, in any spelling: what is stored may have another.
        search: how the column can be searched.

    Raises:
        SourceUnavailable: a passing fault.
        SourceMisconfigured: the column cannot be searched by the e-mail rule.
        SourceError: a row does not fit, or the address belongs to two employees.
    """
    try:
        return await _read(load, email, search)
    except DanglingReference:
        return await _read(load, email, search)


async def _read(load: Load, email: str, search: EmailSearch) -> UserContext | None:
    employee = await _employee(load, email, search)
    if employee is None:
        return None
    assignments = await _all(load, "assignments", Assignment, _after({"employee_id": f"eq.{employee.id}"}))
    slots = await _by_id(load, "slots", Slot, (row.slot_id for row in assignments))
    regions = await _by_id(load, "regions", Region, (row.region_id for row in slots))
    return checked(UserContext(normalise(email), employee, tuple(assignments), tuple(slots), tuple(regions)), email)


async def _employee(load: Load, email: str, search: EmailSearch) -> Employee | None:
    try:
        rows = await _candidates(load, email, search)
    except NotSupported as error:
        if search.by_ranges:
            raise SourceMisconfigured(f"{_NO_SEARCH}{migration_note(load.schema)}; {error}") from None
        search.no_patterns()
        return await _employee(load, email, search)
    # A column that compares without case finds more than the rule calls one address.
    found = [row for row in rows if normalise(row.email) == normalise(email)]
    if len(found) > 1:
        raise SourceError("employees.email: the address belongs to more than one employee")
    return found[0] if found else None


async def _candidates(load: Load, email: str, search: EmailSearch) -> list[Employee]:
    most = _MOST_CANDIDATES if search.by_ranges else None
    return await _all(load, "employees", Employee, _after(search.query(email)), most=most)


async def _by_id(load: Load, table: str, kind: type[R], ids: Iterable[int]) -> list[R]:
    rows: list[R] = []
    for chunk in _chunks(sorted(set(ids))):
        rows += await _all(load, table, kind, _among(chunk))
    return rows


def _chunks(ids: Sequence[int]) -> Iterator[list[int]]:
    chunk: list[int] = []
    length = 0
    for number in ids:
        length += len(str(number)) + 1
        if length > _LIST_LENGTH:
            yield chunk
            chunk, length = [], len(str(number)) + 1
        chunk.append(number)
    if chunk:
        yield chunk


def _after(query: Query) -> Callable[[int | None], Query]:
    return lambda last: query if last is None else {**query, "id": f"gt.{last}"}


def _among(ids: Sequence[int]) -> Callable[[int | None], Query]:
    def query(last: int | None) -> Query:
        rest = ids if last is None else [number for number in ids if number > last]
        return {"id": f"in.({','.join(map(str, rest))})"}

    return query


async def _all(
    load: Load, table: str, kind: type[R], query: Callable[[int | None], Query], *, most: int | None = None
) -> list[R]:
    """Read page after page, each from behind the last id of the one before, until the server's own count is reached."""
    rows: list[R] = []
    while True:
        last = rows[-1].id if rows else None
        answer = await load.read(_question(table, kind, query(last)))
        page = rows_from(answer.body, table, kind)
        _goes_on(table, last, page)
        rows += page
        if most is not None and max(len(rows), answer.total or 0) > most:
            raise NotSupported(f"more than {most} rows lie where the address would be")
        if not page or (answer.total is not None and len(page) >= answer.total):
            break
    if not page and answer.total:
        raise SourceError(f"{table}: the server counts rows that it does not return")
    return rows


def _question(table: str, kind: type[Row], query: Query) -> Callable[[Server], Call]:
    columns = ",".join(columns_of(kind))
    whole = {"select": columns, **query, "order": "id.asc", "limit": str(_PAGE)}
    return lambda server: server.get(table, whole, prefer="count=exact")


def _goes_on(table: str, last: int | None, page: Sequence[Row]) -> None:
    # A server that ignores order or filter would otherwise be asked for ever.
    ids = [*([] if last is None else [last]), *(row.id for row in page)]
    if any(first >= second for first, second in pairwise(ids)):
        raise SourceError(f"{table}.id: the rows are not ordered by id, each once")
