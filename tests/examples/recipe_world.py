"""Two instances over one Valkey and one PostgreSQL, whose contexts are the roles in its table."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Final

import psycopg

from ctxmiddleware import CachePolicy, ContextPlugin, Identity
from ctxmiddleware.cache.redis.options import RedisOptions
from examples.servers import Postgres
from tests.waiting import eventually_async

ADA: Final = "ada@example.org"
EVE: Final = "eve@example.org"
# Every COMMIT after an invalidation comes later than that; memory keeps what it has for 15 minutes.
POLICY: Final = CachePolicy(settle=0, refresh_ahead=1, jitter=0)
PATIENT: Final = RedisOptions(timeout=10.0, pool_wait=10.0, invalidation_wait=10.0, confirm_timeout=10.0)

Plugin = ContextPlugin[str]


class Roles:
    """A source that reads each role over a connection of its own.

    Args:
        dsn: the address of the database.
    """

    label = "roles"

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    async def fetch(self, identity: Identity) -> str | None:
        """Return the role as it is committed."""
        connection: psycopg.AsyncConnection[Any]
        async with await psycopg.AsyncConnection.connect(self._dsn) as connection:
            found = await connection.execute("SELECT role FROM accounts WHERE email = %s", [identity.name])
            row = await found.fetchone()
        return row[0] if row else None


@contextmanager
def database(server: Postgres, name: str) -> Iterator[str]:
    """Create a database with one user, and give its address."""
    dsn = server.create_database(name)
    try:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("CREATE TABLE accounts (email text PRIMARY KEY, role text NOT NULL)")
            connection.execute("INSERT INTO accounts VALUES (%s, 'old')", [ADA])
        yield dsn
    finally:
        server.drop_database(name)


class World:
    """The instances.

    Args:
        one: the one of the process that changes users.
        two: another process's.
        dsn: the address of the database.
    """

    def __init__(self, one: Plugin, two: Plugin, dsn: str) -> None:
        self.one = one
        self.two = two
        self.dsn = dsn

    async def served(self, user: str = ADA) -> list[str | None]:
        """Return what each instance serves of a user."""
        return [(await each.resolve(user)).context for each in (self.one, self.two)]


@asynccontextmanager
async def world(dsn: str, redis_url: str) -> AsyncIterator[World]:
    """Open two instances that receive each other's invalidations."""

    def plugin() -> Plugin:
        return ContextPlugin(source=Roles(dsn), redis=redis_url, redis_options=PATIENT, policy=POLICY, context_type=str)

    async with plugin() as one, plugin() as two:
        for each in (one, two):
            await eventually_async(partial(_is_heard, each))
        try:
            yield World(one, two, dsn)
        finally:
            one._blocking.stop()


def _is_heard(plugin: Plugin) -> bool:
    seen = plugin.stats().redis
    return seen is not None and seen.channel == "heard"
