"""Whether instances share what one of them loaded, and whether what they find in Redis is theirs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import anyio
import pytest
import redis

from ctxmiddleware import Identity
from ctxmiddleware.cache.base import Ask, Key
from ctxmiddleware.cache.redis.keys import KeySpace, RedisKeys
from ctxmiddleware.cache.redis.tier import RedisTier
from ctxmiddleware.errors import SourceUnavailable
from ctxmiddleware.testing import FakeClock
from tests.backends import asyncio_only
from tests.cache.rig import ADA, BOB, STEADY, Database, Instance, instance, look_one, redis_tier

pytestmark = [pytest.mark.anyio, asyncio_only]
KEEP_MS = 1_320_000


@pytest.fixture
def server(redis_url: str) -> Iterator[redis.Redis]:
    """The Valkey behind it all, for a test to look into and to meddle with."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


def _keys(key: Key, tier: RedisTier[str] | None = None) -> RedisKeys:
    shape = (tier or redis_tier("redis://127.0.0.1:1")).codec.shape
    return KeySpace("test", shape).of(key)


async def test_what_one_has_loaded_the_other_finds(redis_url: str) -> None:
    """Two instances cost one load; the second answers from Redis, and then from its own memory."""
    database = Database()
    async with instance(database, url=redis_url) as a, instance(database, url=redis_url) as b:
        assert [(await one.get()).origin for one in (a, b, b)] == ["db", "redis", "memory"]
        assert b.counters.get("hit", "redis") == a.counters.get("miss", "redis") == 1
    assert len(database.calls) == 1


async def test_an_unknown_user_is_shared_too(redis_url: str) -> None:
    """That there is no such user is an answer others find, for its own short time."""
    database = Database({ADA[1]: None})
    async with instance(database, url=redis_url) as a, instance(database, url=redis_url) as b:
        assert await a.value() is None
        found = await b.get()
        assert (found.entry.value, found.origin) == (None, "redis")
        assert found.entry.expires_at - b.clock() == pytest.approx(60, abs=1)


async def test_past_its_trust_memory_is_revalidated_and_not_loaded(redis_url: str) -> None:
    """After `untrusted_ttl` Redis is asked whether anything changed; nothing did, and no load is made."""
    database = Database()
    async with instance(database, url=redis_url) as one:
        await one.get()
        one.clock.advance(4.9)
        assert (await one.get()).origin == "memory"
        for _ in range(3):
            one.clock.advance(5)
            assert one.cache.peek(ADA) is None
            assert (await one.get()).origin == "redis"
            assert (await one.get()).origin == "memory"
    assert len(database.calls) == 1


async def test_revalidated_or_not_its_time_ends_when_it_ends(redis_url: str) -> None:
    """Trust that is renewed never lengthens the time to live."""
    database = Database(ttl=12)
    async with instance(database, url=redis_url) as one:
        for _ in range(12):
            await one.get()
            one.clock.advance(1)
        assert len(database.calls) == 1
        with redis.Redis.from_url(redis_url) as server:
            server.delete(_keys(ADA).value)
        assert (await one.get()).origin == "db"


async def test_the_time_in_redis_counts_from_when_the_source_was_asked(redis_url: str, server: Any) -> None:
    """A load that took 100 s leaves 100 s less, and whoever finds the value sees how old it is."""
    database, clock = Database(), FakeClock()
    async with instance(database, url=redis_url, clock=clock) as a, instance(database, url=redis_url, clock=clock) as b:

        async def slow(moved_ago: float) -> Any:
            clock.advance(100)
            return (await database.load([Ask(Identity(ADA[1]).cache_key, moved_ago)]))[0]

        await a.get(ADA, slow)
        assert server.pttl(_keys(ADA).value) == pytest.approx(1_100_000, abs=2000)
        found = await b.get()
        assert clock() - found.entry.loaded_at == pytest.approx(100, abs=2)
        assert found.entry.expires_at - clock() == pytest.approx(800, abs=2)


async def test_no_key_holds_an_address(redis_url: str, server: Any) -> None:
    """Nothing that lists keys, such as SCAN, MONITOR or a slow log, shows who uses the application."""
    async with instance(url=redis_url) as one:
        for key in (ADA, BOB, ("acme", "carol@example.org")):
            await one.get(key)
        await one.cache.invalidate(ADA[1])
        await one.cache.invalidate(None)
    keys = [key.decode() for key in server.scan_iter(count=1000)]
    assert len(keys) > 256
    assert not [key for key in keys if any(word in key for word in ("@", "ada", "bob", "carol", "example", "acme"))]
    assert all(key.startswith(("ctx:{test:", "ctx:g:{test:")) for key in keys)
    assert all(server.pttl(key) > 0 for key in keys)


async def _second_look(redis_url: str, key: Key = ADA) -> tuple[str, str | None, Instance]:
    async with instance(url=redis_url) as another:
        found = await another.get(key)
        return found.origin, found.entry.value, another


async def test_swapped_values_are_nobody_s(redis_url: str, server: Any) -> None:
    """With two users' values exchanged by hand, each still gets their own."""
    async with instance(url=redis_url) as one:
        await one.get(ADA)
        await one.get(BOB)
    first, second = _keys(ADA).value, _keys(BOB).value
    server.rename(first, "aside")
    server.rename(second, first)
    server.rename("aside", second)
    for key in (ADA, BOB):
        origin, value, another = await _second_look(redis_url, key)
        assert (origin, value) == ("db", f"{key[1]} 1")
        assert another.counters.get("rejected", "redis") == 1


async def test_a_value_moved_to_another_partition_is_nobody_s(redis_url: str, server: Any) -> None:
    """Two tenants share a generation and still never a value."""
    async with instance(url=redis_url) as one:
        await one.get(ADA)
        await one.get(("tenant", ADA[1]))
    server.rename(_keys(ADA).value, _keys(("tenant", ADA[1])).value)
    origin, _, another = await _second_look(redis_url, ("tenant", ADA[1]))
    assert (origin, another.counters.get("rejected", "redis")) == ("db", 1)


@pytest.mark.parametrize("meddle", ["persist", "lengthen", "junk", "empty", "list", "huge"])
async def test_a_value_that_was_touched_is_a_miss(redis_url: str, server: Any, meddle: str) -> None:
    """Without its expiry, with a longer one, with other bytes or of another type a value is a miss, and is replaced."""
    async with instance(url=redis_url) as one:
        await one.get()
    key = _keys(ADA).value
    match meddle:
        case "persist":
            server.persist(key)
        case "lengthen":
            server.pexpire(key, 10 * KEEP_MS)
        case "list":
            server.delete(key)
            server.rpush(key, "x")
        case _:
            server.set(key, {"junk": b"\x93\x01", "empty": b"", "huge": b"x" * 5_000_000}[meddle], keepttl=True)
    assert (await _second_look(redis_url))[0] == "db"
    origin, _, third = await _second_look(redis_url)
    assert origin == "redis"
    assert third.counters.get("fault", "redis") == 0


@pytest.mark.parametrize("which", ["everyone", "generation"])
async def test_a_generation_of_another_type_is_replaced(redis_url: str, server: Any, which: str) -> None:
    """What is no generation counts as absent: the values under it are gone, and Redis goes on being used."""
    async with instance(url=redis_url) as one:
        await one.get()
    key = getattr(_keys(ADA), which)
    server.delete(key)
    server.hset(key, "field", "value")
    assert (await _second_look(redis_url))[0] == "db"
    origin, _, third = await _second_look(redis_url)
    assert (origin, third.counters.get("fault", "redis")) == ("redis", 0)


async def test_a_generation_that_lost_its_expiry_gets_one(redis_url: str, server: Any) -> None:
    """Nothing of ours stays in Redis for ever."""
    async with instance(url=redis_url) as one:
        await one.get()
        for key in _keys(ADA)[:2]:
            server.persist(key)
        one.clock.advance(5)
        await one.get()
    assert all(0 < server.pttl(key) <= 2 * KEEP_MS for key in _keys(ADA)[:2])


async def test_generations_outlive_values_and_loads(redis_url: str, server: Any) -> None:
    """A value whose source gave it longer than the policy would is not lost with its generation."""
    async with instance(Database(ttl=9000), url=redis_url) as one:
        await one.get()
    value = server.pttl(_keys(ADA).value)
    assert value > 9_000_000
    assert all(server.pttl(key) > value for key in _keys(ADA)[:2])


async def test_a_look_up_that_finds_its_generations_writes_nothing(redis_url: str, server: Any) -> None:
    """Reads are not replicated, not logged, and announce no change of a key."""
    async with instance(url=redis_url) as one:
        await one.get()
        before = server.info("persistence")["rdb_changes_since_last_save"]
        for _ in range(5):
            one.clock.advance(5)
            await one.get()
        assert server.info("persistence")["rdb_changes_since_last_save"] == before


async def test_another_source_or_type_or_namespace_finds_nothing(redis_url: str) -> None:
    """Applications that share a Redis do not share contexts unless everything about them is the same."""
    async with instance(url=redis_url) as one:
        await one.get()
    for tier, expected in (
        (redis_tier(redis_url), True),
        (redis_tier(redis_url, label="other"), False),
        (redis_tier(redis_url, namespace="other"), False),
    ):
        async with tier.opened:
            look = await look_one(tier, ADA, KEEP_MS)
            assert look is not None
            assert (look.stored is not None) is expected


async def test_a_value_that_cannot_travel_is_served_and_fenced_all_the_same(
    redis_url: str, server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Too large for Redis it is kept in memory only, with one warning by each instance, and fenced like any other."""
    database = Database({ADA[1]: "x" * 5_000_000, BOB[1]: "\ud800"})
    async with instance(database, url=redis_url) as a, instance(database, url=redis_url) as b:
        for key in (ADA, BOB):
            assert await a.value(key) == database.rows[key[1]]
            assert (await a.get(key)).origin == "memory"
            assert not server.exists(_keys(key).value)
        database.hold()
        async with anyio.create_task_group() as callers:
            callers.start_soon(b.get)
            await database.started(3)
            database.rows[ADA[1]] = "new"
            await a.cache.invalidate(ADA[1])
            database.release()
        assert await b.value() == "new"
    assert [record.message.rpartition(": ")[2] for record in caplog.records] == [
        "it is larger than 4194304 bytes",
        "it cannot be encoded (UnicodeEncodeError)",
        "it is larger than 4194304 bytes",
    ]
    assert a.counters.get("unstorable", "redis") == 2


async def test_what_has_no_time_to_live_stands_in_only_and_is_fenced(redis_url: str) -> None:
    """A value its source gives no time is never served fresh from Redis, stands in while the source is down."""
    database = Database(ttl=0)
    async with instance(database, url=redis_url) as a, instance(database, url=redis_url) as b:
        await a.get()
        assert (await b.get()).origin == "db"
        database.error = SourceUnavailable("down")
    async with instance(database, url=redis_url) as c:
        found = await c.get()
        assert (found.stale, found.origin, found.entry.value) == (True, "redis", f"{ADA[1]} 1")
        assert (await c.get()).origin == "memory"


async def test_without_time_and_grace_the_invalidation_still_counts(redis_url: str) -> None:
    """Even a value that is kept nowhere is not handed to those who waited for it once it was invalidated elsewhere."""
    database, policy = Database(ttl=0), replace(STEADY, stale_for=0)
    answers: list[str | None] = []
    async with (
        instance(database, url=redis_url, policy=policy) as a,
        instance(database, url=redis_url, policy=policy) as b,
    ):

        async def ask() -> None:
            answers.append(await b.value())

        database.hold()
        async with anyio.create_task_group() as callers:
            callers.start_soon(ask)
            await database.started(1)
            database.rows[ADA[1]] = "new"
            await a.cache.invalidate(ADA[1])
            database.release()
    assert answers == ["new"]
