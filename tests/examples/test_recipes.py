"""Whether no context of before a COMMIT is served after it, with each recipe, on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import psycopg
import pytest
from sqlalchemy import NullPool, create_engine, event, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from examples.recipes import psycopg_direct, sqlalchemy_async, sqlalchemy_sync
from examples.recipes.sqlalchemy_models import Account
from examples.servers import Postgres
from tests.backends import asyncio_only

from .recipe_world import ADA, World, database, world

pytestmark = [pytest.mark.anyio, asyncio_only]

Work = Callable[[], Coroutine[Any, Any, None]]
OLD, NEW = ["old", "old"], ["new", "new"]


@pytest.fixture
def dsn(postgres: Postgres) -> Iterator[str]:
    """A database with one user."""
    with database(postgres, "recipes") as address:
        yield address


@pytest.fixture
async def here(dsn: str, redis_url: str) -> AsyncIterator[World]:
    """Two instances, both of which have the old context."""
    async with world(dsn, redis_url) as opened:
        assert await opened.served() == OLD
        yield opened


class Psycopg:
    """The recipe of asynchronous psycopg."""

    @staticmethod
    async def change(here: World) -> None:
        async with await _connect(here) as connection:
            await psycopg_direct.change(connection, here.one, ADA, "new")

    @staticmethod
    async def at_length(here: World, work: Work) -> None:
        async with await _connect(here) as connection:
            await psycopg_direct.change_at_length(connection, here.one, ADA, "new", work)

    @staticmethod
    async def too_early(here: World, work: Work) -> None:
        async with await _connect(here) as connection, connection.transaction():
            await connection.execute("UPDATE accounts SET role = 'new'")
            await here.one.invalidate(ADA)
            await work()


class PsycopgInThread:
    """The recipe of synchronous psycopg."""

    @staticmethod
    async def change(here: World) -> None:
        def work() -> None:
            with psycopg.connect(here.dsn, autocommit=True) as connection:
                psycopg_direct.change_in_thread(connection, here.one, ADA, "new")

        await anyio.to_thread.run_sync(work)

    @staticmethod
    async def at_length(here: World, work: Work) -> None:
        def in_thread() -> None:
            with psycopg.connect(here.dsn, autocommit=True) as connection:
                psycopg_direct.change_at_length_in_thread(connection, here.one, ADA, "new", _from_thread(work))

        await anyio.to_thread.run_sync(in_thread)

    @staticmethod
    async def too_early(here: World, work: Work) -> None:
        def in_thread() -> None:
            with psycopg.connect(here.dsn) as connection:
                connection.execute("UPDATE accounts SET role = 'new'")
                here.one.invalidate_sync(ADA)
                _from_thread(work)()

        await anyio.to_thread.run_sync(in_thread)


class SqlalchemyAsync:
    """The recipe of SQLAlchemy's AsyncSession."""

    @staticmethod
    async def change(here: World) -> None:
        await sqlalchemy_async.change(_async_sessions(here), here.one, ADA, "new")

    @staticmethod
    async def at_length(here: World, work: Work) -> None:
        await sqlalchemy_async.change_at_length(_async_sessions(here), here.one, ADA, "new", work)

    @staticmethod
    async def too_early(here: World, work: Work) -> None:
        async with _async_sessions(here).begin() as session:
            await session.execute(update(Account).values(role="new"))
            await here.one.invalidate(ADA)
            await work()


class SqlalchemySync:
    """The recipe of SQLAlchemy's synchronous sessions."""

    @staticmethod
    async def change(here: World) -> None:
        sessions = _sessions(here)
        sqlalchemy_sync.install(sessions, here.one)
        await anyio.to_thread.run_sync(sqlalchemy_sync.change, sessions, ADA, "new")

    @staticmethod
    async def at_length(here: World, work: Work) -> None:
        arguments = (_sessions(here), here.one, ADA, "new", _from_thread(work))
        await anyio.to_thread.run_sync(sqlalchemy_sync.change_at_length, *arguments)

    @staticmethod
    async def too_early(here: World, work: Work) -> None:
        def in_thread() -> None:
            with _sessions(here).begin() as session:
                session.execute(update(Account).values(role="new"))
                here.one.invalidate_sync(ADA)
                _from_thread(work)()

        await anyio.to_thread.run_sync(in_thread)


RECIPES: list[Any] = [Psycopg, PsycopgInThread, SqlalchemyAsync, SqlalchemySync]


async def _connect(here: World) -> psycopg.AsyncConnection[Any]:
    return await psycopg.AsyncConnection.connect(here.dsn, autocommit=True)


def _from_thread(work: Work) -> Callable[[], None]:
    return lambda: anyio.from_thread.run(work)


def _async_sessions(here: World) -> async_sessionmaker[AsyncSession]:
    return async_sessionmaker(create_async_engine(_url(here), poolclass=NullPool))


def _sessions(here: World) -> sessionmaker[Session]:
    # A class of its own: hooks are of the class.
    return sessionmaker(create_engine(_url(here), poolclass=NullPool), class_=type("Own", (Session,), {}))


def _url(here: World) -> str:
    return here.dsn.replace("postgresql://", "postgresql+psycopg://")


@pytest.mark.parametrize("recipe", RECIPES)
async def test_after_the_commit_nothing_old_is_served(here: World, recipe: Any) -> None:
    """By any instance, from the moment at which the recipe returns."""
    await recipe.change(here)
    assert await here.served() == NEW


@pytest.mark.parametrize("recipe", RECIPES)
async def test_nor_after_a_transaction_of_any_length(here: World, recipe: Any) -> None:
    """Requests within it load the old row, and nothing keeps it."""

    async def work() -> None:
        assert await here.served() == OLD

    await recipe.at_length(here, work)
    assert await here.served() == NEW


@pytest.mark.parametrize("recipe", RECIPES)
async def test_an_invalidation_before_a_commit_that_comes_late_is_undone(here: World, recipe: Any) -> None:
    """The fault that the README warns of: a request in between loads the old row, which is then kept."""

    async def work() -> None:
        assert await here.served() == OLD

    await recipe.too_early(here, work)
    assert await here.served() == OLD
    await here.one.invalidate(ADA)
    assert await here.served() == NEW


async def test_a_hook_of_an_async_session_refuses_the_synchronous_form(here: World) -> None:
    """It runs in the event loop's thread, and the error says to await; the recipe does, after the COMMIT."""
    sessions = async_sessionmaker(
        create_async_engine(_url(here), poolclass=NullPool), sync_session_class=type("Own", (Session,), {})
    )
    refusals: list[str] = []

    @event.listens_for(sessions.kw["sync_session_class"], "after_commit")
    def invalidate(session: Session) -> None:
        try:
            here.one.invalidate_sync(ADA)
        except RuntimeError as error:
            refusals.append(str(error))

    await sqlalchemy_async.change(sessions, here.one, ADA, "new")
    assert len(refusals) == 1
    assert "await it" in refusals[0]
    assert await here.served() == NEW


async def test_an_async_session_that_rolls_back_or_is_cancelled(here: World) -> None:
    """Without a COMMIT nothing is invalidated; a COMMIT that was cancelled may have been made."""
    calls = _count(here)

    async def fail() -> None:
        async with sqlalchemy_async.unit_of_work(_async_sessions(here), here.one) as session:
            sqlalchemy_async.changed(session, ADA)
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert calls == []
    with anyio.CancelScope() as scope:
        async with sqlalchemy_async.unit_of_work(_async_sessions(here), here.one) as session:
            await session.execute(update(Account).values(role="new"))
            sqlalchemy_async.changed(session, ADA)
            scope.cancel()
    assert calls == [{ADA}]


async def test_a_synchronous_session_invalidates_at_the_outermost_commit(here: World) -> None:
    """Neither a savepoint's end nor a rollback does, and a savepoint's rollback loses no user of the rest."""
    sessions, calls = _sessions(here), _count(here)
    sqlalchemy_sync.install(sessions, here.one)

    def work() -> None:
        with ExitStack() as stack:
            session = stack.enter_context(sessions())
            sqlalchemy_sync.changed(session, ADA)
            session.execute(update(Account).values(role="new"))
            with session.begin_nested():
                session.execute(update(Account).values(role="newer"))
            assert calls == []
            with session.begin_nested() as savepoint:
                session.execute(update(Account).values(role="newest"))
                savepoint.rollback()
            session.commit()
            assert calls == [{ADA}]
            sqlalchemy_sync.changed(session, ADA)
            session.execute(update(Account).values(role="never"))
            session.rollback()
            session.execute(update(Account).values(role="new"))
            session.commit()

    await anyio.to_thread.run_sync(work)
    assert calls == [{ADA}]


def _count(here: World) -> list[Any]:
    """Return the list of what is invalidated from now on."""
    calls: list[Any] = []
    invalidate, invalidate_sync = here.one.invalidate, here.one.invalidate_sync

    async def counted(users: Any, **options: Any) -> Any:
        calls.append(users)
        return await invalidate(users, **options)

    def counted_sync(users: Any, **options: Any) -> Any:
        calls.append(users)
        return invalidate_sync(users, **options)

    here.one.invalidate = counted  # type: ignore[method-assign]  # counts
    here.one.invalidate_sync = counted_sync  # type: ignore[method-assign]  # counts
    return calls
