"""Whether three instances on one Redis agree: who loads, who refreshes, and who stops serving what was invalidated."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import anyio
import pytest
import redis

from ctxmiddleware.cache.policy import CachePolicy
from ctxmiddleware.cache.redis.keys import KeySpace
from ctxmiddleware.cache.shared import SharedTierFailed
from ctxmiddleware.testing import FakeClock
from examples.servers import TcpProxy
from tests.backends import asyncio_only
from tests.cache.rig import ADA, STEADY, Database, Instance, instance
from tests.waiting import eventually_async

pytestmark = [pytest.mark.anyio, asyncio_only]
CROWD = [("", f"user{number}") for number in range(120)]


@dataclass
class Fleet:
    """Three instances that read one database."""

    one: Instance
    two: Instance
    three: Instance
    database: Database
    clock: FakeClock

    @property
    def all(self) -> tuple[Instance, Instance, Instance]:
        """The three of them."""
        return self.one, self.two, self.three


@asynccontextmanager
async def _fleet(
    url: str, *, policy: CachePolicy = STEADY, batch_size: int = 1, deaf: bool = False
) -> AsyncIterator[Fleet]:
    database, clock = Database(batch_size=batch_size), FakeClock()
    async with AsyncExitStack() as stack:
        one, two, three = [
            await stack.enter_async_context(instance(database, url=url, clock=clock, policy=policy, deaf=deaf))
            for _ in range(3)
        ]
        yield Fleet(one, two, three, database, clock)


def _pass(url: str, fleet: Fleet, seconds: int) -> None:
    """Let time pass for the instances, and for what Redis has of Ada, whose own clock no test moves."""
    assert fleet.one.redis is not None
    key = KeySpace("test", fleet.one.redis.codec.shape).of(ADA).value
    with redis.Redis.from_url(url) as server:
        assert server.pexpire(key, int(server.pttl(key)) - 1000 * seconds)
    fleet.clock.advance(seconds)


async def _landed(one: Instance) -> None:
    await eventually_async(lambda: len(one.cache.flights) == 0)


async def test_one_load_serves_all_three(redis_url: str) -> None:
    """The first loads, the others find it in Redis, each answers from its memory afterwards."""
    async with _fleet(redis_url) as fleet:
        assert [(await each.get()).origin for each in fleet.all] == ["db", "redis", "redis"]
        assert [(await each.get()).origin for each in fleet.all] == ["memory"] * 3
    assert len(fleet.database.calls) == 1


async def test_one_refresh_behind_serves_all_three(redis_url: str) -> None:
    """Late in its time one instance loads behind its answer; the others take what it brought instead of loading too."""
    policy = replace(STEADY, refresh_ahead=0.8, untrusted_ttl=890)
    async with _fleet(redis_url, policy=policy) as fleet:
        for each in fleet.all:
            await each.get()
        fleet.database.rows[ADA[1]] = "new"
        _pass(redis_url, fleet, 735)
        for each in fleet.all:
            assert (await each.get()).origin == "memory"
            await _landed(each)
        assert [await each.value() for each in fleet.all] == ["new"] * 3
    assert len(fleet.database.calls) == 2


@pytest.mark.parametrize("name", [ADA[1], None], ids=["invalidate", "clear"])
async def test_an_invalidation_by_one_ends_it_everywhere_within_trust(redis_url: str, name: str | None) -> None:
    """Who invalidates serves it no more at once, the others no longer than they trust their memory."""
    async with _fleet(redis_url) as fleet:
        for each in fleet.all:
            await each.get()
        fleet.database.rows[ADA[1]] = "new"
        await fleet.two.cache.invalidate(name)
        assert await fleet.two.value() == "new"
        fleet.clock.advance(STEADY.untrusted_ttl)
        assert [await each.value() for each in fleet.all] == ["new"] * 3
    assert len(fleet.database.calls) == 2


async def test_trust_is_renewed_behind_the_answer_and_a_hot_user_never_waits_for_redis(redis_url: str) -> None:
    """Where the channel cannot be heard, a user asked for all the time is answered from memory all the time."""
    policy = replace(STEADY, refresh_ahead=0.8)
    async with _fleet(redis_url, policy=policy, deaf=True) as fleet:
        await fleet.one.get()
        for _ in range(30):
            fleet.clock.advance(0.5)
            assert (await fleet.one.get()).origin == "memory"
            await eventually_async(lambda: len(fleet.one.cache.flights) == 0)
    assert len(fleet.database.calls) == 1
    assert fleet.one.counters.get("hit", "redis") >= 3


async def test_trust_renewed_behind_the_answer_sees_an_invalidation(redis_url: str) -> None:
    """What was asked of Redis behind an answer ends a context that was invalidated elsewhere."""
    policy = replace(STEADY, refresh_ahead=0.8)
    async with _fleet(redis_url, policy=policy) as fleet:
        await fleet.one.get()
        fleet.database.rows[ADA[1]] = "new"
        await fleet.two.cache.invalidate(ADA[1])
        fleet.clock.advance(4.5)
        await fleet.one.get()
        await eventually_async(lambda: len(fleet.one.cache.flights) == 0)
        found = await fleet.one.get()
        assert (found.entry.value, found.origin) == ("new", "memory")


async def test_an_invalidation_elsewhere_overtakes_a_refresh_here(redis_url: str) -> None:
    """A refresh behind an answer that began before the invalidation is stored by nobody, in no tier."""
    policy = replace(STEADY, refresh_ahead=0.1, untrusted_ttl=890)
    async with _fleet(redis_url, policy=policy) as fleet:
        one, two, three = fleet.all
        await one.get()
        _pass(redis_url, fleet, 95)
        fleet.database.hold()
        await one.get()
        await fleet.database.started(2)
        fleet.database.rows[ADA[1]] = "new"
        await two.cache.invalidate(ADA[1])
        fleet.database.release()
        await eventually_async(lambda: len(one.cache.flights) == 0)
        assert [await each.value() for each in (three, two, one)] == ["new"] * 3


async def test_a_batch_loaded_here_keeps_all_but_whom_another_has_invalidated(redis_url: str) -> None:
    """One of a hundred and twenty is loaded again; the rest are stored, and found by the others without a load."""
    async with _fleet(redis_url, batch_size=100) as fleet:
        one, two, three = fleet.all
        answers: dict[str, str | None] = {}

        async def ask(each: Instance, key: tuple[str, str]) -> None:
            answers[key[1]] = await each.value(key)

        fleet.database.hold()
        async with anyio.create_task_group() as callers:
            for key in CROWD:
                callers.start_soon(ask, one, key)
            await fleet.database.started(len(CROWD))
            fleet.database.rows["user7"] = "new"
            await two.cache.invalidate("user7")
            fleet.database.release()
        assert answers == {name: "new" if name == "user7" else f"{name} 1" for _, name in CROWD}
        assert len(fleet.database.calls) == len(CROWD) + 1
        answers.clear()
        async with anyio.create_task_group() as callers:
            for key in CROWD:
                callers.start_soon(ask, three, key)
        assert answers == {name: "new" if name == "user7" else f"{name} 1" for _, name in CROWD}
        assert len(fleet.database.calls) == len(CROWD) + 1


async def test_an_instance_that_was_stopped_asks_before_it_serves(redis_url: str) -> None:
    """Resumed after any time it serves nothing by memory alone that may have been invalidated meanwhile."""
    async with _fleet(redis_url) as fleet:
        for each in fleet.all:
            await each.get()
        fleet.database.rows[ADA[1]] = "new"
        await fleet.one.cache.invalidate(ADA[1])
        fleet.clock.advance(60)
        assert fleet.three.cache.peek(ADA) is None
        assert await fleet.three.value() == "new"


async def test_flushall_loses_what_was_kept_and_brings_nothing_back(redis_url: str) -> None:
    """Whoever loaded before it stores nothing; everybody agrees again after the next load."""
    async with _fleet(redis_url) as fleet:
        one, two, three = fleet.all
        await one.get()
        fleet.database.hold()
        async with anyio.create_task_group() as callers:
            await two.cache.invalidate(ADA[1])
            callers.start_soon(two.get)
            await fleet.database.started(2)
            with redis.Redis.from_url(redis_url) as server:
                server.flushall()
            fleet.database.rows[ADA[1]] = "new"
            fleet.database.release()
        fleet.clock.advance(STEADY.untrusted_ttl)
        assert [await each.value() for each in (three, two, one)] == ["new"] * 3


async def test_an_instance_cut_off_from_redis_fails_loud_and_serves_from_the_source(redis_url: str) -> None:
    """Its invalidation is an error, its misses are loads, its hits are hits; the others never notice."""
    server = urlsplit(redis_url)
    with TcpProxy.start(server.hostname or "", server.port or 0) as proxy:
        database, clock = Database(), FakeClock()
        async with (
            instance(database, url=f"redis://127.0.0.1:{proxy.port}/0", clock=clock) as cut,
            instance(database, url=redis_url, clock=clock) as well,
        ):
            await cut.get()
            await well.get()
            proxy.refuse()
            database.rows[ADA[1]] = "new"
            with pytest.raises(SharedTierFailed):
                await cut.cache.invalidate(ADA[1])
            assert await cut.value() == "new"
            assert (await cut.get()).origin == "memory"
            assert (await well.get()).origin == "memory"
