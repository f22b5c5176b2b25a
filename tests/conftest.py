"""The real servers every test may ask for, each started once, and the event loops tests run on."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import redis

from examples.servers import Postgres, SupabaseFront, SupabaseProject, Valkey, create_roles
from examples.servers.supabase.app import Dialect

from .backends import ALL
from .matrix import Cases, cases_of, pytest_addoption, pytest_collection_modifyitems, pytest_configure
from .privacy import LOGGER, Privacy

__all__ = ("pytest_addoption", "pytest_collection_modifyitems", "pytest_configure")


@pytest.fixture(scope="session")
def cases(request: pytest.FixtureRequest) -> Cases:
    """How much of the matrix is run, for tests whose volume depends on it."""
    return cases_of(request.config)


@pytest.fixture(params=ALL)
def anyio_backend(request: pytest.FixtureRequest) -> object:
    """One of the event loops, one after the other."""
    return request.param


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL of the locale C with Supabase's roles."""
    with Postgres.start(locale="C") as server:
        create_roles(server)
        yield server


@pytest.fixture(scope="session")
def postgres_utf8() -> Iterator[Postgres]:
    """A PostgreSQL of the locale C.UTF-8 with Supabase's roles."""
    with Postgres.start(locale="C.UTF-8") as server:
        create_roles(server)
        yield server


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """A Valkey that all tests share; a test that kills or pauses one starts its own."""
    with Valkey.start() as server:
        yield server


@pytest.fixture
def redis_url(valkey: Valkey) -> str:
    """The address of the shared Valkey, emptied."""
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
    return valkey.url


@pytest.fixture(scope="session")
def supabase(postgres: Postgres) -> Iterator[SupabaseProject]:
    """A project with the reference schema and the shipped migration, without rows."""
    with SupabaseProject.start(postgres, database="supabase") as project:
        yield project


@pytest.fixture(scope="session")
def supabase_unmigrated(postgres: Postgres) -> Iterator[SupabaseProject]:
    """A project with the reference schema that has never seen the migration, without rows."""
    with SupabaseProject.start(postgres, database="supabase_unmigrated", migrated=False) as project:
        yield project


@pytest.fixture(scope="session", params=["12", "16"], ids=["postgrest-12", "postgrest-16"])
def dialect(request: pytest.FixtureRequest) -> Dialect:
    """Whose answers the front gives, one after the other."""
    found: Dialect = request.param
    return found


@pytest.fixture(scope="session")
def running_front(supabase: SupabaseProject, dialect: Dialect) -> Iterator[SupabaseFront]:
    """A front of one dialect that all tests share; a test that kills or pauses one starts its own."""
    with supabase.front(dialect) as front:
        yield front


@pytest.fixture
def front(running_front: SupabaseFront) -> Iterator[SupabaseFront]:
    """The front of one dialect, its counts at nought and without faults."""
    running_front.reset()
    yield running_front
    running_front.reset()


@pytest.fixture(scope="session")
def privacy() -> Iterator[Privacy]:
    """What the library logs, at every level."""
    handler = Privacy()
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.DEBUG)
    yield handler
    LOGGER.removeHandler(handler)


@pytest.fixture(autouse=True)
def _nothing_private_is_logged(privacy: Privacy, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """In any test; those that look at the log see warnings, as they would without this."""
    caplog.handler.setLevel(logging.WARNING)
    privacy.leaks.clear()
    yield
    leaks = list(privacy.leaks)
    privacy.leaks.clear()
    assert not leaks, "something private was logged"
