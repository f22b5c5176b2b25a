"""SQLAlchemy's AsyncSession: changed users are collected in the session, and invalidated after the awaited COMMIT.

Hooks such as `after_commit` run in the event loop's thread, where nothing can be awaited and `invalidate_sync` refuses.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import anyio
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from ctxmiddleware import ContextPlugin

from .sqlalchemy_models import Account

Sessions = async_sessionmaker[AsyncSession]

_CHANGED: Final = "changed users"


def changed(session: AsyncSession, *emails: str) -> None:
    """Say that the transaction of a session changes users."""
    session.info.setdefault(_CHANGED, set()).update(emails)


@asynccontextmanager
async def unit_of_work(sessions: Sessions, plugin: ContextPlugin[str]) -> AsyncIterator[AsyncSession]:
    """Commit at the end of the block, and then invalidate the users that were changed in it."""
    async with sessions() as session:
        yield session
        try:
            await session.commit()
        finally:
            # By a COMMIT that failed or was cancelled too: the server may have made it.
            if emails := session.info.pop(_CHANGED, None):
                with anyio.CancelScope(shield=True):
                    await plugin.invalidate(emails, or_clear=True)


async def change(sessions: Sessions, plugin: ContextPlugin[str], email: str, role: str) -> None:
    """Change a user, and invalidate after the COMMIT."""
    async with unit_of_work(sessions, plugin) as session:
        await session.execute(update(Account).where(Account.email == email).values(role=role))
        changed(session, email)


async def change_at_length(
    sessions: Sessions, plugin: ContextPlugin[str], email: str, role: str, work: Callable[[], Awaitable[None]]
) -> None:
    """Change a user in a transaction that may take longer than `settle`; the block of the plugin is the outer one."""
    async with plugin.changing(email), sessions.begin() as session:
        await session.execute(update(Account).where(Account.email == email).values(role=role))
        await work()
