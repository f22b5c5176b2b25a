"""Whether a failover by Sentinel costs nobody a request, and brings nothing back that was invalidated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import pytest
import redis
from redis.asyncio import Sentinel

from ctxmiddleware.cache.redis.keys import KeySpace
from ctxmiddleware.cache.redis.servers.connection import Send, Server, connect
from ctxmiddleware.cache.redis.servers.driver import connection_for, leads_elsewhere, look_at
from ctxmiddleware.cache.redis.servers.sentinel import Sentinels, State, named
from ctxmiddleware.cache.redis.servers.target import target_of
from ctxmiddleware.cache.shared import SharedTierFailed
from ctxmiddleware.secret import Secret
from examples.servers import SentinelGroup, Valkey
from tests.backends import asyncio_only
from tests.cache.rig import ADA, PATIENT, STEADY, Database, instance, look_one, redis_tier
from tests.matrix import in_full
from tests.waiting import eventually_async

from .traffic import FAILED_OVER, USERS, Traffic, is_heard, origins

pytestmark = [pytest.mark.anyio, asyncio_only]
KEEP_MS = 60_000
KEYS = KeySpace("test", b"")
# A server that is killed refuses at once; leases it had, or of loads that were overtaken, end by themselves.
QUICK = replace(PATIENT, probe_every=0.05, lease=0.75)


@pytest.fixture
def group() -> Iterator[SentinelGroup]:
    """A master and a replica of this test's own."""
    with SentinelGroup.start() as group:
        yield group


@pytest.fixture(scope="module")
def unharmed() -> Iterator[SentinelGroup]:
    """A master and a replica for tests that fail nothing over."""
    with SentinelGroup.start() as group:
        yield group


async def _admit(send: Send) -> None:
    assert await send([("PING",)])


def _client(group: SentinelGroup) -> Server:
    target = target_of(Secret(group.url))
    return connect(target.url, QUICK, _admit, locate=Sentinels(target, QUICK).master)


async def _failed_over(group: SentinelGroup) -> None:
    await eventually_async(lambda: group.agree_on(group.replica), timeout=FAILED_OVER)


def _cut_replication(group: SentinelGroup) -> None:
    """Let the replica hear nothing any more of what its master is told."""
    with redis.Redis.from_url(group.replica.url) as client:
        client.config_set("masterauth", "a password nobody asks for")
    with redis.Redis.from_url(group.master.url) as client:
        client.client_kill_filter(_type="replica")
        assert client.wait(1, 1) == 0


@pytest.mark.parametrize("client", ["url", in_full("ready")])
async def test_a_failover_fails_no_request_and_brings_nothing_back(group: SentinelGroup, client: str) -> None:
    """Meanwhile the source is asked; the promoted replica has missed the last invalidations, and undoes none."""
    database = Database(batch_size=100)
    places = [("127.0.0.1", each.port) for each in group.sentinels]
    sentinel = Sentinel(places, socket_timeout=10)  # type: ignore[no-untyped-call]  # as redis-py ships it
    target: Any = group.url if client == "url" else sentinel.master_for(SentinelGroup.SERVICE, socket_timeout=10)
    # By itself a ready client tries for seconds to reach a master that is gone.
    options = QUICK if client == "url" else replace(QUICK, timeout=1.0)
    async with instance(database, url=target, options=options) as one, anyio.create_task_group() as tasks:
        traffic = Traffic(one)
        tasks.start_soon(traffic.flow)
        assert origins(await traffic.more()) == {"redis"}
        _cut_replication(group)
        for key in USERS[:20]:
            database.rows[key[1]] = "new"
            await one.cache.invalidate(key[1])
        group.master.kill()
        expected = {key: "new" if key in USERS[:20] else f"{key[1]} 1" for key in USERS}
        assert all(value == expected[key] for key, value, _ in await traffic.more())
        await _failed_over(group)
        assert one.redis is not None
        await eventually_async(one.redis.is_up, timeout=FAILED_OVER)

        async def all_from_redis() -> bool:
            got = await traffic.more()
            assert all(value == expected[key] for key, value, _ in got)
            return origins(got) == {"redis"}

        await eventually_async(all_from_redis, timeout=FAILED_OVER)
        assert one.counters.get("renewed", "redis") == 1
        tasks.cancel_scope.cancel()
    if client == "ready":
        await target.aclose()
        await sentinel.aclose()


async def test_a_sentinel_that_hangs_is_not_waited_for_while_others_answer(unharmed: SentinelGroup) -> None:
    """One of three costs nothing of what a look-up may take; two cost a part of it, and the third is believed."""
    silent, last, _ = unharmed.sentinels
    silent.pause()
    tier = redis_tier(unharmed.url, options=replace(PATIENT, timeout=60.0))
    async with tier.opened:
        with anyio.fail_after(30):
            assert await look_one(tier, ADA, KEEP_MS) is not None
    last.pause()
    hasty = redis_tier(unharmed.url, options=replace(QUICK, timeout=0.5))
    async with hasty.opened:

        async def is_answered() -> bool:
            return await look_one(hasty, ADA, KEEP_MS) is not None

        # A look-up may take twice as long as the sentinels; a busy machine needs more than one.
        await eventually_async(is_answered)
    for each in (silent, last):
        each.resume()


async def test_with_no_sentinel_left_the_source_is_asked(group: SentinelGroup) -> None:
    """Connections that are open go on; new ones are not made, and no request fails."""
    async with instance(url=group.url, options=QUICK, deaf=True) as old:
        await old.get()
        for each in group.sentinels:
            each.kill()
        old.clock.advance(6)
        assert (await old.get()).origin == "redis"
        async with instance(url=group.url, options=QUICK) as new:
            for number in range(5):
                assert (await new.get(("", str(number)))).origin == "db"
            assert new.redis is not None
            assert new.redis.is_up() is False
            group.sentinels[2].restart()
            await eventually_async(new.redis.is_up)


async def test_a_service_nobody_knows_is_no_answer(unharmed: SentinelGroup) -> None:
    """What is misspelt in the URL is a fault of Redis to the log, and none to the request."""
    async with instance(url=unharmed.url.replace(SentinelGroup.SERVICE, "other")) as one:
        assert (await one.get()).origin == "db"
        assert one.counters.get("fault", "redis") >= 1


async def test_the_latest_failover_overrules_who_has_not_seen_it() -> None:
    """In whatever order they answer; one alone that takes the master for down is not believed, an agreement is."""
    former = State("127.0.0.1", 1, "master", 3)
    latest = State("127.0.0.1", 2, "master,s_down", 4)
    for states in ([former, latest], [latest, former]):
        assert named(states) == ("127.0.0.1", 2)
    with pytest.raises(ConnectionError, match="agree that the master is down"):
        named([former, latest, State("127.0.0.1", 2, "s_down,o_down,master", 4)])
    assert named([latest, State("127.0.0.1", 1, "s_down,o_down,master", 3)]) == ("127.0.0.1", 2)


@pytest.mark.parametrize("flags", ["s_down,o_down,master,failover_in_progress", "master,failover_in_progress"])
async def test_the_leader_of_a_failover_names_the_former_master_until_all_replicas_follow(flags: str) -> None:
    """Under the new epoch: the other sentinels name the new master meanwhile, and while none does it is down."""
    leader = State("127.0.0.1", 1, flags, 4)
    promoted = State("127.0.0.1", 2, "master", 4)
    before = State("127.0.0.1", 1, "s_down,o_down,master", 3)
    for states in ([leader, promoted, before], [before, promoted, leader]):
        assert named(states) == ("127.0.0.1", 2)
    with pytest.raises(ConnectionError, match="agree that the master is down"):
        named([before, State("127.0.0.1", 2, "o_down,master", 4), leader])
    if "o_down" in flags:
        with pytest.raises(ConnectionError, match="agree that the master is down"):
            named([leader, before])


async def _port(client: Server) -> int:
    return int((await client.info("server"))["tcp_port"])


async def test_a_connection_to_a_former_master_is_left_when_it_is_looked_at(group: SentinelGroup) -> None:
    """One that hung through the failover does not know that it is master no more; the sentinels do, if any is left."""
    client, other = _client(group), _client(group)
    listening: Any = await connection_for(client, "any")
    await listening.connect()
    assert not await leads_elsewhere(listening)
    assert await _port(client) == group.master.port
    group.master.pause()
    await _failed_over(group)
    group.master.resume()
    assert await _port(client) == group.master.port
    await look_at(client, _admit)
    assert await _port(client) == await _port(other) == group.replica.port
    assert await leads_elsewhere(listening)
    for sentinel in group.sentinels:
        sentinel.kill()
    assert not await leads_elsewhere(listening)
    await listening.disconnect()
    await client.aclose()
    await other.aclose()


async def test_a_connection_of_one_s_own_leads_to_whoever_is_master(group: SentinelGroup) -> None:
    """It asks the sentinels each time it connects, and looks at the server like any other."""
    client = _client(group)
    connection: Any = await connection_for(client, "any")
    for server in (group.master, group.replica):
        await connection.connect()
        assert connection.port == server.port
        await connection.disconnect()
        if server is group.master:
            await _kill(group, server)


async def _kill(group: SentinelGroup, server: Valkey) -> None:
    server.kill()
    await _failed_over(group)


async def test_after_a_failover_instances_hear_of_each_other_again(group: SentinelGroup) -> None:
    """By the new master, and what was in memory before it is asked for again: its last news may have been lost."""
    database = Database()
    async with (
        instance(database, url=group.url, options=QUICK) as one,
        instance(database, url=group.url, options=QUICK) as two,
    ):
        for each in (one, two):
            await eventually_async(partial(is_heard, each))
            await each.get()
        group.master.kill()
        await _failed_over(group)
        for each in (one, two):
            await eventually_async(partial(is_heard, each), timeout=FAILED_OVER)
            assert each.cache.peek(ADA) is None
            await each.get()
        database.rows[ADA[1]] = "new"
        _, reach = await one.cache.invalidate(ADA[1])
        assert (len(reach.confirmed), two.cache.peek(ADA)) == (1, None)


async def test_whoever_hears_the_channel_asks_the_sentinels_as_often_as_his_trust_is_proven(
    unharmed: SentinelGroup,
) -> None:
    """A former master that was cut off would go on proving it; however seldom connections are looked at otherwise."""
    policy, options = replace(STEADY, untrusted_ttl=1.0), replace(QUICK, check_every=600.0)
    async with instance(url=unharmed.url, policy=policy, options=options) as one:
        await eventually_async(partial(is_heard, one))
        with redis.Redis(port=unharmed.sentinels[0].port) as client:
            # Nothing is kept open to sentinels: whoever asks one connects.
            asked = _connections(client)
            await eventually_async(lambda: _connections(client) >= asked + 4)


def _connections(client: Any) -> int:
    return int(client.info("stats")["total_connections_received"])


async def test_with_a_replica_to_have_it_an_invalidation_is_done_once_it_has(
    group: SentinelGroup,
) -> None:
    """Where none has it in time it is in force all the same and fails loud, which says nothing against Redis."""
    # So long a master that has lost its replica is waited for: half of the timeout.
    options = replace(PATIENT, replicas=1, fault_threshold=1, timeout=2.0)
    async with instance(url=group.url, options=options) as one:
        await one.get()
        generations = {ADA[1]: KEYS.of(ADA).generation, None: KEYS.of(ADA).everyone}
        before = {}
        for name, generation in generations.items():
            await one.cache.invalidate(name)
            with redis.Redis.from_url(group.replica.url) as client:
                before[name] = client.get(generation)
        assert None not in before.values()
        _cut_replication(group)
        for name, generation in generations.items():
            with pytest.raises(SharedTierFailed, match=r"in force, and may be lost .* 0 of 1 replicas have it"):
                await one.cache.invalidate(name)
            with redis.Redis.from_url(group.master.url) as client:
                assert client.get(generation) not in (None, before[name])
        assert one.redis is not None
        assert one.redis.is_up()
        assert one.counters.get("fault", "redis") == 0
        assert (await one.get()).origin == "db"
