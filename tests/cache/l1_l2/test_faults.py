"""Whether Redis may fail in every way without a request failing, and comes back by itself."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import anyio
import pytest
import redis

from ctxmiddleware.cache.redis.options import RedisOptions
from ctxmiddleware.cache.shared import SharedTierFailed
from examples.servers import TcpProxy, Valkey
from examples.servers.ports import free_port
from tests.backends import asyncio_only
from tests.cache.l1_l2.garbage import babbling
from tests.cache.rig import ADA, BOB, PATIENT, Database, Instance, instance, look_one
from tests.waiting import eventually_async

pytestmark = [pytest.mark.anyio, asyncio_only]
# A server that is gone refuses at once, one that answers anything else than it was asked is at fault at once.
QUICK = replace(PATIENT, probe_every=0.02)
# Longer than a whole test takes: no look-up may wait for it.
ENDLESS = replace(QUICK, timeout=60.0)
# For a server that hangs: what it answers before and after may be late as well.
HASTY = replace(QUICK, timeout=0.3)
KEEP_MS = 1_320_000


@pytest.fixture
def own() -> Iterator[Valkey]:
    """A Valkey that this test may stop, fill and kill."""
    with Valkey.start() as server:
        yield server


async def _misses(one: Instance, count: int, *, first: int = 0) -> None:
    """Look up so many users that are not known yet."""
    with anyio.fail_after(50):
        for number in range(first, first + count):
            assert await one.value(("", f"user{number}@example.org")) == f"user{number}@example.org 1"


async def _answers(one: Instance) -> bool:
    """Return whether Redis has just answered."""
    assert one.redis is not None
    return await look_one(one.redis, ("", "another@example.org"), KEEP_MS) is not None


def _pool(one: Instance) -> Any:
    assert one.redis is not None
    client: Any = one.redis.opened.current.client
    return client.connection_pool


def _is_up(one: Instance) -> bool:
    assert one.redis is not None
    return bool(one.redis.is_up())


def _faults(one: Instance) -> int:
    return one.counters.get("fault", "redis")


async def test_a_hung_server_costs_latency_once_and_comes_back(own: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    """Three look-ups wait for one timeout each, the rest for nothing; a probe of the background finds it well again."""
    caplog.set_level(logging.INFO, "ctxmiddleware")
    async with instance(url=own.url, deaf=True) as patient:
        await patient.get()
    async with instance(url=own.url, options=HASTY, deaf=True) as one:
        await one.get()
        await eventually_async(lambda: _answers(one))
        before = _faults(one)
        own.pause()
        for number in range(3):
            assert _is_up(one)
            await _misses(one, 1, first=number)
            assert _faults(one) == before + number + 1
        assert not _is_up(one)
        # Each wait would be one more.
        await _misses(one, 50, first=10)
        assert _faults(one) == before + 3
        assert (await one.get()).origin == "memory"
        own.resume()
        await eventually_async(lambda: _is_up(one))

        async def is_found() -> bool:
            one.clock.advance(5)
            return (await one.get()).origin == "redis"

        await eventually_async(is_found)
    levels = [record.levelname for record in caplog.records if record.name == "ctxmiddleware.redis"]
    assert levels == ["ERROR", "ERROR"]
    assert "@" not in caplog.text


async def test_hung_with_the_timeouts_as_shipped_it_is_bounded_too(own: Valkey) -> None:
    """A look-up over a pooled connection and over a new one, and an invalidation, end by themselves."""
    async with instance(url=own.url, options=RedisOptions(), deaf=True) as one:
        await eventually_async(lambda: _answers(one))
        before = _faults(one)
        own.pause()
        await _misses(one, 2)
        assert _faults(one) == before + 2
        with anyio.fail_after(50), pytest.raises(SharedTierFailed):
            await one.cache.invalidate(ADA[1])
        own.resume()


async def test_killed_and_restarted_it_is_used_again(own: Valkey) -> None:
    """A server that is gone is felt at once; when it is back, empty, everything is stored anew."""
    async with instance(url=own.url, options=ENDLESS) as one:
        await one.get()
        own.kill()
        await _misses(one, 5)
        assert not _is_up(one)
        own.restart()
        await eventually_async(lambda: _is_up(one))
        await one.get(BOB)
        async with instance(url=own.url) as another:
            assert (await another.get(BOB)).origin == "redis"


async def test_a_refused_port_and_an_unknown_host_do_not_stop_the_start() -> None:
    """A broken backend is no reason not to serve."""
    for url in (f"redis://127.0.0.1:{free_port()}/0", "unix:///nowhere/at/all.sock"):
        async with instance(url=url, options=ENDLESS) as one:
            await _misses(one, 10)
            assert (await one.get()).origin == "db"
            # The channel at the start, and the commands after which it is asked no more.
            assert _faults(one) == 1 + 3


@pytest.mark.parametrize("cut_after", [0, 1, 5, 20, 60])
async def test_a_reply_cut_in_the_middle_is_a_miss(own: Valkey, cut_after: int) -> None:
    """Half a reply is no reply: the source answers, and nothing of it is taken for another's."""
    with TcpProxy.start("127.0.0.1", own.port) as proxy:
        async with instance(url=f"redis://127.0.0.1:{proxy.port}/0", options=QUICK) as one:
            await _misses(one, 3)
            proxy.cut(cut_after)
            proxy.drop()
            await _misses(one, 10, first=3)
            proxy.pass_through()
            proxy.drop()
            await eventually_async(lambda: _is_up(one))
            await _misses(one, 3, first=20)
    assert one.counters.get("rejected", "redis") == 0


@pytest.mark.parametrize("noticed", [False, True])
async def test_a_dropped_connection_is_tried_again(own: Valkey, noticed: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """A connection reset while idle costs nothing but another one, whether the event loop knows of it yet or not."""
    with TcpProxy.start("127.0.0.1", own.port) as proxy:
        async with instance(url=f"redis://127.0.0.1:{proxy.port}/0", deaf=True) as one:
            assert one.redis is not None
            pool = _pool(one)
            for number in range(3):
                await _misses(one, 1, first=number)
                [idle] = pool._available_connections
                proxy.drop()
                if noticed:
                    await eventually_async(idle._writer.is_closing)
                    await anyio.lowlevel.checkpoint()
            await _misses(one, 1, first=3)
            assert (_faults(one), proxy.accepted) == (0, 4)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x00\xff" * 50,
        b"+OK\r\n",
        b"+OK\r\n" * 40,
        b":1\r\n",
        b"$-1\r\n",
        b"$5\r\nab",
        b"*4\r\n:1\r\n:2\r\n:3\r\n:4\r\n",
        b"*4\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n",
        b"*2\r\n$1\r\na\r\n$1\r\nb\r\n",
        b"*1000\r\n",
        b"$100000\r\n",
        b"%1\r\n+a\r\n+b\r\n",
        b"-ERR what\r\n",
        b"-NOSCRIPT no\r\n",
        b"-LOADING wait\r\n",
        b"-NOAUTH no\r\n",
        b"-MOVED 1 127.0.0.1:1\r\n",
        b"-\r\n",
    ],
    ids=lambda answer: repr(answer[:16]),
)
async def test_what_is_not_redis_at_all_is_a_fault_and_never_an_exception(answer: bytes) -> None:
    """Whatever answers at that port, requests are served by the source and an invalidation fails loud."""
    with babbling(answer) as server:
        async with instance(url=server.url, options=RedisOptions(timeout=0.02, probe_every=0.02)) as one:
            await _misses(one, 6)
            assert not _is_up(one)
            if answer != b"+OK\r\n":  # all that Redis itself would say to it
                with pytest.raises(SharedTierFailed):
                    await one.cache.invalidate(ADA[1])
            with pytest.raises(SharedTierFailed):
                await one.cache.invalidate(None)


async def test_a_read_only_replica_is_down_until_it_takes_writes(own: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    """It answers a PING, and is still of no use: it is left alone, said once, and used again when it is promoted."""
    with redis.Redis.from_url(own.url) as server:
        server.replicaof("127.0.0.1", str(free_port()))
        async with instance(url=own.url, options=QUICK) as one:
            await _misses(one, 6)
            await anyio.sleep(0.1)
            assert not _is_up(one)
            with pytest.raises(SharedTierFailed):
                await one.cache.invalidate(ADA[1])
            server.replicaof("NO", "ONE")
            await eventually_async(lambda: _is_up(one))
            await one.cache.invalidate(ADA[1])
    assert [record.levelname for record in caplog.records if "does not answer" in record.message] == ["ERROR"]


async def test_a_full_redis_is_down_until_there_is_room(own: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    """Out of memory it answers a PING as well; nothing is asked of it until it takes a write again."""
    with redis.Redis.from_url(own.url) as server:
        async with instance(url=own.url, options=QUICK) as one:
            await one.get()
            server.config_set("maxmemory", "1")
            await _misses(one, 6)
            await anyio.sleep(0.1)
            assert not _is_up(one)
            server.config_set("maxmemory", "0")
            await eventually_async(lambda: _is_up(one))
            await one.get(BOB)
    assert [record.levelname for record in caplog.records if "does not answer" in record.message] == ["ERROR"]
    assert await _origin_elsewhere(own) == "redis"


async def _origin_elsewhere(own: Valkey) -> str:
    async with instance(url=own.url) as another:
        return (await another.get(BOB)).origin


async def test_a_full_redis_that_evicts_only_forgets(own: Valkey) -> None:
    """Evicted generations and values are misses; the latest is always what the source says."""
    database = Database()
    with redis.Redis.from_url(own.url) as server:
        async with instance(database, url=own.url) as one:
            # Enough to evict for what an invalidation needs, whatever connections hold.
            await _misses(one, 1500)
            server.config_set("maxmemory-policy", "allkeys-random")
            server.config_set("maxmemory", str(server.info("memory")["used_memory"] - 50_000))
            for number in range(0, 300, 3):
                name = f"user{number}@example.org"
                database.rows[name] = "new"
                await one.cache.invalidate(name)
            one.clock.advance(5)
            for number in range(300):
                expected = "new" if number % 3 == 0 else f"user{number}@example.org 1"
                assert await one.value(("", f"user{number}@example.org")) == expected
        assert server.info("stats")["evicted_keys"] > 0


async def test_scripts_that_were_flushed_are_sent_again(own: Valkey) -> None:
    """SCRIPT FLUSH and a fresh server cost one more command and no fault."""
    with redis.Redis.from_url(own.url) as server:
        async with instance(url=own.url) as one:
            for number in range(3):
                server.script_flush()
                await _misses(one, 1, first=number)
            assert (_faults(one), one.counters.get("miss", "redis")) == (0, 3)


async def test_a_short_pause_of_the_server_is_waited_for(own: Valkey) -> None:
    """A server that stops for less than the timeout is not at fault."""
    with redis.Redis.from_url(own.url) as server:
        async with instance(url=own.url) as one:
            await one.get()
            server.client_pause(200)
            await _misses(one, 1)
            assert (_faults(one), one.counters.get("miss", "redis")) == (0, 2)


async def test_a_password_that_is_asked_for_is_a_fault_and_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A wrong password makes Redis useless, not the application, and no log shows it."""
    with Valkey.start(args=["--requirepass", "right-one"]) as guarded:
        url = f"redis://:wrong-one@127.0.0.1:{guarded.port}/0"
        async with instance(url=url, options=QUICK) as one:
            await _misses(one, 5)
            assert not _is_up(one)
    assert "wrong-one" not in caplog.text
    assert "does not answer" in caplog.text


async def test_with_every_place_taken_a_look_up_travels_with_the_gathered_ones(own: Valkey) -> None:
    """That no connection of the pool is free is neither a fault nor a miss."""
    options = replace(PATIENT, pool_size=2, pool_wait=0.01)
    async with instance(url=own.url, options=options) as one:
        await one.get()
        assert one.redis is not None
        places = one.redis._sessions.current.places
        for borrower in range(2):
            await places.acquire_on_behalf_of(borrower)
        assert (await one.get(BOB)).origin == "db"
        assert (one.counters.get("busy", "redis"), _faults(one)) == (0, 0)
        assert one.counters.get("miss", "redis") == 2
        assert _is_up(one)
        for borrower in range(2):
            places.release_on_behalf_of(borrower)


async def test_a_crowd_before_a_slow_server_travels_together(own: Valkey) -> None:
    """Forty look-ups of one moment wait for two connections no longer than one of them does, and none is a fault."""
    options = replace(PATIENT, pool_size=2, pool_wait=0.01)
    with TcpProxy.start("127.0.0.1", own.port) as proxy:
        async with instance(url=f"redis://127.0.0.1:{proxy.port}/0", options=options) as one:
            await one.get()
            proxy.delay(0.03)
            async with anyio.create_task_group() as callers:
                for number in range(40):
                    callers.start_soon(one.get, ("", f"user{number}"))
            assert (one.counters.get("busy", "redis"), _faults(one)) == (0, 0)
            assert _is_up(one)


async def test_an_invalidation_that_finds_no_connection_fails_loud(own: Valkey) -> None:
    """It waits longer than a look-up does, but not without end, and never pretends."""
    options = replace(PATIENT, pool_size=1, invalidation_wait=0.02)
    async with instance(url=own.url, options=options) as one:
        await one.get()
        await one.get(BOB)
        assert one.redis is not None
        places = one.redis._sessions.current.places
        await places.acquire_on_behalf_of("another")
        with pytest.raises(SharedTierFailed, match=r"was free for 0\.02 s"):
            await one.cache.invalidate(ADA[1])
        places.release_on_behalf_of("another")
        assert len(one.cache.memory) == 1


async def test_a_pool_smaller_than_told_is_not_a_fault(own: Valkey) -> None:
    """A URL may name its own pool size; that is how many are asked at a time."""
    url = f"{own.url}?max_connections=1"
    async with instance(url=url) as one, anyio.create_task_group() as callers:
        for number in range(100):
            callers.start_soon(one.get, ("", f"user{number}"))
    assert (_faults(one), len(one.database.calls)) == (0, 100)


async def test_cancelled_in_the_middle_of_a_reply_nobody_gets_another_s(own: Valkey) -> None:
    """Connections whose reply was not awaited are not used for the next user, and none is lost to the pool."""
    with TcpProxy.start("127.0.0.1", own.port) as proxy:
        url, options = f"redis://127.0.0.1:{proxy.port}/0", replace(PATIENT, pool_size=3)
        async with instance(url=url, options=options) as one:
            tier = one.redis
            assert tier is not None
            users = [("", f"user{number}") for number in range(40)]
            for key in users:
                await one.get(key)
            proxy.delay(0.004)

            async def look(number: int, wait: float) -> None:
                with anyio.move_on_after(wait):
                    found = await look_one(tier, users[number], KEEP_MS)
                    assert found is not None
                    assert found.stored is not None
                    assert found.stored.value == f"user{number} 1"

            async with anyio.create_task_group() as callers:
                for number in range(40):
                    callers.start_soon(look, number, 0.002 + number * 0.001)
            proxy.pass_through()
            async with anyio.create_task_group() as callers:
                for number in range(40):
                    callers.start_soon(look, number, 30)
            assert one.counters.get("rejected", "redis") == 0
            session = tier.opened.current
            assert session.places.borrowed_tokens == 0
            assert _pool(one)._in_use_connections == set()


async def test_a_dirty_connection_is_thrown_away(own: Valkey) -> None:
    """Left-over bytes of somebody else's reply are noticed before the connection is used again."""
    async with instance(url=own.url) as one:
        await one.get()
        tier = one.redis
        assert tier is not None
        pool = _pool(one)
        connection = await pool.get_connection()
        await connection.send_command("GET", "another's")
        await pool.release(connection)
        await eventually_async(connection.can_read)
        one.clock.advance(5)
        assert (await one.get()).origin == "redis"
        assert (_faults(one), one.counters.get("rejected", "redis")) == (0, 0)


async def test_closing_leaves_no_connection_behind(own: Valkey) -> None:
    """All connections of a busy instance are gone from the server once it is closed."""
    with redis.Redis.from_url(own.url) as server:
        before = len(server.client_list())
        async with instance(url=own.url) as one:
            async with anyio.create_task_group() as callers:
                for number in range(50):
                    callers.start_soon(one.get, ("", f"user{number}"))
            assert len(server.client_list()) > before
        await eventually_async(lambda: len(server.client_list()) == before)


async def test_closing_does_not_wait_for_a_hung_server(own: Valkey) -> None:
    """A server that answers nothing cannot hold up the end of an application."""
    with anyio.fail_after(60):
        async with instance(url=own.url, options=replace(HASTY, timeout=0.1)) as one:
            await one.get()
            own.pause()
            await _misses(one, 4)
    own.resume()
