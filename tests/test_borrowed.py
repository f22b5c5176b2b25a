"""A ready client that its owner closes first is left alone, and the error says that its owner closed it."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest
import redis
from redis.asyncio import ConnectionPool, Redis

from ctxmiddleware import ContextPlugin, Identity, InvalidationFailed, SourceUnavailable, SupabaseSource, UserContext
from ctxmiddleware.secret import Secret
from examples.servers import SupabaseFront

from .backends import asyncio_only
from .cache.rig import PATIENT
from .people import ADA, BOB, plugin_of
from .waiting import eventually_async

pytestmark = pytest.mark.anyio


async def _leave(client: Redis) -> None:
    async with client:
        pass


async def _close(client: Redis) -> None:
    await client.aclose()


async def _close_pool(client: Redis) -> None:
    pool: Any = client.connection_pool
    await pool.aclose()


def _own(url: str) -> Redis:
    return Redis.from_url(url)


def _of_a_pool(url: str) -> Redis:
    return Redis(connection_pool=ConnectionPool.from_url(url))


@asyncio_only
@pytest.mark.parametrize(
    ("make", "close"),
    [(_own, _close), (_own, _leave), (_own, _close_pool), (_of_a_pool, _close_pool)],
    ids=["aclose", "async with", "its pool", "a pool of its own"],
)
async def test_a_client_of_redis_that_was_closed_is_left_alone(
    redis_url: str, make: Callable[[str], Redis], close: Callable[[Redis], Awaitable[None]]
) -> None:
    """Nothing connects again; the source answers, and an invalidation fails with the reason."""
    with redis.Redis.from_url(redis_url) as server:
        client = make(redis_url)
        async with plugin_of(redis=client, namespace="n", redis_options=PATIENT) as plugin:
            await plugin.resolve(ADA)
            await close(client)
            # The server's own client here, and the plugin's connection to the channel.
            await eventually_async(lambda: len(server.client_list()) == 2)
            known = {each["id"] for each in server.client_list()}
            assert (await plugin.resolve(BOB)).context is not None
            with pytest.raises(InvalidationFailed, match="given to ContextPlugin was closed by its owner"):
                await plugin.invalidate(ADA)
            assert {each["id"] for each in server.client_list()} == known
            assert _state(plugin) == "failing"
        await eventually_async(lambda: len(server.client_list()) == 1)
    del client
    # A connection that was left open causes a ResourceWarning here.
    gc.collect()


@asyncio_only
async def test_a_client_that_its_owner_uses_again_is_used_again(redis_url: str) -> None:
    """An app that starts twice with one client, as tests do, closes and uses it each time."""
    client = Redis.from_url(redis_url)
    plugin = plugin_of(redis=client, namespace="n", redis_options=PATIENT)
    for _ in range(2):
        async with plugin:
            await plugin.resolve(ADA)
            await plugin.invalidate(ADA)
        await client.aclose()


async def test_the_error_names_a_closed_http_client(front: SupabaseFront) -> None:
    """The fault is its owner's and no lost connection."""
    client = httpx2.AsyncClient()
    async with SupabaseSource(front.url, Secret(front.secret_key), client=client) as source:
        await source.fetch(Identity(ADA))
        await client.aclose()
        with pytest.raises(SourceUnavailable, match="HTTP client given was closed by its owner"):
            await source.fetch(Identity(BOB))


def _state(plugin: ContextPlugin[UserContext]) -> str:
    stats = plugin.stats().redis
    assert stats is not None
    return stats.state
