"""Databases of both locales with the shipped SQL in them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import psycopg
import pytest

from examples.servers.postgres import Postgres

from .hr import TABLES, UP, Connection, apply

_numbers = itertools.count()


@pytest.fixture(scope="session", params=["postgres", "postgres_utf8"], ids=["C", "C.UTF-8"])
def server(request: pytest.FixtureRequest) -> Postgres:
    """A server of each locale, with the roles that Supabase has."""
    found: Postgres = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def dsn(server: Postgres) -> Iterator[str]:
    """The address of a new database without anything in it."""
    name = f"migrations_{next(_numbers)}"
    yield server.create_database(name)
    server.drop_database(name)


@pytest.fixture
def empty(dsn: str) -> Iterator[Connection]:
    """A connection to a database without anything in it."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
def tables(empty: Connection) -> Connection:
    """A connection to a database with the tables only, as an installation has them before the migration."""
    apply(empty, TABLES)
    return empty


@pytest.fixture
def installed(tables: Connection) -> Connection:
    """A connection to a database with two regions, four slots and the migration; no row lies where its id sorts it."""
    apply(tables, UP)
    tables.execute("insert into hr.regions values (2, 'S', 'South'), (1, 'N', 'North')")
    tables.execute("insert into hr.slots values (4, 'D', 'd', 1), (3, 'C', 'c', 2), (2, 'B', 'b', 1), (1, 'A', 'a', 2)")
    return tables
