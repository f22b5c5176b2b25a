"""Whether a cluster is used as one server would be, and the loss of a node is felt by its share of the users only."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import pytest
from redis.asyncio import RedisCluster

from ctxmiddleware.cache.base import Key, Stored
from ctxmiddleware.cache.redis.keys import BUCKETS, KeySpace
from ctxmiddleware.cache.redis.options import RedisOptions
from ctxmiddleware.cache.redis.servers.cluster import Cluster
from ctxmiddleware.cache.redis.servers.connection import Admit, Command, Send, Server, connect
from ctxmiddleware.cache.redis.servers.driver import connection_for
from ctxmiddleware.cache.redis.servers.node import Reach
from ctxmiddleware.cache.redis.servers.slots import SLOTS, slot_of
from ctxmiddleware.cache.redis.servers.target import Place
from ctxmiddleware.cache.redis.tier import RedisTier
from ctxmiddleware.cache.shared import SharedTierFailed, Storing
from ctxmiddleware.secret import Secret
from ctxmiddleware.stats import Counters
from examples.servers import Valkey, ValkeyCluster
from tests.backends import asyncio_only
from tests.cache.rig import ADA, PATIENT, Database, instance, look_one, redis_tier, store_one
from tests.waiting import eventually_async

from .traffic import FAILED_OVER, USERS, Traffic, is_heard, origins

pytestmark = [pytest.mark.anyio, asyncio_only]
KEEP_MS = 60_000
SPACE = KeySpace("test", b"")
# A server that is killed refuses at once; leases it had, or of loads that were overtaken, end by themselves.
QUICK = replace(PATIENT, probe_every=0.05, lease=0.75)
MANY: list[Key] = [("", f"user{number}@example.org") for number in range(1000)]


@pytest.fixture
def cluster() -> Iterator[ValkeyCluster]:
    """A cluster of this test's own."""
    with ValkeyCluster.start() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def unharmed() -> Iterator[ValkeyCluster]:
    """A cluster for tests that leave its nodes and slots as they are."""
    with ValkeyCluster.start() as cluster:
        yield cluster


@contextlib.asynccontextmanager
async def _tier(target: Any, options: RedisOptions = PATIENT) -> AsyncIterator[tuple[RedisTier[str], Counters]]:
    counters = Counters()
    tier = redis_tier(target, counters=counters, options=options)
    async with tier.opened:
        yield tier, counters


def _slot(key: Key) -> int:
    return slot_of(SPACE.of(key).value)


def _at(cluster: ValkeyCluster, node: Valkey, users: list[Key] = USERS) -> list[Key]:
    """Return the users whose keys a master has."""
    return [key for key in users if cluster.owner(_slot(key)) is node]


async def _promoted(cluster: ValkeyCluster, number: int = 0) -> None:
    with cluster.of(cluster.replicas[number]) as client:
        await eventually_async(lambda: client.info("replication")["role"] == "master", timeout=FAILED_OVER)
    await eventually_async(cluster.is_ready, timeout=FAILED_OVER)


def _cut_replication(cluster: ValkeyCluster, number: int = 0) -> None:
    """Let a replica hear nothing any more of what its master is told."""
    with cluster.of(cluster.replicas[number]) as client:
        client.config_set("masterauth", "a password nobody asks for")
    with cluster.of(cluster.masters[number]) as client:
        client.client_kill_filter(_type="replica")
        assert client.wait(1, 1) == 0


async def _fill(tier: RedisTier[str], users: list[Key]) -> None:
    looks = await tier.look(users, KEEP_MS)
    fences = [look.fence for look in looks if look is not None]
    values = [
        Storing(key, fence, Stored(key[1], "db", 50.0), KEEP_MS) for key, fence in zip(users, fences, strict=True)
    ]
    assert await tier.store(values) == [True] * len(users)


def _scripts(cluster: ValkeyCluster) -> int:
    total = 0
    for node in cluster.masters:
        with cluster.of(node) as client:
            done = client.info("commandstats")
            total += sum(done[name]["calls"] for name in ("cmdstat_evalsha", "cmdstat_eval") if name in done)
            client.config_resetstat()
    return total


async def test_a_clear_is_a_script_for_each_bucket_whatever_the_number_of_users(unharmed: ValkeyCluster) -> None:
    """Nobody's context is found after it; a thousand users cost what ten cost."""
    async with _tier(unharmed.url) as (tier, counters):
        await tier.invalidate(None, KEEP_MS)
        for users in (MANY[:10], MANY):
            await _fill(tier, users)
            _scripts(unharmed)
            await tier.invalidate(None, KEEP_MS)
            # And the announcement before and after them.
            assert _scripts(unharmed) == BUCKETS + 2
            assert all(look is not None and look.stored is None for look in await tier.look(users, KEEP_MS))
        assert counters.get("fault", "redis") == 0


def _has_connections(client: Any, count: int) -> bool:
    return len(client.client_list(_type="normal")) == count


async def test_many_names_are_renewed_at_once_and_confirmed(unharmed: ValkeyCluster) -> None:
    """Their generations are on several nodes, and their announcements on one."""
    async with instance(url=unharmed.url, options=PATIENT) as one, instance(url=unharmed.url, options=PATIENT) as two:
        assert one.redis is not None
        assert two.redis is not None
        for each in (one.redis, two.redis):
            await eventually_async(each.is_heard)
        for key in MANY[:20]:
            await two.get(key)
        before = await one.redis.look(MANY[:20], KEEP_MS)
        reach = await one.cache.renew([name for _, name in MANY[:20]])
        assert ([name for name, _ in reach.confirmed], reach.silent) == ([two.redis.instance], ())
        after = await one.redis.look(MANY[:20], KEEP_MS)
        assert all(new and old and new.fence.name != old.fence.name for old, new in zip(before, after, strict=True))
        assert [two.cache.peek(key) for key in MANY[:20]] == 20 * [None]


async def test_a_thousand_users_are_a_connection_to_each_node(unharmed: ValkeyCluster) -> None:
    """Those of a bucket share a script, those of a node a trip; nobody is busy."""
    async with _tier(unharmed.url) as (tier, counters):
        await _fill(tier, MANY)
        _scripts(unharmed)
        assert all(look is not None and look.stored is not None for look in await tier.look(MANY, KEEP_MS))
        assert _scripts(unharmed) <= 2 * BUCKETS
        for node in unharmed.masters:
            with unharmed.of(node) as client:
                # That one, and the test's; those of the test before it may be closed a moment later.
                await eventually_async(partial(_has_connections, client, 2))
        assert (counters.get("busy", "redis"), counters.get("fault", "redis")) == (0, 0)


async def test_a_lost_node_is_felt_by_its_share_only_and_undoes_nothing(cluster: ValkeyCluster) -> None:
    """Its users are loaded from the source meanwhile; its replica, promoted, serves nothing that was invalidated."""
    database = Database(batch_size=100)
    lost = _at(cluster, cluster.masters[0])
    assert 5 < len(lost) < len(USERS) - 5
    expected = {key: f"{key[1]} 1" for key in USERS}
    async with instance(database, url=cluster.url, options=QUICK) as one, anyio.create_task_group() as tasks:
        traffic = Traffic(one)
        tasks.start_soon(traffic.flow)
        assert origins(await traffic.more()) == {"redis"}
        _cut_replication(cluster)
        for key in lost[:5]:
            database.rows[key[1]] = expected[key] = "new"
            await one.cache.invalidate(key[1])
        cluster.masters[0].kill()
        # One look-up of all of them may be under way with those that have not noticed.
        await traffic.round()
        got = await traffic.more()
        assert all(value == expected[key] for key, value, _ in got)
        assert {key for key, _, origin in got if origin == "db"} <= set(lost)
        assert one.redis is not None
        assert one.redis.is_up()
        with pytest.raises(SharedTierFailed):
            await one.cache.invalidate(lost[0][1])
        await _promoted(cluster)

        async def all_from_redis() -> bool:
            got = await traffic.more()
            assert all(value == expected[key] for key, value, _ in got)
            return origins(got) == {"redis"}

        await eventually_async(all_from_redis, timeout=FAILED_OVER)
        await one.cache.invalidate(lost[0][1])
        # The others' generations are what they were: their values were found all along.
        assert one.counters.get("renewed", "redis") == 1
        assert set(database.calls[len(USERS) :]) == {key[1] for key in lost}
        tasks.cancel_scope.cancel()


@pytest.mark.full
async def test_a_cluster_that_wants_all_its_slots_is_down_as_a_whole_until_they_are_served() -> None:
    """Clusters are, unless they are told otherwise: all users come from the source, and no request fails."""
    database = Database(batch_size=100)
    with ValkeyCluster.start(args=["--cluster-require-full-coverage", "yes"]) as cluster:
        async with instance(database, url=cluster.url, options=QUICK) as one, anyio.create_task_group() as tasks:
            traffic = Traffic(one)
            tasks.start_soon(traffic.flow)
            assert origins(await traffic.more()) == {"redis"}
            with cluster.of(cluster.replicas[0]) as client:
                client.config_set("cluster-replica-no-failover", "yes")
                cluster.masters[0].kill()
                await eventually_async(lambda: traffic.origins() == {"db"}, timeout=FAILED_OVER)
                client.config_set("cluster-replica-no-failover", "no")
            await eventually_async(lambda: traffic.origins() == {"redis"}, timeout=FAILED_OVER)
            assert all(value == f"{key[1]} 1" for key, value, _ in traffic.got)
            tasks.cancel_scope.cancel()


def _answering(layouts: dict[int, tuple[int, int]]) -> Any:
    async def ask(place: Place, _: Sequence[Command]) -> list[object]:
        epoch, port = layouts[place.port]
        return [[[0, SLOTS - 1, [b"127.0.0.1", port, b"id"]]], b"cluster_current_epoch:%d\r\n" % epoch]

    return ask


async def test_a_node_that_was_cut_off_does_not_say_who_has_what() -> None:
    """The greatest epoch wins, in whatever order they answer."""

    async def admit(_: Send) -> None: ...

    def make(place: Place, admit: Admit, alone: bool) -> Server:  # noqa: FBT001 - as the type says
        return connect(Secret(f"redis://{place.host}:{place.port}"), QUICK, admit, alone=alone)

    places = tuple(Place("127.0.0.1", port) for port in (1, 2, 3))
    for epochs in ((5, 9, 9), (9, 5, 9), (9, 9, 5)):
        layouts = {place.port: (epoch, epoch) for place, epoch in zip(places, epochs, strict=True)}
        for _ in range(20):
            reach = Reach(places, _answering(layouts), make, lambda place: place)
            owner = await Cluster(reach, QUICK, SPACE, lambda _: admit).owner("key")
            assert owner.connection_pool.connection_kwargs["port"] == 9


async def test_a_node_that_hangs_costs_a_timeout_a_few_times(cluster: ValkeyCluster) -> None:
    """After that its users are answered without a wait, and those of the other nodes from Redis as before."""
    hung, well = _at(cluster, cluster.masters[0]), _at(cluster, cluster.masters[1])
    with cluster.of(cluster.replicas[0]) as client:
        client.config_set("cluster-replica-no-failover", "yes")
    async with _tier(cluster.url) as (patient, _):
        await _fill(patient, USERS)
    async with _tier(cluster.url, replace(PATIENT, timeout=0.3)) as (tier, counters):

        async def is_connected() -> bool:
            return await look_one(tier, hung[0], KEEP_MS) is not None

        await eventually_async(is_connected)
        cluster.masters[0].pause()
        faults = counters.get("fault", "redis")
        for key in hung[:3]:
            with anyio.fail_after(30):
                assert await look_one(tier, key, KEEP_MS) is None
        assert counters.get("fault", "redis") == faults + 3
        # Without a turn of the event loop in between.
        with anyio.move_on_after(0) as scope:
            assert await look_one(tier, hung[3], KEEP_MS) is None
        assert not scope.cancelled_caught
        assert tier.is_up()

        async def are_found() -> bool:
            return all(look is not None and look.stored is not None for look in await tier.look(well, KEEP_MS))

        # A busy machine may be late with some of them.
        await eventually_async(are_found)
        cluster.masters[0].resume()


async def test_with_all_nodes_lost_the_source_is_asked_until_they_are_back(cluster: ValkeyCluster) -> None:
    """Nobody waits and nothing fails; it is found again by itself, and said to be down meanwhile."""
    nodes = [*cluster.masters, *cluster.replicas]
    async with instance(Database(batch_size=100), url=cluster.url, options=QUICK) as one:
        for key in USERS:
            await one.get(key)
        for node in nodes:
            node.kill()
        assert one.redis is not None
        for key in USERS:
            one.clock.advance(6)
            assert (await one.get(key)).origin == "db"
        assert one.redis.is_up() is False
        for node in nodes:
            node.restart()
        await eventually_async(one.redis.is_up, timeout=FAILED_OVER)
        await eventually_async(cluster.is_ready, timeout=FAILED_OVER)

        async def is_kept() -> bool:
            one.clock.advance(6)
            return {(await one.get(key)).origin for key in USERS} - {"memory"} == {"redis"}

        await eventually_async(is_kept, timeout=FAILED_OVER)


def _move(cluster: ValkeyCluster, slot: int) -> None:
    """Move a slot from its master to the next one, as resharding does."""
    source = cluster.owner(slot)
    target = cluster.masters[(list(cluster.masters).index(source) + 1) % len(cluster.masters)]
    with cluster.of(source) as old, cluster.of(target) as new:
        names = [client.execute_command("CLUSTER", "MYID") for client in (old, new)]
        new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", names[0])
        old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", names[1])
        keys = old.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100)
        old.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        for client in (new, old):
            client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", names[1])


async def test_a_slot_that_moves_is_followed(cluster: ValkeyCluster) -> None:
    """Whoever asks the former owner is sent on, and the new one is looked at for what it has got."""
    async with _tier(cluster.url) as (tier, counters):
        # Connections are open to its next owner, too.
        await _fill(tier, [ADA, *MANY])
        _move(cluster, _slot(ADA))
        # It may have been moved from a server that had lost something: nothing is taken over unseen.
        found, *others = await tier.look([ADA, *MANY], KEEP_MS)
        assert found is not None
        assert found.stored is None
        kept = {key for key, look in zip(MANY, others, strict=True) if look is not None and look.stored is not None}
        assert kept == {key for key in MANY if _slot(key) != _slot(ADA)}
        assert await store_one(tier, ADA, found.fence, Stored("new", "db", 50.0), KEEP_MS)
        assert (counters.get("fault", "redis"), counters.get("renewed", "redis")) == (0, 1)


async def test_a_half_moved_slot_fails_no_request(cluster: ValkeyCluster) -> None:
    """While a bucket's keys are on two nodes its users come from the source, and the others notice nothing."""
    async with instance(Database(), url=cluster.url, options=QUICK, deaf=True) as one:
        await one.cache.invalidate(None)
        for key in USERS:
            await one.get(key)
        slot = _slot(USERS[0])
        source = cluster.owner(slot)
        others = [master for master in cluster.masters if master is not source]
        with cluster.of(source) as old, cluster.of(others[0]) as new:
            names = [client.execute_command("CLUSTER", "MYID") for client in (old, new)]
            new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", names[0])
            old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", names[1])
            half = SPACE.of(USERS[0]).everyone
            old.execute_command("MIGRATE", "127.0.0.1", others[0].port, half, 0, 5000)
            one.clock.advance(6)
            found = {key: (await one.get(key)).origin for key in USERS}
            for client in (old, new):
                client.execute_command("CLUSTER", "SETSLOT", slot, "STABLE")
        moved = {key for key in USERS if _slot(key) == slot}
        assert {key for key, origin in found.items() if origin == "db"} == moved


async def test_a_connection_of_one_s_own_leads_to_who_has_the_key(cluster: ValkeyCluster) -> None:
    """And after a failover another one to who has it then."""
    async with _tier(cluster.url, QUICK) as (tier, _):
        session = tier.opened.current
        key = next(f"ctx:{{{number}}}" for number in range(100) if cluster.owner(slot_of(f"{{{number}}}")) is
                   cluster.masters[0])  # fmt: skip

        async def port() -> int:
            connection: Any = await connection_for(session.client, key)
            await connection.connect()
            await connection.disconnect()
            return int(connection.port)

        assert await port() == cluster.masters[0].port
        cluster.masters[0].kill()
        await _promoted(cluster)

        async def is_replaced() -> bool:
            await tier.look(USERS, KEEP_MS)
            return await port() == cluster.replicas[0].port

        await eventually_async(is_replaced, timeout=FAILED_OVER)


async def test_a_ready_client_is_taken_for_how_it_reaches_its_cluster(unharmed: ValkeyCluster) -> None:
    """Its nodes, its options and its address map; it is neither opened nor changed nor closed."""
    mapped: list[tuple[str, int]] = []

    def remap(place: tuple[str, int]) -> tuple[str, int]:
        mapped.append(place)
        return place

    client = RedisCluster(host="127.0.0.1", port=unharmed.masters[2].port, address_remap=remap)
    async with _tier(client) as (tier, counters):
        await _fill(tier, MANY)
        assert all(look is not None and look.stored is not None for look in await tier.look(MANY, KEEP_MS))
        assert counters.get("fault", "redis") == 0
    assert {port for _, port in mapped} == {node.port for node in unharmed.masters}
    assert client.nodes_manager.nodes_cache == {}
    await client.set("its owner's", "own")
    await client.aclose()


async def test_what_is_no_cluster_is_no_answer(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """A server alone behind the address of a cluster is a fault to the log, and none to the request."""
    async with instance(url=redis_url.replace("redis://", "redis+cluster://")) as one:
        for number in range(3):
            assert (await one.get(("", str(number)))).origin == "db"
        assert one.redis is not None
        assert one.redis.is_up() is False
    assert "Redis does not answer" in caplog.text


async def test_too_few_replicas_say_nothing_against_a_node(cluster: ValkeyCluster) -> None:
    """The invalidation is in force, announced as done, and fails loud; the node is asked as before."""
    # So long a master that has lost its replica is waited for: half of the timeout.
    options = replace(PATIENT, replicas=1, fault_threshold=1, timeout=2.0)
    async with instance(url=cluster.url, options=options) as one, instance(url=cluster.url) as two:
        for each in (one, two):
            await eventually_async(partial(is_heard, each))
            await each.get()
        await one.cache.invalidate(None)
        for replica in cluster.replicas:
            replica.kill()
        for name in (ADA[1], None):
            with pytest.raises(SharedTierFailed, match=r"in force, and may be lost .* 0 of 1 replicas have it"):
                await one.cache.invalidate(name)
        assert one.redis is not None
        assert one.redis.is_up()
        assert one.counters.get("fault", "redis") == 0
        assert (await one.get()).origin == "db"
        # Done, and not only about to be: what is looked up now is kept.
        await two.get()
        assert two.cache.peek(ADA) is not None
