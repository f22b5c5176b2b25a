"""Whether looks and stores travel in few commands, and faults and callers that go away harm nobody else."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import pytest
import redis
from redis.asyncio import ConnectionPool, Redis

from ctxmiddleware.cache.base import Fence, Key, Stored
from ctxmiddleware.cache.redis.codec import Codec
from ctxmiddleware.cache.redis.keys import KeySpace
from ctxmiddleware.cache.redis.lua.values import LOOK
from ctxmiddleware.cache.redis.options import RedisOptions
from ctxmiddleware.cache.redis.order import MAX_BYTES
from ctxmiddleware.cache.redis.servers.connection import Send, connect
from ctxmiddleware.cache.redis.servers.driver import Client
from ctxmiddleware.cache.redis.tier import RedisTier
from ctxmiddleware.cache.shared import Look, SharedTierFailed, Storing
from ctxmiddleware.secret import Secret
from ctxmiddleware.stats import Counters
from examples.servers import TcpProxy, Valkey
from tests.backends import asyncio_only
from tests.cache.rig import ADA, BOB, PATIENT, look_one, outlast_marks, redis_tier, store_one
from tests.waiting import eventually_async

pytestmark = [pytest.mark.anyio, asyncio_only]
KEEP_MS = 1_260_000


@pytest.fixture
def own() -> Iterator[Valkey]:
    """A Valkey that this test may stop."""
    with Valkey.start() as server:
        yield server


@pytest.fixture
def server(redis_url: str) -> Iterator[Any]:
    """The shared Valkey, for a test to look into."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@asynccontextmanager
async def _tier(
    target: str | Client, options: RedisOptions = PATIENT
) -> AsyncIterator[tuple[RedisTier[str], Counters]]:
    counters = Counters()
    tier = redis_tier(target, counters=counters, options=options)
    async with tier.opened:
        yield tier, counters


def _users(count: int) -> list[Key]:
    return [("", f"user{number}@example.org") for number in range(count)]


def _storing(keys: Sequence[Key], looks: Sequence[Look[str] | None]) -> list[Storing[str]]:
    fences = [look.fence for look in looks if look is not None]
    return [Storing(key, fence, Stored(key[1], "db", 900.0), KEEP_MS) for key, fence in zip(keys, fences, strict=True)]


async def _fill(tier: RedisTier[str], keys: Sequence[Key]) -> None:
    assert await tier.store(_storing(keys, await tier.look(keys, KEEP_MS))) == [True] * len(keys)


def _value(look: Look[str] | None) -> str | None:
    return None if look is None or look.stored is None else look.stored.value


async def _all(tier: RedisTier[str], keys: Sequence[Key]) -> list[Look[str] | None]:
    """Look each key up in a task of its own."""
    found: dict[Key, Look[str] | None] = {}

    async def look(key: Key) -> None:
        found[key] = await look_one(tier, key, KEEP_MS)

    async with anyio.create_task_group() as callers:
        for key in keys:
            callers.start_soon(look, key)
    return [found[key] for key in keys]


async def _answers(tier: RedisTier[str], count: int = 2) -> None:
    """Wait until Redis has just answered look-ups of so many users at once."""

    async def is_answered() -> bool:
        return None not in await tier.look(_users(count), KEEP_MS)

    await eventually_async(is_answered)


def _commands(server: Any) -> int:
    done = server.info("commandstats")
    return sum(stats["calls"] for name, stats in done.items() if name in ("cmdstat_evalsha", "cmdstat_eval"))


async def test_each_gets_their_own_in_the_order_they_asked(redis_url: str) -> None:
    """Many looked up at once, known and unknown, get what was stored for them and nobody else's."""
    users = _users(250)
    async with _tier(redis_url) as (tier, _):
        await _fill(tier, users[::2])
        expected = [key[1] if number % 2 == 0 else None for number, key in enumerate(users)]
        assert [_value(look) for look in await tier.look(users, KEEP_MS)] == expected
        assert [_value(look) for look in await _all(tier, users)] == expected
        assert await tier.look([], KEEP_MS) == []
        assert await tier.store([]) == []


async def test_looks_of_one_turn_travel_in_commands_of_a_hundred(redis_url: str, server: Any) -> None:
    """One goes ahead alone, and the 299 behind it are three commands on one more connection."""
    users = _users(300)
    async with _tier(redis_url) as (tier, counters):
        await _fill(tier, users)
        server.config_resetstat()
        connected = len(server.client_list())
        assert [_value(look) for look in await _all(tier, users)] == [key[1] for key in users]
        assert _commands(server) == 1 + 3
        assert len(server.client_list()) <= connected + 1
        assert (counters.get("busy", "redis"), counters.get("fault", "redis")) == (0, 0)


async def test_a_lone_look_and_a_lone_store_go_direct(redis_url: str) -> None:
    """With nobody else about there is nothing to gather: no other task has a part in it."""
    async with _tier(redis_url) as (tier, _):
        for _ in range(5):
            found = await look_one(tier, ADA, KEEP_MS)
            assert found is not None
            assert await store_one(tier, ADA, found.fence, Stored("v", "db", 900.0), KEEP_MS)
        assert tier.opened.current.lane.trips == 0
        await tier.look([ADA, BOB], KEEP_MS)
        assert tier.opened.current.lane.trips == 1


async def test_5000_misses_that_finish_at_once_need_no_connection_each(redis_url: str, server: Any) -> None:
    """All are looked up, and all are stored, over two connections and by a hundred users to a command."""
    users = _users(5000)
    # Nothing looks at the connections meanwhile, which may take one more.
    options = replace(PATIENT, timeout=60.0, pool_wait=60.0, check_every=600.0)
    async with _tier(redis_url, options) as (tier, counters):
        before = len(server.client_list())
        # The server has seen the scripts then: it is sent no command twice.
        await _fill(tier, users[:2])
        looks = await _all(tier, users)
        values = _storing(users, looks)
        kept: list[bool | None] = []

        async def store(value: Storing[str]) -> None:
            kept.extend(await tier.store([value]))

        server.config_resetstat()
        async with anyio.create_task_group() as callers:
            for value in values:
                callers.start_soon(store, value)
        assert kept == [True] * 5000
        assert _commands(server) <= 1 + 50 + 1
        assert len(server.client_list()) <= before + 2
        assert (counters.get("busy", "redis"), counters.get("fault", "redis")) == (0, 0)


async def test_looks_and_stores_share_a_trip_and_not_a_command(redis_url: str, server: Any) -> None:
    """What is asked for at the same time is two commands in one trip; another time to live makes a third."""
    async with _tier(redis_url) as (tier, _):
        values = _storing([ADA, BOB], await tier.look([ADA, BOB], KEEP_MS))
        assert await tier.store(values) == [True, True]
        server.config_resetstat()
        async with anyio.create_task_group() as callers:
            callers.start_soon(tier.look, _users(3), KEEP_MS)
            callers.start_soon(tier.store, values)
            callers.start_soon(tier.look, _users(5)[3:], 2 * KEEP_MS)
        assert tier.opened.current.lane.trips == 3
        assert _commands(server) == 3
        assert [_value(look) for look in await tier.look([ADA, BOB], KEEP_MS)] == [ADA[1], BOB[1]]


async def test_each_value_of_a_batch_is_compared_for_itself(redis_url: str) -> None:
    """One who was invalidated meanwhile is told so; the others of the same command are kept."""
    users = _users(150)
    async with _tier(redis_url) as (tier, _):
        values = _storing(users, await tier.look(users, KEEP_MS))
        outlast_marks(redis_url)
        await tier.invalidate(users[7][1], KEEP_MS)
        assert await tier.store(values) == [number != 7 for number in range(150)]
        looks = await tier.look(users, KEEP_MS)
        assert [_value(look) for look in looks] == [None if number == 7 else key[1] for number, key in enumerate(users)]
        assert [look.moved_ago < 60 for look in looks if look is not None] == [number == 7 for number in range(150)]
        assert looks[0] is not None
        assert looks[0].moved_ago == math.inf


async def test_large_values_travel_in_commands_of_their_own(redis_url: str, server: Any) -> None:
    """So many bytes that one command would hold Redis up are several, and all are kept."""
    users = _users(4)
    async with _tier(redis_url) as (tier, _):
        looks = await tier.look(users, KEEP_MS)
        values = _storing(users, looks)
        large = [Storing(v.key, v.fence, Stored("x" * (MAX_BYTES // 2), "db", 900.0), KEEP_MS) for v in values]
        kept: list[bool | None] = []

        async def store(value: Storing[str]) -> None:
            kept.extend(await tier.store([value]))

        await store(values[0])
        server.config_resetstat()
        async with anyio.create_task_group() as callers:
            for value in large:
                callers.start_soon(store, value)
        assert kept == [True] * 5
        assert _commands(server) == 4


@pytest.mark.every_loop
async def test_cancelled_callers_change_nothing_for_the_rest_of_their_batch(own: Valkey) -> None:
    """Half of those in one command go away while it is under way; the rest are answered by it, and it is no fault."""
    users = _users(60)
    with TcpProxy.start("127.0.0.1", own.port) as proxy:
        async with _tier(f"redis://127.0.0.1:{proxy.port}/0") as (tier, counters):
            await _fill(tier, users)
            trips = tier.opened.current.lane.trips
            proxy.delay(0.05)
            found: dict[int, str | None] = {}

            async def look(number: int) -> None:
                found[number] = _value(await look_one(tier, users[number], KEEP_MS))

            async with anyio.create_task_group() as staying, anyio.create_task_group() as leaving:
                for number in range(60):
                    (staying if number % 2 else leaving).start_soon(look, number)
                await eventually_async(lambda: tier.opened.current.lane.trips > trips)
                leaving.cancel_scope.cancel()
            assert found == {number: users[number][1] for number in range(1, 60, 2)}
            assert tier.opened.current.lane.trips == trips + 1
            assert (counters.get("busy", "redis"), counters.get("fault", "redis")) == (0, 0)


async def test_a_hung_server_is_one_fault_for_each_command_whatever_the_number_of_users(own: Valkey) -> None:
    """Three hundred who wait for it are two faults: of the one that went alone, and of the trip behind it."""
    async with _tier(own.url, replace(PATIENT, timeout=0.3)) as (tier, counters):
        await _answers(tier)
        before = counters.get("fault", "redis")
        own.pause()
        assert await _all(tier, _users(300)) == [None] * 300
        assert counters.get("fault", "redis") == before + 2
        assert tier.is_up()
        assert await tier.look(_users(300), KEEP_MS) == [None] * 300
        assert counters.get("fault", "redis") == before + 3
        assert tier.is_up() is False
        own.resume()


async def test_whoever_waits_behind_the_last_fault_is_not_sent_after_it(own: Valkey) -> None:
    """When the breaker opens, those in the line are answered with it; they do not wait for one more timeout."""
    options = replace(PATIENT, timeout=0.3, pool_wait=60, fault_threshold=1, probe_every=0.05)
    async with _tier(own.url, options) as (tier, counters):
        await _answers(tier)
        trips, faults = tier.opened.current.lane.trips, counters.get("fault", "redis")
        own.pause()
        async with anyio.create_task_group() as callers:
            callers.start_soon(tier.look, _users(2), KEEP_MS)
            await eventually_async(lambda: tier.opened.current.lane.trips == trips + 1)
            assert await tier.look(_users(2), KEEP_MS) == [None, None]
        assert (tier.opened.current.lane.trips, counters.get("fault", "redis")) == (trips + 1, faults + 1)
        assert counters.get("busy", "redis") == 0
        own.resume()


async def test_while_redis_is_down_nobody_waits_and_nothing_is_sent(own: Valkey) -> None:
    """With the breaker open looks and stores return in the same turn of the event loop."""
    async with _tier(own.url) as (patient, _):
        found = await look_one(patient, ADA, KEEP_MS)
    assert found is not None
    async with _tier(own.url, replace(PATIENT, timeout=0.05, probe_every=60)) as (tier, counters):
        own.pause()
        while tier.is_up():
            await look_one(tier, ADA, KEEP_MS)
        faults = counters.get("fault", "redis")
        with anyio.move_on_after(0) as scope:
            assert await tier.look(_users(300), KEEP_MS) == [None] * 300
            assert await tier.store([Storing(ADA, found.fence, Stored("v", "db", 900.0), KEEP_MS)]) == [None]
        assert not scope.cancelled_caught
        assert counters.get("fault", "redis") == faults
        own.resume()


async def test_waiting_for_the_lane_is_bounded_and_no_fault(own: Valkey) -> None:
    """Behind a slow command nobody waits longer than for a connection: they are busy, and the breaker is not told."""
    async with _tier(own.url, replace(PATIENT, timeout=60.0, pool_wait=0.01)) as (tier, counters):
        await _fill(tier, _users(4))
        own.pause()
        answers: list[list[str | None]] = []

        async def look(keys: Sequence[Key]) -> None:
            answers.append([_value(each) for each in await tier.look(keys, KEEP_MS)])

        async with anyio.create_task_group() as callers:
            trips = tier.opened.current.lane.trips
            callers.start_soon(look, _users(2))
            await eventually_async(lambda: tier.opened.current.lane.trips > trips)
            callers.start_soon(look, _users(4)[2:])
            await eventually_async(lambda: answers == [[None, None]])
            own.resume()
        assert answers == [[None, None], ["user0@example.org", "user1@example.org"]]
        assert (counters.get("busy", "redis"), counters.get("fault", "redis")) == (2, 0)


@pytest.mark.parametrize("many", [1, 2])
async def test_timeouts_and_retries_of_the_url_are_bounded_by_ours(own: Valkey, many: int) -> None:
    """What the URL says beats what the driver is told; a hung server is not waited for all the same."""
    url = f"{own.url}?socket_timeout=60&socket_connect_timeout=60&timeout=60&retry_on_timeout=true"
    async with _tier(url, replace(PATIENT, timeout=0.1)) as (tier, counters):
        await _answers(tier, many)
        faults = counters.get("fault", "redis")
        own.pause()
        with anyio.fail_after(30):
            assert await tier.look(_users(many), KEEP_MS) == [None] * many
        own.resume()
        assert counters.get("fault", "redis") == faults + 1


@pytest.mark.every_loop
@pytest.mark.parametrize("many", [1, 2, 150])
async def test_a_lost_connection_is_made_again(own: Valkey, many: int) -> None:
    """A connection reset while idle costs no answer, whichever of the two ways it is for."""
    with TcpProxy.start("127.0.0.1", own.port) as proxy:
        async with _tier(f"redis://127.0.0.1:{proxy.port}/0") as (tier, counters):
            await _fill(tier, _users(many))
            for _ in range(3):
                proxy.drop()
                looks = await tier.look(_users(many), KEEP_MS)
                assert [_value(look) for look in looks] == [key[1] for key in _users(many)]
            assert counters.get("fault", "redis") == 0


@pytest.mark.every_loop
@pytest.mark.parametrize("cut_after", [1, 300, 5000, 20_000])
async def test_a_reply_cut_in_the_middle_of_a_trip_is_nobody_s(own: Valkey, cut_after: int) -> None:
    """What was read of it is given to nobody; the next trip is on a new connection and right for everyone."""
    users = _users(250)
    options = replace(PATIENT, fault_threshold=100)
    with TcpProxy.start("127.0.0.1", own.port) as proxy:
        async with _tier(f"redis://127.0.0.1:{proxy.port}/0", options) as (tier, counters):
            await _fill(tier, users)
            proxy.drop()
            proxy.cut(cut_after)
            for _ in range(3):
                for key, look in zip(users, await tier.look(users, KEEP_MS), strict=True):
                    assert _value(look) in (None, key[1])
            proxy.pass_through()
            proxy.drop()
            looks = await tier.look(users, KEEP_MS)
            assert [_value(look) for look in looks] == [key[1] for key in users]
            assert counters.get("fault", "redis") >= 3
            assert counters.get("rejected", "redis") == 0


async def test_after_a_timeout_in_a_trip_the_late_reply_is_nobody_s(own: Valkey) -> None:
    """The answer that comes too late is on a connection nobody uses any more."""
    users = _users(4)
    async with _tier(own.url) as (patient, _):
        await _fill(patient, users)
    async with _tier(own.url, replace(PATIENT, timeout=0.1, fault_threshold=100)) as (tier, counters):
        await _answers(tier)
        faults = counters.get("fault", "redis")
        own.pause()
        assert await tier.look(users[:2], KEEP_MS) == [None, None]
        assert counters.get("fault", "redis") == faults + 1
        own.resume()
        await anyio.sleep(0.1)

        async def are_found() -> bool:
            values = [_value(look) for look in await tier.look(users[2:], KEEP_MS)]
            assert values in ([None, None], ["user2@example.org", "user3@example.org"])
            return None not in values

        await eventually_async(are_found)


async def test_scripts_that_were_flushed_are_sent_again_with_the_trip(own: Valkey) -> None:
    """SCRIPT FLUSH and a failover cost one more trip and no answer."""
    with redis.Redis.from_url(own.url) as direct:
        async with _tier(own.url) as (tier, counters):
            for number in range(3):
                direct.script_flush()
                await _fill(tier, _users(250))
                direct.script_flush()
                await tier.invalidate(None if number else ADA[1], KEEP_MS)
            assert counters.get("fault", "redis") == 0


async def test_one_command_of_a_trip_that_fails_leaves_the_others_their_answers(own: Valkey) -> None:
    """Out of memory a look that has to write fails, one that finds everything does not; that is one fault."""
    known, unknown = _users(100), [("", f"other{number}") for number in range(100)]
    with redis.Redis.from_url(own.url) as direct:
        async with _tier(own.url) as (tier, counters):
            await _fill(tier, known)
            direct.config_set("maxmemory", "1")
            looks = await tier.look([*unknown, *known], KEEP_MS)
            assert looks[:100] == [None] * 100
            assert [_value(look) for look in looks[100:]] == [key[1] for key in known]
            assert counters.get("fault", "redis") == 1


@pytest.mark.every_loop
async def test_a_connection_that_was_not_admitted_is_not_used(redis_url: str) -> None:
    """Whatever went wrong while the server was looked at, the next command looks at it again."""
    asked = 0

    async def admit(_: Send) -> None:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise ValueError("no")

    client = connect(Secret(redis_url), RedisOptions(), admit)
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            await client.ping()
    assert await client.ping()
    assert await client.ping()
    assert asked == 3
    await client.aclose()


async def test_the_connection_that_is_shared_is_one_whatever_the_url_says() -> None:
    """A second one would let a trip and a look at the server pass each other."""

    async def admit(_: Send) -> None: ...

    url = Secret("redis://127.0.0.1:1/0?max_connections=5")
    assert connect(url, RedisOptions(), admit, alone=True).connection_pool.max_connections == 1
    assert connect(url, RedisOptions(), admit).connection_pool.max_connections == 5


def _look_of(key: Key, tier: RedisTier[str]) -> tuple[bytes | str | int, ...]:
    keys = KeySpace("test", tier.codec.shape).of(key)
    return ("EVAL", LOOK.text, len(keys), *keys, b"the owner's", KEEP_MS)


@pytest.mark.parametrize("alone", [True, False])
async def test_the_reply_to_another_s_look_is_nobody_s(redis_url: str, alone: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """On a ready client with redis-py's own defaults a connection may be out of step; that is a fault, and a miss."""
    async with Redis.from_url(redis_url, max_connections=1) as client, _tier(client) as (tier, counters):
        await _fill(tier, [ADA, BOB])
        pool: Any = client.connection_pool
        connection = await pool.get_connection()
        await connection.send_command(*_look_of(BOB, tier))
        await pool.release(connection)
        await eventually_async(connection.can_read)
        looks = [await look_one(tier, ADA, KEEP_MS)] if alone else await tier.look([ADA, BOB], KEEP_MS)
        # Whether redis-py sees the left-over bytes depends on its version and its settings.
        if counters.get("fault", "redis"):
            assert looks == [None] * len(looks)
        else:
            assert _value(looks[0]) == ADA[1]


@pytest.mark.every_loop
@pytest.mark.parametrize("alone", [True, False])
async def test_a_connection_of_ours_that_is_out_of_step_is_thrown_away(redis_url: str, alone: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Even where the left-over reply comes only after the connection was taken, the next look is right again."""
    async with _tier(redis_url) as (tier, counters):
        await _fill(tier, [ADA, BOB])
        await look_one(tier, ADA, KEEP_MS)
        session: Any = tier.opened.current
        way = session.pool if alone else session._own
        (connection,) = way.client.connection_pool._available_connections
        original = connection.send_packed_command

        async def one_too_many(*arguments: Any, **options: Any) -> None:
            connection.send_packed_command = original
            await connection.send_command(*_look_of(BOB, tier))
            await original(*arguments, **options)

        connection.send_packed_command = one_too_many
        keys = [ADA] if alone else [ADA, BOB]
        assert await tier.look(keys, KEEP_MS) == [None] * len(keys)
        assert not connection.is_connected
        assert [_value(look) for look in await tier.look(keys, KEEP_MS)] == [key[1] for key in keys]
        assert counters.get("fault", "redis") == 1


@pytest.mark.parametrize("size", [1, 20])
async def test_a_ready_client_gathers_over_a_connection_of_its_pool(redis_url: str, server: Any, size: int) -> None:
    """It is asked for one connection at a time by those who gather, and for no more than it has by all together."""
    users = _users(300)
    pool = ConnectionPool.from_url(redis_url, max_connections=size)
    async with Redis.from_pool(pool) as client, _tier(client) as (tier, counters):
        before = len(server.client_list())
        await _fill(tier, users)
        assert [_value(look) for look in await _all(tier, users)] == [key[1] for key in users]
        assert len(server.client_list()) <= before + min(size, 2)
        assert (counters.get("busy", "redis"), counters.get("fault", "redis")) == (0, 0)


async def test_a_ready_client_whose_pool_is_taken_is_busy_for_all_who_gather(redis_url: str) -> None:
    """Connections its owner holds are no fault of Redis, however many users are asked for."""
    pool: Any = ConnectionPool.from_url(redis_url, max_connections=1)
    async with Redis.from_pool(pool) as client, _tier(client) as (tier, counters):
        held = await pool.get_connection()
        assert await tier.look([ADA, BOB], KEEP_MS) == [None, None]
        assert (counters.get("busy", "redis"), counters.get("fault", "redis")) == (2, 0)
        await pool.release(held)
        assert None not in await tier.look([ADA, BOB], KEEP_MS)


async def test_an_invalidation_that_is_sent_twice_puts_nothing_back(redis_url: str) -> None:
    """A client that repeats a command after its connection was lost does not restore what was replaced meanwhile."""
    tier = RedisTier(redis_url, codec=Codec(str), namespace="test", counters=Counters(), token=lambda: b"the same")
    seen: set[Fence] = set()
    async with tier.opened:
        await look_one(tier, ADA, KEEP_MS)
        for name in (ADA[1], ADA[1], None, ADA[1], None):
            await tier.invalidate(name, KEEP_MS)
            found = await look_one(tier, ADA, KEEP_MS)
            assert found is not None
            seen.add(found.fence)
    assert len(seen) == 5


@pytest.mark.every_loop
async def test_closing_answers_whoever_still_waits(own: Valkey) -> None:
    """Nobody is left waiting for a trip that will not be made."""
    with TcpProxy.start("127.0.0.1", own.port) as proxy:
        tier = redis_tier(f"redis://127.0.0.1:{proxy.port}/0")
        answers: list[object] = []

        async def look(keys: Sequence[Key]) -> None:
            answers.extend(await tier.look(keys, KEEP_MS))

        async with anyio.create_task_group() as callers, tier.opened as session:
            await tier.look([ADA, BOB], KEEP_MS)
            proxy.black_hole()
            callers.start_soon(look, _users(2))
            await eventually_async(lambda: session.lane.trips == 2)
            callers.start_soon(look, _users(5)[2:])
            await anyio.lowlevel.checkpoint()
        assert answers == [None] * 5


async def test_an_invalidation_of_what_is_not_redis_fails_loud(own: Valkey) -> None:
    """What was not answered as it was told is not taken for done."""
    async with _tier(own.url) as (tier, _):
        await look_one(tier, ADA, KEEP_MS)
        own.kill()
        for name in (ADA[1], None):
            with pytest.raises(SharedTierFailed, match="did not take the invalidation"):
                await tier.invalidate(name, KEEP_MS)
