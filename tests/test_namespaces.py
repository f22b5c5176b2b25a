"""Whether deployments that share one Redis are served each its own contexts, by label, namespace and time to live."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import redis
from starlette.applications import Starlette

from ctxmiddleware import CachePolicy, ConfigurationError, ContextPlugin, Identity

from .backends import ASYNCIO, asyncio_only
from .people import ADA, plugin_of
from .waiting import eventually_async

REDIS = "redis://127.0.0.1:1"
POLICY = CachePolicy(ttl=600.0, negative_ttl=60.0, jitter=0.0, refresh_ahead=1.0)


class Database:
    """A source whose contexts say which database they are from."""

    def __init__(self, value: str, label: object = None) -> None:
        self.value = value
        if label is not None:
            self.label = label

    async def fetch(self, identity: Identity) -> str | None:
        """Return this database's word, and None for an address that no database has."""
        return None if identity.name == "unknown@example.com" else self.value


def _plugin(value: str, label: object = "one database", **options: Any) -> ContextPlugin[str]:
    return ContextPlugin(source=Database(value, label), context_type=str, **{"policy": POLICY, **options})


@asynccontextmanager
async def _opened(*plugins: ContextPlugin[str]) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for plugin in plugins:
            await stack.enter_async_context(plugin)
            assert plugin._assembly.redis is not None
            await eventually_async(plugin._assembly.redis.is_heard)
        yield


async def _context(plugin: ContextPlugin[str], email: str = ADA) -> str | None:
    return (await plugin.resolve(email)).context


@asyncio_only
@pytest.mark.anyio
async def test_equal_labels_and_namespaces_share_their_values(redis_url: str) -> None:
    """One deployment's instances: what the first has loaded the second finds."""
    options: dict[str, Any] = {"redis": redis_url, "namespace": "production"}
    one, two = _plugin("one", **options), _plugin("two", **options)
    async with _opened(one, two):
        assert [await _context(one), await _context(two)] == ["one", "one"]


DIFFERENT = [
    ({}, {"label": "another database"}),
    ({"label": "db"}, {"label": "db "}),
    ({"namespace": "staging"}, {"namespace": "production"}),
    ({}, {"namespace": "production"}),
    ({"namespace": "default"}, {}),
    ({"namespace": "a", "name": "b"}, {"namespace": "b", "name": "a"}),
    ({"name": "a"}, {"name": "b"}),
    ({"label": None, "namespace": "staging"}, {"label": None, "namespace": "production"}),
    ({}, {"policy": CachePolicy(ttl=601.0, jitter=0.0)}),
    ({}, {"policy": CachePolicy(ttl=600.0001, jitter=0.0)}),
    ({"policy": CachePolicy(ttl=1_000_000.0)}, {"policy": CachePolicy(ttl=1_000_001.0)}),
    ({}, {"policy": CachePolicy(ttl=600.0, negative_ttl=61.0)}),
]


@asyncio_only
@pytest.mark.anyio
@pytest.mark.parametrize(("here", "there"), DIFFERENT)
async def test_what_differs_is_a_miss(here: dict[str, Any], there: dict[str, Any], redis_url: str) -> None:
    """Another label, namespace, name or time to live: each loads its own context, also an unknown user's absence."""
    one, two = _plugin("one", redis=redis_url, **here), _plugin("two", redis=redis_url, **there)
    async with _opened(one, two):
        for _ in range(2):
            assert [await _context(one), await _context(two)] == ["one", "two"]
        assert [await _context(each, "unknown@example.com") for each in (one, two)] == [None, None]
        assert [dict(each.stats().resolutions) for each in (one, two)] == [{"memory": 1, "Database": 2}] * 2


@asyncio_only
@pytest.mark.anyio
@pytest.mark.parametrize("namespace", [None, "production"])
async def test_an_invalidation_reaches_other_labels_of_its_namespace(namespace: str | None, redis_url: str) -> None:
    """During a move to another database both see each invalidation, and neither sees the other's values."""
    options: dict[str, Any] = {"redis": redis_url, "namespace": namespace}
    one, two = _plugin("one", **options), _plugin("two", "another database", **options)
    async with _opened(one, two):
        for user in (ADA, Identity(subject=ADA)):
            for plugin in (one, two):
                await plugin.resolve(user)
            report = await one.invalidate(user)
            assert len(report.confirmed) == 2
            assert [plugin.peek(_identity(user)) for plugin in (one, two)] == [None, None]
            assert (await two.resolve(user)).context == "two"
        await one.clear()
        assert two.peek(Identity(ADA)) is None


@asyncio_only
@pytest.mark.anyio
async def test_an_invalidation_does_not_reach_another_namespace(redis_url: str) -> None:
    """A clear of staging leaves production's contexts in memory and in Redis."""
    one = _plugin("one", redis=redis_url, namespace="staging")
    two = _plugin("two", redis=redis_url, namespace="production")
    async with _opened(one, two):
        assert [await _context(one), await _context(two)] == ["one", "two"]
        for report in (await one.invalidate(ADA), await one.clear()):
            assert len(report.confirmed) == 1
        assert two.peek(Identity(ADA)) is not None
        two._assembly.cache.memory.clear()
        assert (await two.resolve(ADA)).origin == "redis"


def _identity(user: str | Identity) -> Identity:
    return Identity(user) if isinstance(user, str) else user


@pytest.mark.parametrize("label", [None, "", " \t", 7, b"label"])
def test_a_source_without_a_label_is_refused_beside_redis(label: object) -> None:
    """The fault names the source and both ways out; with a namespace, or without Redis, a label is not needed."""
    with pytest.raises(ConfigurationError) as caught:
        _plugin("one", label, redis=REDIS)
    (fault,) = caught.value.faults
    assert fault.startswith("the source Database has no label: another deployment with the same Redis would be served")
    assert "CTX_NAMESPACE" in fault
    assert _plugin("one", label, redis=REDIS, namespace="staging").name == "default"
    assert _plugin("one", label).name == "default"


@pytest.mark.parametrize("namespace", ["", " ", "a b", "a/b", "a:b", "{a}", "n" * 65, "\u00e4", "a\n", 7, b"a"])
@pytest.mark.parametrize("url", [None, REDIS])
def test_a_namespace_that_keys_cannot_begin_with_is_refused(namespace: Any, url: str | None) -> None:
    """With and without Redis; the fault says what is allowed."""
    with pytest.raises(ConfigurationError) as caught:
        _plugin("one", redis=url, namespace=namespace)
    assert caught.value.faults == (
        f"namespace was {namespace!r}; allowed are 1 to 64 letters, digits, '_', '-' and '.'",
    )


@pytest.mark.parametrize("namespace", ["a", "n" * 64, "Team_1.eu-west"])
def test_other_namespaces_are_taken(namespace: str) -> None:
    """Letters, digits and three marks."""
    assert _plugin("one", redis=REDIS, namespace=namespace).name == "default"


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", [ASYNCIO])
async def test_the_environment_gives_the_namespace(redis_url: str) -> None:
    """CTX_NAMESPACE begins every key, and stands in for a label; without both the start is refused."""
    environ = {"REDIS_URL": redis_url, "CTX_NAMESPACE": "staging"}
    source: Any = Database("one")
    async with ContextPlugin.from_env(environ, source=source, name="people") as plugin:
        await plugin.invalidate(ADA)
        await plugin.clear()
    with redis.Redis.from_url(redis_url) as client:
        keys = [key.decode() for key in client.scan_iter()]
    assert keys
    assert [key for key in keys if "{staging/people:" not in key] == []
    with pytest.raises(ConfigurationError, match="the source Database has no label"):
        ContextPlugin.from_env({"REDIS_URL": redis_url}, source=source)


def test_a_namespace_of_the_environment_is_checked() -> None:
    """The fault names the variable and what is allowed."""
    source: Any = Database("one", "one database")
    with pytest.raises(ConfigurationError, match=r"^CTX_NAMESPACE held 'a b'.*1 to 64 letters"):
        ContextPlugin.from_env({"CTX_NAMESPACE": "a b"}, source=source)


@pytest.mark.parametrize("name", ["default", "people"])
def test_a_second_plugin_of_one_name_is_not_installed(name: str) -> None:
    """It raises and changes nothing in the app; one of another name is installed beside the first."""
    app, first = Starlette(), plugin_of(name=name)
    first.install(app)
    before = (list(app.user_middleware), list(app.router.routes))
    with pytest.raises(RuntimeError, match=f"a ContextPlugin of the name '{name}' already"):
        plugin_of(name=name).install(app, admin_path="/other")
    with pytest.raises(RuntimeError, match="install each once"):
        first.install(app, admin_path="/other")
    assert (list(app.user_middleware), list(app.router.routes)) == before
    plugin_of(name="another").install(app, admin_path="/other")
    assert len(app.user_middleware) == 2
