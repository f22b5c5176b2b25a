"""Whether what came from the database is one whole context of the person that was asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final, Protocol, TypeVar

import msgspec

from ..address import normalise
from ..errors import SourceError
from ..model import UserContext
from .base import Loaded

_BIGINT: Final = range(-(2**63), 2**63)
# The context names its parts in the singular where there is one; a fault names the table.
_TABLES: Final = {"employee": "employees"}


class DanglingReference(SourceError):
    """A row points to one that is not there; rows that change between two reads look like this too."""


class Row(Protocol):
    """A row with an id, as all of them have."""

    @property
    def id(self) -> int:
        """The primary key."""
        ...


R = TypeVar("R", bound=Row)
T = TypeVar("T")

_context: Final = msgspec.json.Decoder(UserContext | None)
_contexts: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def context_from(body: bytes, email: str) -> UserContext | None:
    """Return the context a function answered with, or None for its `null`.

    Args:
        body: the JSON answer of the function.
        email: the address that was asked for.

    Raises:
        SourceError: it is no context, not a whole one, or another person's.
    """
    context = _decoded(body, _context, "")
    return None if context is None else checked(context, email)


def contexts_from(body: bytes) -> Mapping[str, bytes]:
    """Return what a batch function answered with: the answer for each address, still to be read by `context_from`.

    Args:
        body: the JSON answer of the function, an object keyed by the addresses as they were sent.

    Raises:
        SourceError: it is no such object.
    """
    return {email: bytes(answer) for email, answer in _decoded(body, _contexts, "").items()}


def rows_from(body: bytes, table: str, kind: type[R]) -> list[R]:
    """Return the rows a table answered with.

    Args:
        body: the JSON answer, a list of objects.
        table: the table's name, for errors.
        kind: the struct of one row.

    Raises:
        SourceError: a row does not fit; the message names table and field.
    """
    rows: list[R] = _decoded(body, msgspec.json.Decoder(list[kind]), table)  # type: ignore[valid-type]  # a run-time type
    for row in rows:
        _in_range(table, row)
    return rows


def columns_of(kind: type[Row]) -> tuple[str, ...]:
    """Return the names of the columns a row's struct is made of."""
    return tuple(kind.__annotations__)


def checked(context: UserContext, email: str) -> UserContext:
    """Return the context under its normalised address, if it is whole and the asked person's.

    Args:
        context: what was read.
        email: the address that was asked for.

    Raises:
        DanglingReference: a slot or a region is missing.
        SourceError: it belongs to another address, or its rows are not those of one employee, each once, ordered by id.
    """
    wanted = normalise(email)
    if normalise(context.email) != wanted or normalise(context.employee.email) != wanted:
        raise SourceError("employees.email: the context of another address was returned")
    _in_range("employees", context.employee)
    _ordered("assignments", context.assignments)
    _ordered("slots", context.slots)
    _ordered("regions", context.regions)
    if any(assignment.employee_id != context.employee.id for assignment in context.assignments):
        raise SourceError("assignments.employee_id: an assignment of another employee was returned")
    _referred("assignments.slot_id", (row.slot_id for row in context.assignments), "slots", context.slots)
    _referred("slots.region_id", (row.region_id for row in context.slots), "regions", context.regions)
    return context if context.email == wanted else msgspec.structs.replace(context, email=wanted)


def _ordered(table: str, rows: Sequence[Row]) -> None:
    for row in rows:
        _in_range(table, row)
    if any(first.id >= second.id for first, second in pairwise(rows)):
        raise SourceError(f"{table}.id: the rows are not ordered by id, each once")


def _referred(reference: str, wanted: Iterable[int], table: str, rows: Sequence[Row]) -> None:
    asked, there = set(wanted), {row.id for row in rows}
    if asked - there:
        raise DanglingReference(f"{reference}: the row of {table} it points to is missing")
    if there - asked:
        # A slot nobody put this person on is a right nobody gave them.
        raise SourceError(f"{table}.id: a row was returned that no {reference} points to")


def _in_range(table: str, row: Row) -> None:
    # JSON numbers have no end; a bigger one than the database holds would break the stored form later.
    for name in columns_of(type(row)):
        value = getattr(row, name)
        if isinstance(value, int) and value not in _BIGINT:
            raise SourceError(f"{table}.{name}: out of the range of bigint")


def _decoded(body: bytes, decoder: msgspec.json.Decoder[T], table: str) -> T:
    # Raised outside the handlers: a decoding error carries the bytes it choked on.
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        fault = _named(str(error), table)
    except (msgspec.DecodeError, UnicodeDecodeError):
        fault = f"{table or 'the function'}: the answer is not JSON, or not whole"
    except RecursionError:
        fault = f"{table or 'the function'}: the answer is nested too deeply"
    raise SourceError(fault)


def _named(message: str, table: str) -> str:
    what, _, path = message.partition(" - at ")
    names = [table] if table else []
    names += re.findall(r"\.([A-Za-z_]\w*)", path)
    if missing := re.fullmatch(r"Object missing required field `(\w+)`", what):
        names.append(missing[1])
        complaint = "missing"
    else:
        complaint = _complaint(what)
    names[:1] = [_TABLES.get(name, name) for name in names[:1]]
    return f"{'.'.join(names) or 'the function'}: {complaint}"


def _complaint(what: str) -> str:
    # Only forms that are known to hold no value are passed on.
    if kinds := re.fullmatch(r"Expected `([\w | ]+)`, got `(\w+)`", what):
        return f"expected {kinds[1]}, got {kinds[2]}"
    if what == "Invalid RFC3339 encoded date":
        return "expected date, got another text"
    return "the value does not fit"


def context_or_error(answer: bytes | None, email: str) -> Loaded[UserContext] | SourceError:
    """Return what the function for many gave for one address, or the error that is that user's alone.

    Args:
        answer: its context, or None where the address is left out.
        email: the address.
    """
    if answer is None:
        return SourceError("employees.email: the address belongs to more than one employee, so no context fits")
    try:
        return Loaded(context_from(answer, email), origin="rpc")
    except SourceError as error:
        return error
