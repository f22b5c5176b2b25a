"""What a watch is told of other instances' invalidations, by the channel and without it, over a real Redis."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import anyio
import pytest
import redis

from ctxmiddleware import ContextPlugin, Identity, RedisOptions, UserContext
from ctxmiddleware.cache.redis.keys import KeySpace
from examples.servers import TcpProxy
from tests.backends import asyncio_only
from tests.cache.rig import PATIENT
from tests.people import ADA, BOB, context_of, plugin_of
from tests.test_watching import STEADY, Rows, Told, waiting
from tests.waiting import eventually_async

pytestmark = [pytest.mark.anyio, asyncio_only]

# Told sooner than this it was told by the channel.
LONG = replace(STEADY, untrusted_ttl=60.0)
SHORT = replace(STEADY, untrusted_ttl=0.2)
# What is confirmed is not the subject; that Redis is late on a busy machine is not either.
OPTIONS = replace(PATIENT, confirm_timeout=0.1)


@pytest.fixture
def server(redis_url: str) -> Any:
    """A client of the server, for what is done by hand."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@dataclass
class Pair:
    """Two instances on one database: one changes and invalidates, Ada is watched in the other."""

    one: ContextPlugin[UserContext]
    two: ContextPlugin[UserContext]
    source: Rows
    told: Told

    async def settled(self) -> None:
        """Wait until Ada's watch waits for nothing but news."""
        await eventually_async(lambda: waiting(self.two) == 1 and len(self.two._assembly.cache.flights) == 0)


@asynccontextmanager
async def _pair(
    one: str, two: str, *, policy: Any = LONG, options: RedisOptions = OPTIONS, is_heard: bool = True
) -> AsyncIterator[Pair]:
    source = Rows(context_of(ADA), context_of(BOB))
    async with (
        plugin_of(source, redis=one, redis_options=OPTIONS, policy=policy) as first,
        plugin_of(source, redis=two, redis_options=options, policy=policy) as second,
        anyio.create_task_group() as tasks,
    ):
        for each in (first, second) if is_heard else (first,):
            await eventually_async(partial(trusted, each))
        pair = Pair(first, second, source, Told(second))
        tasks.start_soon(pair.told.run)
        await pair.told.numbered(1)
        await pair.settled()
        yield pair
        tasks.cancel_scope.cancel()


def trusted(plugin: ContextPlugin[UserContext]) -> bool:
    """Return whether memory is trusted because the channel is heard."""
    return plugin._assembly.cache.trust.until > time.monotonic()


@pytest.mark.parametrize("everybody", [False, True], ids=["invalidate", "clear"])
async def test_an_invalidation_by_another_instance_is_told(redis_url: str, *, everybody: bool) -> None:
    """It comes by the channel, long before memory would have had to ask Redis."""
    async with _pair(redis_url, redis_url) as pair:
        for number in (2, 3):
            pair.source.put(ADA, number)
            await (pair.one.clear() if everybody else pair.one.invalidate(ADA))
            await pair.told.numbered(*range(1, number + 1))


async def test_one_that_memory_has_no_room_for_is_told(redis_url: str) -> None:
    """News find who watches, though nothing of the user is in memory any more."""
    async with _pair(redis_url, redis_url, policy=replace(LONG, max_users=1)) as pair:
        for _ in range(3):
            await pair.two.resolve(BOB)
        await eventually_async(lambda: pair.two._assembly.cache.memory.get(("", ADA)) is None)
        pair.source.put(ADA, 2)
        await pair.one.invalidate(ADA)
        await pair.told.numbered(1, 2)


async def test_a_generation_deleted_by_hand_is_told(redis_url: str, server: Any) -> None:
    """Whoever deletes keys in Redis reaches those who watch, too."""
    async with _pair(redis_url, redis_url) as pair:
        pair.source.put(ADA, 2)
        server.delete(*server.scan_iter(f"{KeySpace('default', b'').generations}*"))
        await pair.told.numbered(1, 2)
        pair.source.put(ADA, 3)
        server.flushall()
        await pair.told.numbered(1, 2, 3)


async def test_generations_that_keep_vanishing_are_not_looked_up_in_a_circle(redis_url: str, server: Any) -> None:
    """A Redis that evicts what it has just been asked for is asked now and then, and a change is told all the same."""
    key = Identity(ADA).cache_key
    generation = KeySpace("default", b"").of(key).generation
    policy = replace(SHORT, untrusted_ttl=0.5)
    async with _pair(redis_url, redis_url, policy=policy) as pair:
        asked, began = len(pair.source.asked), anyio.current_time()

        def has_looked() -> bool:
            held = pair.two._assembly.cache.memory.get(key)
            if not server.delete(generation) and held is not None and held.fence is None:
                # Loaded while Redis was late it has no generation that could vanish, and is right without.
                server.set(generation, b"of nobody's load")
            return len(pair.source.asked) >= asked + 6

        await eventually_async(has_looked)
        # One look in each time that memory is trusted for, and now and then a second one.
        looks = (anyio.current_time() - began) / policy.untrusted_ttl
        assert len(pair.source.asked) - asked <= 3 + 2 * looks
        pair.source.put(ADA, 2)
        await pair.one.invalidate(ADA)
        await pair.told.numbered(1, 2)


async def test_after_missed_news_everybody_looks_again(redis_url: str, server: Any) -> None:
    """An announcement that is lost for good is noticed, and whoever watches is told of what it was about."""
    port = server.connection_pool.connection_kwargs["port"]
    with TcpProxy.start("127.0.0.1", port) as way:
        async with _pair(redis_url, f"redis://127.0.0.1:{way.port}/0") as pair:
            way.refuse()
            pair.source.put(ADA, 2)
            await pair.one.invalidate(ADA)
            for key in server.scan_iter("ctx:*"):
                if server.type(key) == b"stream":
                    server.delete(key)
            assert pair.told.numbers == [1]
            way.pass_through()
            await pair.told.numbered(1, 2)


async def test_news_that_were_only_late_are_told(redis_url: str, server: Any) -> None:
    """After a short break the watch is told of what was announced meanwhile."""
    port = server.connection_pool.connection_kwargs["port"]
    with TcpProxy.start("127.0.0.1", port) as way:
        async with _pair(redis_url, f"redis://127.0.0.1:{way.port}/0") as pair:
            way.refuse()
            pair.source.put(ADA, 2)
            await pair.one.invalidate(ADA)
            assert pair.told.numbers == [1]
            way.pass_through()
            await pair.told.numbered(1, 2)


async def test_an_instance_that_is_cut_off_asks_the_source_once_its_trust_has_ended(
    redis_url: str, server: Any
) -> None:
    """Nothing tells it anything, so it looks for itself."""
    port = server.connection_pool.connection_kwargs["port"]
    with TcpProxy.start("127.0.0.1", port) as way:
        url = f"redis://127.0.0.1:{way.port}/0"
        async with _pair(redis_url, url, policy=SHORT, options=replace(OPTIONS, timeout=0.25)) as pair:
            way.black_hole()
            pair.source.put(ADA, 2)
            await pair.one.invalidate(ADA)
            await pair.told.numbered(1, 2)
            way.pass_through()


async def test_an_instance_that_may_not_hear_the_channel_asks_redis(redis_url: str, server: Any) -> None:
    """Where Redis forbids the channel, an invalidation is told by the next look at Redis, long before its time."""
    server.acl_setuser("deaf", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all", "-xread"])
    try:
        url = redis_url.replace("redis://", "redis://deaf:secret@")
        async with _pair(redis_url, url, policy=SHORT, is_heard=False) as pair:
            asked = len(pair.source.asked)
            hits = pair.two.stats().resolutions.get("redis", 0)
            await eventually_async(lambda: pair.two.stats().resolutions.get("redis", 0) >= hits + 2)
            assert len(pair.source.asked) == asked
            for number in (2, 3):
                pair.source.put(ADA, number)
                await pair.one.invalidate(ADA)
                await pair.told.numbered(*range(1, number + 1))
    finally:
        server.acl_deluser("deaf")
