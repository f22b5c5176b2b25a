"""How a real PostgreSQL is started from its package, as root and as an ordinary user."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal, Self

import psycopg
from psycopg import sql

from .accounts import Account
from .postmaster import Postmaster

_LOCALES = {
    "C": ("--locale=C",),
    "C.UTF-8": ("--locale-provider=builtin", "--locale=C.UTF-8"),
}


class Postgres(Postmaster):
    """A running PostgreSQL with a cluster of its own."""

    @classmethod
    @contextlib.contextmanager
    def start(cls, *, locale: Literal["C", "C.UTF-8"] = "C", account: Account | None = None) -> Iterator[Self]:
        """Make a new cluster in a folder of its own, serve it, and remove both in the end.

        Args:
            locale: by which rule `lower()` and sorting go where nothing else is said.
            account: as whom it runs; without it the best of `accounts()`.

        Raises:
            ServerFailed: it cannot run here.
        """
        fill = ("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync", *_LOCALES[locale])
        with cls.over("postgres", fill, account=account) as server:
            yield server

    def create_database(self, name: str) -> str:
        """Create an empty database and return its address."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.dsn(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, sending its clients away."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def commits(self, dbname: str) -> int:
        """Return how many transactions the server has committed in a database; opening a session is one.

        A busy session reports its own once a second, one that fell idle 10 s later at most (PGSTAT_IDLE_INTERVAL).
        """
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute("SELECT pg_stat_force_next_flush()")
            query = "SELECT xact_commit FROM pg_stat_database WHERE datname = %s"
            row = connection.execute(query, [dbname]).fetchone()
        if row is None:
            raise LookupError(f"there is no database {dbname!r}")
        return int(row[0])
