"""psycopg, asynchronous and synchronous: the connections commit each statement that is in no `transaction()`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import psycopg

from ctxmiddleware import ContextPlugin

_CHANGE = "UPDATE accounts SET role = %s WHERE email = %s"

AsyncConnection = psycopg.AsyncConnection[Any]
Connection = psycopg.Connection[Any]


async def change(connection: AsyncConnection, plugin: ContextPlugin[str], email: str, role: str) -> None:
    """Change a user, and invalidate after the COMMIT.

    Args:
        connection: with `autocommit=True`: else the block is a savepoint where a transaction is open already, and its
            end no COMMIT.
        plugin: invalidates.
        email: the user.
        role: the new role.
    """
    async with connection.transaction():
        await connection.execute(_CHANGE, [role, email])
    await plugin.invalidate(email)


async def change_at_length(
    connection: AsyncConnection, plugin: ContextPlugin[str], email: str, role: str, work: Callable[[], Awaitable[None]]
) -> None:
    """Change a user in a transaction that may take longer than `settle`; the block of the plugin is the outer one."""
    async with plugin.changing(email), connection.transaction():
        await connection.execute(_CHANGE, [role, email])
        await work()


def change_in_thread(connection: Connection, plugin: ContextPlugin[str], email: str, role: str) -> None:
    """Do what `change` does from a thread without event loop."""
    with connection.transaction():
        connection.execute(_CHANGE, [role, email])
    plugin.invalidate_sync(email)


def change_at_length_in_thread(
    connection: Connection, plugin: ContextPlugin[str], email: str, role: str, work: Callable[[], None]
) -> None:
    """Do what `change_at_length` does from a thread without event loop."""
    with plugin.changing(email), connection.transaction():
        connection.execute(_CHANGE, [role, email])
        work()
