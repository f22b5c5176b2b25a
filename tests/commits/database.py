"""The rows of the users, how transactions change them, and a source that reads them, from a standby too."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Self

import anyio
import msgspec
import psycopg

from ctxmiddleware import Identity
from ctxmiddleware.sources.freshly import FreshlyInvalidated

from .history import Load

Connection = psycopg.AsyncConnection[Any]

SCHEMA = """
    CREATE TABLE accounts (email text PRIMARY KEY, version bigint NOT NULL);
    CREATE SEQUENCE versions CACHE 1;
"""
_READ = "SELECT version FROM accounts WHERE email = %s"
# Taken with the row locked: of two transactions the one that commits later has the greater number.
_WRITE = "UPDATE accounts SET version = nextval('versions') WHERE email = %s RETURNING version"


class Account(msgspec.Struct, frozen=True):
    """A context that names its version of the row."""

    version: int


class Pool:
    """A few open connections that commit each statement.

    Args:
        dsn: the address of the database.
        size: how many there are.
    """

    def __init__(self, dsn: str, size: int) -> None:
        self._dsn = dsn
        self._size = size
        self._stack = AsyncExitStack()
        self._free: list[Connection] = []
        self._places = anyio.Semaphore(size)

    async def __aenter__(self) -> Self:
        for _ in range(self._size):
            connection = await psycopg.AsyncConnection.connect(self._dsn, autocommit=True)
            self._free.append(await self._stack.enter_async_context(connection))
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection."""
        async with self._places:
            connection = self._free.pop()
            try:
                yield connection
            finally:
                self._free.append(connection)


class Accounts:
    """A source that reads from the standby, where there is one, unless the user was invalidated a short while ago.

    Args:
        instance: the number of the instance it belongs to.
        primary: the pool of the primary.
        standby: the pool of the standby; None where there is none.
        lag: seconds that the standby may be behind.
        rng: decides how long an answer takes.
        record: is given each load.
        clock: monotonic seconds of the guard that keeps loads from the standby.
    """

    label = "accounts"

    def __init__(
        self,
        instance: int,
        primary: Pool,
        standby: Pool | None,
        lag: float,
        rng: random.Random,
        record: Callable[[str, Load], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._instance = instance
        self._primary = primary
        self._standby = standby
        self._fresh = FreshlyInvalidated(lag, clock)
        self._rng = rng
        self._record = record

    def settle(self, seconds: float) -> None:
        """Ask the primary for so much longer after an invalidation."""
        self._fresh.settle(seconds)

    def invalidated(self, identity: Identity | None, *, ago: float) -> None:
        """Ask the primary for a while."""
        self._fresh.note(None if identity is None else identity.name, ago)

    async def fetch(self, identity: Identity) -> Account | None:
        """Return the row as it is, some time after it was read."""
        began = time.monotonic()
        pool = self._primary
        if self._standby is not None and not self._fresh.is_noted(identity.name):
            pool = self._standby
        async with pool.connection() as connection:
            row = await (await connection.execute(_READ, [identity.name])).fetchone()
        await anyio.sleep(self._rng.choice((0, 0, self._rng.uniform(0, 0.05))))
        version = row[0] if row else 0
        self._record(
            identity.name,
            Load(began, time.monotonic(), self._instance, version, from_standby=pool is self._standby),
        )
        return Account(version) if row else None


async def write(connection: Connection, user: str, *, is_new: bool = False) -> int:
    """Give a user's row another version within a transaction, and return it."""
    if is_new:
        await connection.execute("INSERT INTO accounts VALUES (%s, 0) ON CONFLICT DO NOTHING", [user])
    await connection.execute("SELECT 1 FROM accounts WHERE email = %s FOR UPDATE", [user])
    row = await (await connection.execute(_WRITE, [user])).fetchone()
    assert row is not None
    version: int = row[0]
    return version
