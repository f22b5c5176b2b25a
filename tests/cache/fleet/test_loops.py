"""Whether the event loops of one process share what they hear, whichever of them listens."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

import anyio
import pytest
import redis

from ctxmiddleware.cache.base import Fetched
from ctxmiddleware.cache.redis.keys import KeySpace
from ctxmiddleware.cache.redis.options import RedisOptions
from ctxmiddleware.cache.tiered import TieredCache
from ctxmiddleware.stats import Counters
from ctxmiddleware.testing import FakeClock
from examples.servers import TcpProxy
from tests.backends import asyncio_only
from tests.cache.rig import ADA, PATIENT, STEADY, Database, instance, redis_tier
from tests.waiting import eventually_async

pytestmark = [pytest.mark.anyio, asyncio_only, pytest.mark.every_loop]

R = TypeVar("R")
# Another loop takes over within a beat, which is a quarter of that time.
POLICY = replace(STEADY, untrusted_ttl=0.4)
LISTENERS = KeySpace("test", b"").channel().listeners


@pytest.fixture
def server(redis_url: str) -> Any:
    """A client of the server, for what is done by hand."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[], Coroutine[Any, Any, R]]) -> R:
        """Carry something out in it."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work(), self._loop))

    def end(self) -> None:
        """End it, as where the thread that runs it ends."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Process:
    """A cache that two event loops share."""

    def __init__(self, url: str, database: Database, options: RedisOptions = PATIENT) -> None:
        counters = Counters()
        self.tier = redis_tier(url, counters=counters, options=options)
        self.cache: TieredCache[str] = TieredCache(
            POLICY, database, shared=self.tier, counters=counters, clock=FakeClock(), drain_seconds=0.1
        )

    async def open(self) -> None:
        """Open it in the running loop."""
        await self.tier.opened.__aenter__()
        await self.cache.flights.opened.__aenter__()

    async def close(self) -> None:
        """Close it in the running loop."""
        await self.cache.flights.opened.__aexit__(None, None, None)
        await self.tier.opened.__aexit__(None, None, None)

    async def get(self) -> str | None:
        """Ask for Ada."""
        return (await self.cache.get(ADA)).entry.value


async def test_news_reach_the_memory_of_all_loops_and_one_goes_on_where_another_ends(redis_url: str) -> None:
    """Only one of them listens; where its loop is closed the other is told, from where it was."""
    database = Database()
    process, loops = Process(redis_url, database), (Loop(), Loop())
    try:
        for loop in loops:
            await loop.run(process.open)
        async with instance(database, url=redis_url, policy=POLICY) as other:
            await eventually_async(lambda: process.tier.is_heard())
            for turn, loop in enumerate(loops):
                assert await loop.run(process.get) == database.rows.get(ADA[1], f"{ADA[1]} 1")
                database.rows[ADA[1]] = f"new {turn}"
                _, reach = await other.cache.invalidate(ADA[1])
                assert len(reach.confirmed) == 1
                assert process.cache.peek(ADA) is None
                await loop.run(process.close)
                if turn == 0:
                    await eventually_async(lambda: process.tier.is_heard())
    finally:
        for loop in loops:
            loop.end()


async def test_a_load_by_another_instance_wakes_a_caller_in_a_loop_that_does_not_listen(redis_url: str) -> None:
    """The news arrive in one thread, and whoever waits is in another."""
    database, away = Database(), Database()
    process, listening, waiting = Process(redis_url, database), Loop(), Loop()
    try:
        for loop in (listening, waiting):
            await loop.run(process.open)
        async with instance(away, url=redis_url, policy=POLICY) as other:
            away.hold()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(other.get)
                await away.started(1)
                tasks.start_soon(waiting.run, process.get)
                await eventually_async(lambda: len(process.tier._fleet.landings) == 1)
                away.release()
            assert database.calls == []
        for loop in (listening, waiting):
            await loop.run(process.close)
    finally:
        for loop in (listening, waiting):
            loop.end()


async def test_the_last_event_loop_says_farewell(redis_url: str, server: Any) -> None:
    """Unlisted with the first one, the process would be neither waited for nor told of until its next beat."""
    process, loops = Process(redis_url, Database()), (Loop(), Loop())
    try:
        for loop in loops:
            await loop.run(process.open)
        await eventually_async(lambda: process.tier.is_heard())
        for loop, left in zip(loops, (1, 0), strict=True):
            await loop.run(process.close)
            assert server.zcount(LISTENERS, "(0", "+inf") == left
    finally:
        for loop in loops:
            loop.end()


async def test_an_event_loop_opens_while_redis_hangs_and_a_load_has_a_lease(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Leases of the process are prolonged in each of its loops; one that is not open yet has no way to do it."""
    port = redis.Redis.from_url(redis_url).connection_pool.connection_kwargs["port"]
    database, loops = Database(), (Loop(), Loop())
    hasty = replace(PATIENT, timeout=2.0, lease=0.06)
    with TcpProxy.start("127.0.0.1", port) as way:
        process = Process(f"redis://127.0.0.1:{way.port}/0", database, hasty)
        try:
            await loops[0].run(process.open)
            database.own[ADA[1]] = _never
            load = asyncio.ensure_future(loops[0].run(process.get))
            await eventually_async(lambda: len(process.tier._leases) == 1)
            way.black_hole()
            await loops[1].run(process.open)
            assert await loops[1].run(_is_open(process))
            assert "leases could not be prolonged" not in caplog.messages
            way.pass_through()
            load.cancel()
            for loop in loops:
                await loop.run(process.close)
        finally:
            for loop in loops:
                loop.end()


async def _never(moved_ago: float) -> Fetched[str]:
    await anyio.sleep_forever()
    raise AssertionError


def _is_open(process: Process) -> Callable[[], Coroutine[Any, Any, bool]]:
    async def ask() -> bool:
        return process.tier.opened.peek() is not None

    return ask
