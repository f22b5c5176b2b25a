"""Whether nothing loaded before an invalidation is stored or served after it, by any instance."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest
import redis

from ctxmiddleware.cache.base import Fence, Stored
from ctxmiddleware.cache.redis.keys import BUCKETS, KeySpace, RedisKeys
from ctxmiddleware.cache.redis.tier import RedisTier
from ctxmiddleware.cache.shared import Reach, SharedTierFailed
from ctxmiddleware.errors import SourceUnavailable
from ctxmiddleware.testing import FakeClock
from examples.servers import TcpProxy, Valkey
from tests.backends import asyncio_only
from tests.cache.rig import (
    ADA,
    BOB,
    STEADY,
    Database,
    Instance,
    instance,
    look_one,
    outlast_marks,
    redis_tier,
    store_one,
)
from tests.waiting import eventually, eventually_async

pytestmark = [pytest.mark.anyio, asyncio_only]
KEEP_MS = 1_320_000
DOWN = SourceUnavailable("down")


@pytest.fixture
def server(redis_url: str) -> Iterator[redis.Redis]:
    """The Valkey behind it all, for a test to look into and to meddle with."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@asynccontextmanager
async def _fleet(url: str, database: Database, **options: Any) -> Any:
    clock = FakeClock()
    async with (
        instance(database, url=url, clock=clock, **options) as a,
        instance(database, url=url, clock=clock, **options) as b,
    ):
        yield a, b, clock


def _keys() -> RedisKeys:
    return KeySpace("test", redis_tier("redis://127.0.0.1:1").codec.shape).of(ADA)


def _age(server: Any, clock: FakeClock) -> None:
    """Let the time to live end here and in Redis, whose own clock no test moves."""
    clock.advance(900)
    server.pexpire(_keys().value, 299_999)


Road = Callable[[Instance, Instance, Any], Awaitable[object]]


async def _other(a: Instance, b: Instance, server: Any) -> None:
    await a.cache.invalidate(ADA[1])


async def _other_clear(a: Instance, b: Instance, server: Any) -> None:
    await a.cache.invalidate(None)


async def _own(a: Instance, b: Instance, server: Any) -> None:
    await b.cache.invalidate(ADA[1])


async def _flushall(a: Instance, b: Instance, server: Any) -> None:
    server.flushall()


async def _deleted(a: Instance, b: Instance, server: Any) -> None:
    server.delete(_keys().generation)


async def _everyone_deleted(a: Instance, b: Instance, server: Any) -> None:
    server.delete(_keys().everyone)


async def _expired(a: Instance, b: Instance, server: Any) -> None:
    server.pexpire(_keys().generation, 1)
    eventually(lambda: not server.exists(_keys().generation))


async def _lost_and_made_again(a: Instance, b: Instance, server: Any) -> None:
    server.flushall()
    async with instance(Database({ADA[1]: "new"}), url=str(_url_of(server))) as c:
        await c.get()


def _url_of(server: Any) -> str:
    return f"redis://127.0.0.1:{server.connection_pool.connection_kwargs['port']}/0"


ROADS = pytest.mark.parametrize(
    "road",
    [_other, _other_clear, _own, _flushall, _deleted, _everyone_deleted, _expired, _lost_and_made_again],
    ids=lambda road: road.__name__,
)


@ROADS
async def test_a_load_in_flight_is_overtaken_by_every_road(redis_url: str, server: Any, road: Road) -> None:
    """Its waiters get what the source says afterwards, neither memory nor Redis keeps any of it."""
    database = Database({ADA[1]: "old"})
    answers: list[str | None] = []
    async with _fleet(redis_url, database) as (a, b, clock):

        async def ask() -> None:
            answers.append(await b.value())

        database.hold()
        async with anyio.create_task_group() as callers:
            callers.start_soon(ask)
            callers.start_soon(ask)
            await database.started(1)
            database.rows[ADA[1]] = "new"
            await road(a, b, server)
            database.release()
        assert answers == ["new", "new"]
        assert await b.value() == await a.value() == "new"
        clock.advance(5)
        assert await b.value() == await a.value() == "new"
        assert b.counters.get("load", "overtaken") == 1


@ROADS
async def test_what_is_stored_is_gone_by_every_road(redis_url: str, server: Any, road: Road) -> None:
    """Once memory is past its trust no instance serves it any more, and Redis gives it to nobody."""
    database = Database({ADA[1]: "old"})
    async with _fleet(redis_url, database) as (a, b, clock):
        assert await b.value() == await a.value() == "old"
        database.rows[ADA[1]] = "new"
        await road(a, b, server)
        clock.advance(5)
        assert await b.value() == await a.value() == "new"


class Hesitant:
    """A real tier whose invalidations wait until the test lets them go on."""

    def __init__(self, tier: RedisTier[str]) -> None:
        self.look, self.store, self.listen, self._tier = tier.look, tier.store, tier.listen, tier
        self.claim, self.release, self.landings = tier.claim, tier.release, tier.landings
        self.remember, self.hottest, self.recall = tier.remember, tier.hottest, tier.recall
        self.hold, self.let_go, self.mark, self.renew = tier.hold, tier.let_go, tier.mark, tier.renew
        self.asked, self.go_on = anyio.Event(), anyio.Event()

    is_listed = True

    async def invalidate(self, name: str | None, keep_ms: int, partitions: Sequence[str] = ()) -> Reach:
        self.asked.set()
        await self.go_on.wait()
        return await self._tier.invalidate(name, keep_ms, partitions)


@pytest.mark.parametrize("name", [ADA[1], None], ids=["invalidate", "clear"])
async def test_what_is_read_while_redis_is_being_told_is_not_kept(redis_url: str, name: str | None) -> None:
    """Between forgetting and the new generation a read finds the old value in Redis; it does not outlive the call."""
    database, tier = Database({ADA[1]: "old"}), redis_tier(redis_url)
    async with tier.opened, anyio.create_task_group() as callers:
        hesitant = Hesitant(tier)
        async with instance(database, shared=hesitant) as one:
            await one.get()
            database.rows[ADA[1]] = "new"
            callers.start_soon(one.cache.invalidate, name)
            await hesitant.asked.wait()
            assert (await one.get()).origin == "redis"
            assert (await one.get()).origin == "memory"
            hesitant.go_on.set()
            await eventually_async(lambda: len(one.cache.memory) == 0)
            assert await one.value() == "new"


async def test_another_instance_serves_the_old_for_untrusted_ttl_at_most(redis_url: str) -> None:
    """Where the channel cannot be heard: to the last moment of its trust and not beyond, whenever it last asked."""
    database = Database({ADA[1]: "old"})
    async with _fleet(redis_url, database, policy=replace(STEADY, untrusted_ttl=2), deaf=True) as (a, b, clock):
        await b.get()
        clock.advance(1)
        database.rows[ADA[1]] = "new"
        await a.cache.invalidate(ADA[1])
        assert await a.value() == "new"
        clock.advance(0.9)
        assert await b.value() == "old"
        clock.advance(0.1)
        assert await b.value() == "new"


async def test_the_invalidating_instance_forgets_every_partition_in_redis(redis_url: str) -> None:
    """A generation belongs to the name, so all tenants of an address are reached."""
    database = Database({ADA[1]: "old", BOB[1]: "old"})
    tenant = ("acme", ADA[1])
    async with _fleet(redis_url, database) as (a, b, clock):
        for key in (ADA, tenant, BOB):
            await b.get(key)
        database.rows = {ADA[1]: "new", BOB[1]: "new"}
        await a.cache.invalidate(ADA[1])
        clock.advance(5)
        assert [await b.value(key) for key in (ADA, tenant, BOB)] == ["new", "new", "old"]


async def test_compare_and_set(redis_url: str, server: Any) -> None:
    """A value is stored under the generations in force only; an absent one is unlike every other."""
    tier = redis_tier(redis_url)
    stored = Stored("v", "db", 900.0)
    async with tier.opened:
        look = await look_one(tier, ADA, KEEP_MS)
        assert look is not None
        assert await store_one(tier, ADA, look.fence, stored, KEEP_MS) is True
        assert await store_one(tier, ADA, look.fence, stored, 0) is True
        for fence in (
            look.fence._replace(name=b"x"),
            look.fence._replace(everyone=b"x"),
            Fence(b"", b""),
            Fence(look.fence.name, b""),
        ):
            assert await store_one(tier, ADA, fence, stored, KEEP_MS) is False
            assert await store_one(tier, ADA, fence, stored, 0) is False
        found = await look_one(tier, ADA, KEEP_MS)
        assert found is not None
        assert found.stored is not None
        await tier.invalidate(ADA[1], KEEP_MS)
        assert await store_one(tier, ADA, look.fence, stored, KEEP_MS) is False
        server.flushall()
        assert await store_one(tier, ADA, look.fence, stored, KEEP_MS) is False
        assert await store_one(tier, ADA, Fence(b"", b""), stored, KEEP_MS) is False
        assert server.dbsize() == 0


async def test_generations_are_never_used_twice(redis_url: str) -> None:
    """Lost and made again, bumped by name and for everyone, no generation is one that was."""
    tier = redis_tier(redis_url)
    seen: list[Fence] = []
    async with tier.opened:
        with redis.Redis.from_url(redis_url) as server:
            for name in (ADA[1], None, "flush") * 3:
                look = await look_one(tier, ADA, KEEP_MS)
                assert look is not None
                seen.append(look.fence)
                if name == "flush":
                    server.flushall()
                else:
                    await tier.invalidate(name, KEEP_MS)
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("users", [1, 300])
async def test_clear_costs_the_same_whatever_the_number_of_users(redis_url: str, server: Any, users: int) -> None:
    """A generation and a mark in each bucket, and no key is looked for or deleted."""
    database = Database()
    async with instance(database, url=redis_url) as one:
        for number in range(users):
            await one.get(("", f"user{number}"))
        server.config_resetstat()
        assert (await one.cache.invalidate(None))[0] == users
        done = {name: stats["calls"] for name, stats in server.info("commandstats").items()}
        # A generation that is absent needs no other.
        assert BUCKETS < done.pop("cmdstat_set") <= 2 * BUCKETS
        assert not set(done) & {"cmdstat_keys", "cmdstat_scan", "cmdstat_del", "cmdstat_unlink", "cmdstat_flushdb"}
        calls = len(database.calls)
        for number in range(min(users, 20)):
            await one.get(("", f"user{number}"))
        assert len(database.calls) == calls + min(users, 20)


async def test_an_invalidation_costs_two_writes_and_its_announcement(redis_url: str, server: Any) -> None:
    """One generation is put in force, after the former one, and marked as new; nothing else is touched."""
    async with instance(url=redis_url) as one:
        await one.get()
        before = set(server.scan_iter())
        server.config_resetstat()
        await one.cache.invalidate(ADA[1])
        done = server.info("commandstats")
        assert (done["cmdstat_set"]["calls"], done["cmdstat_xadd"]["calls"]) == (2, 1)
        keys = KeySpace("test", b"")
        assert set(server.scan_iter()) - before == {keys.of(ADA).mark.encode(), keys.channel().stream.encode()}


async def test_the_fleet_knows_how_long_ago_somebody_was_invalidated(redis_url: str) -> None:
    """Whoever loads next is told, whichever process invalidated; long ago, never, and of others there is nothing."""
    database = Database()
    async with _fleet(redis_url, database) as (a, b, clock):
        outlast_marks(redis_url)
        for one in (a, b):
            for key in (ADA, BOB):
                await one.get(key)
        assert [ago for _, ago in database.told] == [math.inf] * len(database.told)
        await a.cache.invalidate(ADA[1])
        clock.advance(10)
        database.told.clear()
        for key in (ADA, BOB):
            await b.get(key)
        ((name, ago),) = database.told
        assert (name, 0 <= ago < 5) == (ADA[1], True)
        await a.cache.invalidate(None)
        clock.advance(10)
        database.told.clear()
        await b.get(BOB)
        assert [(name, 0 <= ago < 5) for name, ago in database.told] == [(BOB[1], True)]


async def test_a_user_invalidated_elsewhere_is_not_served_stale(redis_url: str) -> None:
    """With the source down, what was invalidated is not what stands in."""
    database = Database({ADA[1]: "old"})
    async with _fleet(redis_url, database) as (a, b, clock):
        await b.get()
        database.error = DOWN
        await a.cache.invalidate(ADA[1])
        clock.advance(5)
        with pytest.raises(SourceUnavailable):
            await b.get()


async def test_a_user_invalidated_during_a_load_that_fails_is_not_served_stale(redis_url: str, server: Any) -> None:
    """The generations are read again before something stands in: the load may have taken longer than any trust."""
    database = Database({ADA[1]: "old"})
    errors: list[Exception] = []
    async with _fleet(redis_url, database) as (a, b, clock):
        await b.get()
        _age(server, clock)
        database.error = DOWN

        async def ask() -> None:
            try:
                await b.get()
            except SourceUnavailable as error:
                errors.append(error)

        database.hold()
        async with anyio.create_task_group() as callers:
            callers.start_soon(ask)
            await database.started(2)
            clock.advance(29)
            await a.cache.invalidate(ADA[1])
            database.release()
        assert len(errors) == 1
        with pytest.raises(SourceUnavailable):
            await b.get()


async def test_the_pause_between_tries_is_no_longer_than_trust(redis_url: str, server: Any) -> None:
    """While something stands in without asking anybody, an invalidation elsewhere is missed no longer than usual."""
    database = Database({ADA[1]: "old"})
    async with _fleet(redis_url, database, policy=replace(STEADY, untrusted_ttl=0.2)) as (a, b, clock):
        await b.get()
        _age(server, clock)
        database.error = DOWN
        assert (await b.get()).stale
        await a.cache.invalidate(ADA[1])
        clock.advance(0.2)
        with pytest.raises(SourceUnavailable):
            await b.get()


async def test_confirmed_by_redis_an_entry_stands_in_from_the_end_of_its_time(redis_url: str, server: Any) -> None:
    """However long ago memory was last trusted: the generations say that nothing has happened since."""
    database = Database({ADA[1]: "old"})
    async with _fleet(redis_url, database) as (_, b, clock):
        await b.get()
        server.delete(_keys().value)
        database.error = DOWN
        clock.advance(1199)
        found = await b.get()
        assert (found.stale, found.origin) == (True, "memory")
        clock.advance(1)
        with pytest.raises(SourceUnavailable):
            await b.get()


async def test_while_redis_is_down_memory_is_loaded_anew_past_its_trust() -> None:
    """Nobody can say whether something was invalidated: the source is asked, and the known stands in for it."""
    database = Database({ADA[1]: "old"})
    with Valkey.start() as valkey:
        async with instance(database, url=valkey.url) as one:
            await one.get()
            valkey.kill()
            one.clock.advance(4.9)
            assert (await one.get()).origin == "memory"
            one.clock.advance(0.1)
            database.rows[ADA[1]] = "new"
            assert await one.value() == "new"
            database.error = DOWN
            one.clock.advance(304.9)
            assert (await one.get()).stale
            one.clock.advance(0.1)
            with pytest.raises(SourceUnavailable):
                await one.get()


async def test_what_was_loaded_while_redis_was_down_is_not_taken_for_confirmed(redis_url: str, server: Any) -> None:
    """It has no generations, so nothing Redis says later makes it trusted."""
    database = Database({ADA[1]: "old"})
    with Valkey.start() as valkey:
        async with instance(database, url=valkey.url) as one:
            valkey.kill()
            assert await one.value() == "old"
            database.rows[ADA[1]] = "new"
            valkey.restart()
            one.clock.advance(5)
            assert await one.value() == "new"


@pytest.mark.parametrize("name", [ADA[1], None], ids=["invalidate", "clear"])
async def test_an_invalidation_that_redis_did_not_take_fails_loud(name: str | None) -> None:
    """This process has forgotten all the same, loads in flight included, and says how many entries that were."""
    database = Database({ADA[1]: "old"})
    answers: list[str | None] = []
    with Valkey.start() as valkey:
        async with instance(database, url=valkey.url) as one:
            await one.get(("acme", ADA[1]))

            async def ask() -> None:
                answers.append(await one.value())

            database.hold()
            async with anyio.create_task_group() as callers:
                callers.start_soon(ask)
                await database.started(2)
                valkey.kill()
                database.rows[ADA[1]] = "new"
                with pytest.raises(SharedTierFailed, match="did not take the invalidation") as told:
                    await one.cache.invalidate(name)
                database.release()
            assert told.value.dropped == 1
            assert answers == ["new"]
            assert await one.value(("acme", ADA[1])) == "new"


async def test_what_was_seen_to_be_overtaken_does_not_come_back_with_redis_gone(redis_url: str) -> None:
    """Once a process has seen the new generation, no later fault of Redis or the source brings the old value back."""
    database = Database({ADA[1]: "old"})
    with TcpProxy.start("127.0.0.1", urlsplit(redis_url).port or 0) as proxy:
        clock = FakeClock()
        cut_off = f"redis://127.0.0.1:{proxy.port}/0"
        async with (
            instance(database, url=redis_url, clock=clock) as a,
            instance(database, url=cut_off, clock=clock) as b,
        ):
            await b.get()
            await a.cache.invalidate(ADA[1])
            database.error = DOWN
            clock.advance(6)
            with pytest.raises(SourceUnavailable):
                await b.get()
            proxy.refuse()
            for _ in range(5):
                with pytest.raises(SourceUnavailable):
                    await b.get()
