"""How a test applies the shipped SQL, writes rows of schema hr and asks the two functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import msgspec
import psycopg
import pytest
from psycopg import sql

from ctxmiddleware.migrations import catalogue
from ctxmiddleware.model import UserContext

from ..matrix import in_full

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

ROLES = ("anon", "authenticated", "service_role")
UP = "0001_user_context"
DOWN = "0001_user_context.down"
TABLES = "reference_schema"
# Apart from the case of letters the locales are one to the shipped SQL.
one_locale = pytest.mark.parametrize(
    "server",
    [pytest.param("postgres", id="C"), in_full("postgres_utf8", name="C.UTF-8")],
    indirect=True,
    scope="session",
)


def apply(connection: Connection, *names: str) -> None:
    """Send whole files as they ship, each in one go."""
    for name in names:
        connection.execute(catalogue.read(name).encode())


def employ(connection: Connection, id: int, email: str, *, is_active: bool = True) -> None:  # noqa: A002 - the column
    """Write one employee."""
    connection.execute(
        "insert into hr.employees values (%s, %s, %s, null, 'rep', %s)", [id, email, f"Person {id}", is_active]
    )


def assign(connection: Connection, id: int, employee_id: int, slot_id: int) -> None:  # noqa: A002 - the column
    """Write one assignment without an end."""
    connection.execute(
        "insert into hr.assignments values (%s, %s, %s, true, '2024-02-29', null)", [id, employee_id, slot_id]
    )


def one(connection: Connection, query: str, parameters: Sequence[object] = ()) -> Any:
    """Return the first value of the first row."""
    row = connection.execute(query.encode(), parameters).fetchone()
    assert row is not None
    return row[0]


def ask(connection: Connection, email: str | None) -> UserContext | None:
    """Ask for one user and decode the answer strictly."""
    answer = one(connection, "select hr.get_user_context_by_email(%s)::text", [email])
    return None if answer is None else msgspec.json.decode(answer, type=UserContext)


def ask_many(connection: Connection, emails: Sequence[str | None]) -> Mapping[str, UserContext | None]:
    """Ask for many users and decode the answer strictly."""
    answer = one(connection, "select hr.get_user_contexts_by_emails(%s::text[])::text", [list(emails)])
    return msgspec.json.decode(answer, type=dict[str, UserContext | None])


@contextmanager
def acting_as(connection: Connection, role: str) -> Iterator[None]:
    """Give up the superuser's rights for a role's."""
    connection.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
    try:
        yield
    finally:
        connection.execute("reset role")
