"""Whether URLs and ready clients are taken, and those that cannot work refused at once."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any, cast

import anyio
import pytest
import redis
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis, RedisCluster

from ctxmiddleware.cache.redis.codec import Codec
from ctxmiddleware.cache.redis.servers.driver import connection_for
from ctxmiddleware.cache.redis.tier import RedisTier
from ctxmiddleware.errors import ConfigurationError
from ctxmiddleware.secret import Secret
from ctxmiddleware.stats import Counters
from examples.servers import Valkey
from tests.backends import asyncio_only
from tests.cache.rig import ADA, PATIENT, Database, instance, outlast_marks, redis_tier

pytestmark = pytest.mark.every_loop


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://u:hunter2@h",
        "redis://u:hunter2@h:notaport",
        "redis://u:hunter2@h:99999/0",
        "redis://:hunter2@[::1",
        "redis://:hunter2@h/0?socket_timeout=soon",
        "redis://:hunter2@h/0?nonsense=hunter2",
        "redis://:hunter2@h/0?protocol=9",
        "rediss://:hunter2@h/0?ssl_cert_reqs=bogus",
        "redis://:hunter2@h/0?decode_responses=true",
        "redis+sentinel://:hunter2@h:26379",
        "redis+sentinel://:hunter2@h:26379/",
        "redis+sentinel://:hunter2@h:26379,/service",
        "redis+sentinel://:hunter2@h:port/service",
        "redis+sentinel://:hunter2@h:99999/service",
        "redis+sentinel://:hunter2@h/service/two",
        "redis+sentinel://:hunter2@h/service/0/1",
        "redis+sentinel://:hunter2@h/service?nonsense=hunter2",
        "redis+sentinel://:hunter2@h/service?sentinel_nonsense=hunter2",
        "redis+sentinel://:hunter2@h/service?decode_responses=true",
        "redis+other://:hunter2@h/service",
        "redis+cluster://:hunter2@",
        "redis+cluster://:hunter2@h:1,h:0",
        "redis+cluster://:hunter2@h:1/3",
        "redis+cluster://:hunter2@h:1?sentinel_password=hunter2",
        "redis+cluster://:hunter2@h:1?decode_responses=true",
    ],
)
def test_a_url_that_cannot_work_is_refused_without_showing_it(url: str) -> None:
    """The start stops, the message says what a URL looks like, and no password is in it or in what led to it."""
    with pytest.raises(ConfigurationError) as told:
        redis_tier(url)
    shown = str(told.value)
    assert "redis" in shown
    assert "hunter2" not in shown
    assert told.value.__cause__ is None
    assert told.value.__context__ is None or told.value.__suppress_context__


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "rediss://:pw@h:1/2",
        "unix:///run/redis.sock?db=3",
        "redis://h?max_connections=3",
        "redis+sentinel://a,b:1/service",
        "redis+cluster://a",
        "rediss+cluster://user:p%40w@a,[::1]:2/0?ssl_cert_reqs=none",
        "rediss+sentinel://user:p%40w@a,[::1]:2,c/service/3?sentinel_username=u&sentinel_password=p",
    ],
)
def test_urls_are_taken_and_not_shown(url: str) -> None:
    """A good URL opens nothing yet, and the tier's repr shows none of it."""
    tier = RedisTier(Secret(url), codec=Codec(str), namespace="app", counters=Counters())
    assert repr(tier) == "<RedisTier: namespace 'app'>"


@pytest.mark.parametrize("client", [redis.Redis(), object(), 5], ids=["sync", "object", "number"])
def test_what_is_no_client_is_refused(client: object) -> None:
    """A blocking client, or none at all, is told apart before the first request."""
    with pytest.raises(ConfigurationError, match=r"give a URL or a redis\.asyncio\.Redis"):
        redis_tier(client)  # type: ignore[arg-type]  # that is the point


def test_a_client_that_decodes_is_refused() -> None:
    """Values are bytes; a client that makes text of them cannot carry them."""
    with pytest.raises(ConfigurationError, match="decode_responses"):
        redis_tier(Redis(decode_responses=True))
    with pytest.raises(ConfigurationError, match="decode_responses"):
        redis_tier(RedisCluster(host="h", decode_responses=True))


@pytest.mark.anyio
@asyncio_only
async def test_a_ready_client_is_used_and_left_open(redis_url: str) -> None:
    """Its owner goes on using it, over the same connection, after the cache is closed."""
    async with Redis.from_url(redis_url) as client:
        connection = await client.client_id()
        async with instance(url=client) as one:
            await one.get()
            one.clock.advance(5)
            assert (await one.get()).origin == "redis"
        assert await client.client_id() == connection
        outlast_marks(redis_url)
        # Two generations and a value, the channel and since when it is, and which server it was with since when.
        assert len([key async for key in client.scan_iter()]) == 7


@pytest.mark.anyio
@asyncio_only
async def test_a_ready_client_without_timeouts_is_bounded_by_ours() -> None:
    """A client that would wait for a hung server for ever is not waited for."""
    with Valkey.start() as own:
        async with Redis.from_url(own.url, socket_timeout=None, socket_connect_timeout=None) as client:
            async with instance(url=client, options=replace(PATIENT, timeout=0.05)) as one:
                await one.get()
                own.pause()
                with anyio.fail_after(30):
                    for number in range(5):
                        await one.get(("", str(number)))
                assert one.redis is not None
                assert not one.redis.is_up()
                own.resume()
            assert await client.ping()


@pytest.mark.anyio
@asyncio_only
@pytest.mark.parametrize("kind", [ConnectionPool, BlockingConnectionPool])
async def test_a_ready_client_whose_pool_is_taken_is_busy(redis_url: str, kind: type[ConnectionPool]) -> None:
    """Connections its owner holds are no fault of Redis."""
    options = {"timeout": 0.01} if kind is BlockingConnectionPool else {}
    pool = kind.from_url(redis_url, max_connections=1, **options)
    async with Redis.from_pool(pool) as client, instance(url=client) as one:
        held = await cast("Any", pool).get_connection()
        for number in range(5):
            await one.get(("", str(number)))
        assert one.counters.get("busy", "redis") == 5
        assert one.counters.get("fault", "redis") == 0
        await pool.release(held)
        await one.get()
        assert one.counters.get("miss", "redis") == 1


@pytest.mark.anyio
@asyncio_only
async def test_a_ready_client_with_a_small_pool_is_not_asked_for_more(redis_url: str) -> None:
    """As many look-ups run at a time as it has connections; the others wait their turn instead of being refused."""
    pool = ConnectionPool.from_url(redis_url, max_connections=1)
    async with Redis.from_pool(pool) as client, instance(url=client) as one:
        async with anyio.create_task_group() as callers:
            for number in range(20):
                callers.start_soon(one.get, ("", str(number)))
        assert one.counters.get("busy", "redis") == 0
        assert one.counters.get("miss", "redis") == 20


@pytest.mark.anyio
@asyncio_only
async def test_two_event_loops_in_two_threads_have_connections_of_their_own(redis_url: str) -> None:
    """One cache serves both, each over its own sockets, and closing one leaves the other."""
    database, origins = Database(), []
    async with instance(database, url=redis_url) as one:
        await one.get()
        tier = one.redis
        assert tier is not None
        one.clock.advance(5)

        def other_loop() -> None:
            async def main() -> None:
                assert tier.is_up() is None
                async with tier.opened, one.cache.flights.opened:
                    origins.append((await one.get()).origin)
                    origins.append((await one.get(("", "other"))).origin)

            anyio.run(main)

        thread = threading.Thread(target=other_loop)
        thread.start()
        await anyio.to_thread.run_sync(thread.join)
        assert origins == ["redis", "db"]
        one.clock.advance(5)
        assert (await one.get(ADA)).origin == "redis"


@pytest.mark.anyio
@asyncio_only
@pytest.mark.parametrize("is_ready", [False, True])
async def test_a_connection_of_its_own_is_nobody_else_s(redis_url: str, is_ready: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """It is made as the client's are, belongs to no pool, and whoever asked for it closes it."""
    async with Redis.from_url(redis_url) as ready, redis_tier(ready if is_ready else redis_url).opened as session:
        client = session.client
        assert isinstance(client, Redis)
        connection = await connection_for(client, "any")
        assert not connection.is_connected
        await connection.connect()  # type: ignore[no-untyped-call]  # as redis-py ships it
        await connection.send_command("PING")
        assert await connection.read_response() in (b"PONG", "PONG")
        assert isinstance(connection, client.connection_pool.connection_class)
        assert client.connection_pool.get_connection_count()[0][0] == 0
        await connection.disconnect()
