"""Whether a server that has lost the latest generations brings no old one back."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import redis
from redis.asyncio import Redis

from ctxmiddleware.cache.base import Stored
from ctxmiddleware.cache.redis.incarnation import KEPT_MS, Incarnation
from ctxmiddleware.cache.redis.keys import BUCKETS, KeySpace
from ctxmiddleware.cache.redis.options import RedisOptions
from ctxmiddleware.cache.redis.servers.connection import Command
from ctxmiddleware.cache.redis.servers.driver import Client
from ctxmiddleware.cache.redis.tier import RedisTier
from ctxmiddleware.stats import Counters
from ctxmiddleware.testing import FakeClock
from examples.servers import TcpProxy, Valkey
from tests.backends import asyncio_only
from tests.cache.rig import ADA, BOB, PATIENT, look_one, outlast_marks, redis_tier, store_one
from tests.cache.switch import Switch
from tests.waiting import eventually, eventually_async

pytestmark = [pytest.mark.anyio, asyncio_only]
KEEP_MS = 1_260_000
SPACE = KeySpace("test", b"")
QUICK = replace(PATIENT, probe_every=0.02)
WATCHFUL = replace(PATIENT, check_every=0.02)
TALK = "ctxmiddleware.redis"


@pytest.fixture
def own() -> Iterator[Valkey]:
    """A Valkey that this test may stop and kill."""
    with Valkey.start(args=["--enable-debug-command", "yes", "--repl-diskless-sync-delay", "0"]) as server:
        yield server


@pytest.fixture
def other() -> Iterator[Valkey]:
    """One more."""
    with Valkey.start() as server:
        yield server


@pytest.fixture
def switch(own: Valkey) -> Iterator[Switch]:
    """An address that leads to the first of them until it is told otherwise."""
    with Switch.start("127.0.0.1", own.port) as proxy:
        yield proxy


@contextlib.contextmanager
def _client(server: Valkey) -> Iterator[Any]:
    with redis.Redis.from_url(server.url) as client:
        yield client


@contextlib.asynccontextmanager
async def _tier(url: str | Client, options: RedisOptions = QUICK) -> AsyncIterator[tuple[RedisTier[str], Counters]]:
    counters = Counters()
    tier = redis_tier(url, counters=counters, options=options)
    async with tier.opened:
        yield tier, counters


async def _load(tier: RedisTier[str], value: str = "old") -> None:
    found = await look_one(tier, ADA, KEEP_MS)
    assert found is not None
    assert await store_one(tier, ADA, found.fence, Stored(value, "db", 900.0), KEEP_MS)
    assert await _read(tier) == value


async def _read(tier: RedisTier[str]) -> str | None:
    found = await look_one(tier, ADA, KEEP_MS)
    assert found is not None, "Redis did not answer"
    return None if found.stored is None else found.stored.value


def _said(caplog: pytest.LogCaptureFixture, words: str) -> int:
    return len([record for record in caplog.records if record.name == TALK and words in record.message])


def _replicate(replica: Valkey, master: TcpProxy) -> None:
    with _client(replica) as client:
        client.replicaof(master.host, str(master.port))
        eventually(lambda: client.info("replication")["master_link_status"] == "up")


def _promote(replica: Valkey) -> None:
    with _client(replica) as client:
        client.replicaof("NO", "ONE")


@contextlib.contextmanager
def _failover_that_loses_the_link(own: Valkey, other: Valkey) -> Iterator[TcpProxy]:
    with TcpProxy.start("127.0.0.1", own.port) as link:
        _replicate(other, link)
        yield link


def _replicated(own: Valkey) -> None:
    """Wait until the replica has all that was written: WAIT counts from the last write of its own connection."""
    with _client(own) as client:
        client.set("replicated", "1", px=60_000)
        assert client.wait(1, 30_000) == 1


def _fail_over(own: Valkey, other: Valkey, switch: Switch) -> None:
    own.kill()
    _promote(other)
    switch.lead_to(other)


@pytest.mark.parametrize("name", [ADA[1], None], ids=["invalidate", "clear"])
async def test_a_promoted_replica_that_missed_an_invalidation_brings_nothing_back(
    own: Valkey, other: Valkey, switch: Switch, name: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """The old value is still in it under the old generation, and is served to nobody; new ones are stored again."""
    async with _tier(switch.url) as (tier, counters):
        with _failover_that_loses_the_link(own, other) as link:
            await _load(tier)
            _replicated(own)
            link.refuse()
            await tier.invalidate(name, KEEP_MS)
            _fail_over(own, other, switch)
        assert await _read(tier) is None
        assert (counters.get("renewed", "redis"), counters.get("overtaken", "redis")) == (1, 1)
        await _load(tier, "new")
    assert _said(caplog, "is not the server it was") == 1


async def test_a_process_that_was_never_there_before_sees_it_too(
    own: Valkey, other: Valkey, switch: Switch, caplog: pytest.LogCaptureFixture
) -> None:
    """What tells is kept in Redis: every process that knew the former master may be gone."""
    with _failover_that_loses_the_link(own, other) as link:
        async with _tier(switch.url) as (tier, _):
            await _load(tier)
            _replicated(own)
            link.refuse()
            await tier.invalidate(ADA[1], KEEP_MS)
    _fail_over(own, other, switch)
    async with _tier(switch.url) as (tier, counters):
        assert await _read(tier) is None
        assert counters.get("renewed", "redis") == 1


async def test_an_invalidation_over_a_new_connection_is_not_the_first_either(
    own: Valkey, other: Valkey, switch: Switch
) -> None:
    """Whatever a new connection is for, the server behind it is looked at first."""
    with _failover_that_loses_the_link(own, other) as link:
        async with _tier(switch.url) as (tier, _):
            await _load(tier)
            _replicated(own)
            link.refuse()
            await tier.invalidate(ADA[1], KEEP_MS)
    _fail_over(own, other, switch)
    async with _tier(switch.url) as (tier, counters):
        await tier.invalidate(BOB[1], KEEP_MS)
        assert counters.get("renewed", "redis") == 1
        assert await _read(tier) is None


async def test_a_restart_from_an_old_snapshot_brings_nothing_back(
    own: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """A generation that was replaced after the snapshot is in force again, and nothing under it is served."""
    async with _tier(own.url) as (tier, counters):
        await _load(tier)
        with _client(own) as client:
            client.save()
        await tier.invalidate(ADA[1], KEEP_MS)
        own.kill()
        own.restart()
        with _client(own) as client:
            assert client.exists(SPACE.of(ADA).generation), "the snapshot was not read"
        assert await _read(tier) is None
        await _load(tier, "new")
        assert counters.get("renewed", "redis") == 1
    assert _said(caplog, "is not the server it was") == 1


async def test_gathered_looks_are_not_answered_from_a_server_nobody_has_looked_at(own: Valkey) -> None:
    """The connection that many share is looked at like any other, when it is made anew."""
    async with _tier(own.url) as (tier, _):
        await _load(tier)
        await tier.look([ADA, BOB], KEEP_MS)
        with _client(own) as client:
            client.save()
        await tier.invalidate(ADA[1], KEEP_MS)
        own.kill()
        own.restart()
        found = await tier.look([ADA, BOB], KEEP_MS)
        assert [look is not None and look.stored for look in found] == [None, None]


async def test_back_at_a_former_master_that_was_left_behind(own: Valkey, other: Valkey, switch: Switch) -> None:
    """Nothing has changed there, not even its name: but this process has been elsewhere, and so have invalidations."""
    async with _tier(switch.url) as (tier, counters):
        await _load(tier)
        switch.lead_to(other)
        await tier.invalidate(ADA[1], KEEP_MS)
        switch.lead_to(own)
        assert await _read(tier) is None
        assert counters.get("renewed", "redis") == 1


async def test_a_switch_behind_an_open_connection_is_noticed(own: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    """A proxy may keep the connection; a look now and then sees another server behind it."""
    async with _tier(own.url, WATCHFUL) as (tier, counters):
        await _load(tier)
        with _client(own) as client:
            connected = client.info("stats")["total_connections_received"]
            client.execute_command("DEBUG", "CHANGE-REPL-ID")
            await eventually_async(lambda: counters.get("renewed", "redis") == 1)
            assert await _read(tier) is None
            assert client.info("stats")["total_connections_received"] == connected
    assert _said(caplog, "is not the server it was") == 1


async def test_a_fleet_renews_once(own: Valkey, other: Valkey, switch: Switch) -> None:
    """Whoever comes first does it for all: what the others have stored since is not lost again."""
    async with _tier(switch.url) as (one, of_one), _tier(switch.url) as (two, of_two), _tier(switch.url) as (_, _):
        with _failover_that_loses_the_link(own, other):
            await _load(one)
            assert await _read(two) == "old"
            _replicated(own)
            _fail_over(own, other, switch)
        assert await _read(one) is None
        await _load(one, "new")
        assert await _read(two) == "new"
        assert (of_one.get("renewed", "redis"), of_two.get("renewed", "redis")) == (1, 0)


async def test_an_empty_server_is_called_by_its_name_and_no_more(own: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    """The first start, and a server that came back empty, have nothing to renew and nothing to say."""
    caplog.set_level(logging.INFO, "ctxmiddleware")
    async with _tier(own.url) as (tier, counters):
        found = await look_one(tier, ADA, KEEP_MS)
        with _client(own) as client:
            assert all(client.pttl(key) > 0 for key in client.scan_iter())
            assert client.pttl(KeySpace("test", b"").everyone()[-1][1]) > 0
            outlast_marks(own.url)
            assert len(client.keys()) == 4
        own.kill()
        own.restart()
        again = await look_one(tier, ADA, KEEP_MS)
        assert found is not None
        assert again is not None
        assert again.fence != found.fence
        # Which users were invalidated lately it has lost with the rest.
        assert max(found.moved_ago, again.moved_ago) < 60
        assert counters.get("renewed", "redis") == 0
    assert _said(caplog, "") == 0


async def test_generations_of_an_unknown_server_are_renewed(own: Valkey) -> None:
    """Where it is not said which server they are from, because that was evicted, a newcomer takes no chances."""
    async with _tier(own.url) as (tier, _):
        await _load(tier)
    with _client(own) as client:
        client.delete(*SPACE.incarnation())
    async with _tier(own.url) as (tier, counters):
        assert await _read(tier) is None
        assert counters.get("renewed", "redis") == 1


@pytest.mark.parametrize("lost", ["flushall", "evicted"])
async def test_who_has_known_the_server_all_along_only_says_its_name_again(own: Valkey, lost: str) -> None:
    """FLUSHALL and an evicted name cost the process that goes on no more than they have cost already."""
    async with _tier(own.url, WATCHFUL) as (tier, counters):
        await _load(tier)
        with _client(own) as client:
            if lost == "flushall":
                client.flushall()
            else:
                client.delete(*SPACE.incarnation())
            expected = await _read(tier)
            await eventually_async(lambda: client.exists(SPACE.incarnation()[0]))
        assert await _read(tier) == expected == (None if lost == "flushall" else "old")
        assert counters.get("renewed", "redis") == 0


async def test_what_has_no_expiry_or_another_type_is_renewed_too(own: Valkey) -> None:
    """Everyone's generation is replaced whatever became of it, in each bucket that has one."""
    async with _tier(own.url) as (tier, _):
        await _load(tier)
    with _client(own) as client:
        client.persist(SPACE.of(ADA).everyone)
        client.set(SPACE.incarnation()[0], "another")
        client.rpush(SPACE.of(BOB).everyone, "no generation")
    async with _tier(own.url) as (tier, counters):
        assert await _read(tier) is None
        assert counters.get("renewed", "redis") == 1
        assert await look_one(tier, BOB, KEEP_MS) is not None
        with _client(own) as client:
            assert client.pttl(SPACE.of(ADA).everyone) > 0
            assert all(client.pttl(mark) > 0 for _, mark in SPACE.everyone())
            generations = [client.exists(generation) for generation, _ in SPACE.everyone()]
            assert generations.count(1) == 2 < BUCKETS


async def test_what_was_renewed_counts_as_invalidated_just_now(own: Valkey) -> None:
    """Which users were invalidated is what was lost: all are loaded from where nothing lags."""
    async with _tier(own.url) as (tier, _):
        await _load(tier)
    with _client(own) as client:
        client.set(SPACE.incarnation()[0], "another")
    async with _tier(own.url) as (tier, _):
        for key in (ADA, BOB):
            found = await look_one(tier, key, KEEP_MS)
            assert found is not None
            assert found.moved_ago < 60


async def test_a_replica_is_not_read(own: Valkey, other: Valkey, switch: Switch) -> None:
    """It holds what its master held, cannot renew it, and so answers nothing until it is promoted."""
    async with _tier(switch.url, QUICK) as (tier, _):
        with _failover_that_loses_the_link(own, other) as link:
            await _load(tier)
            _replicated(own)
            link.refuse()
            await tier.invalidate(ADA[1], KEEP_MS)
            switch.lead_to(other)
            assert [await look_one(tier, ADA, KEEP_MS) for _ in range(4)] == [None] * 4
            assert tier.is_up() is False
            _promote(other)
            await eventually_async(tier.is_up)
            assert await _read(tier) is None


async def test_where_info_is_forbidden_it_says_so_once_and_goes_on(
    own: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """A user without that right is served all the same, and the log tells what is not guarded."""
    with _client(own) as client:
        client.execute_command("ACL", "SETUSER", "narrow", "on", ">secret", "~*", "+@all", "-info")
    url = f"redis://narrow:secret@127.0.0.1:{own.port}/0"
    async with _tier(url, WATCHFUL) as (tier, counters):
        await _load(tier)
        await tier.look([ADA, BOB], KEEP_MS)
        with _client(own) as client:
            client.client_kill_filter(skipme=True)
            calls = client.info("commandstats")["cmdstat_info"]["rejected_calls"]
            await eventually_async(lambda: client.info("commandstats")["cmdstat_info"]["rejected_calls"] > calls + 4)
        assert await _read(tier) == "old"
        assert counters.get("fault", "redis") == 0
    assert _said(caplog, "allow INFO") == 1
    assert "secret" not in caplog.text


async def test_a_new_connection_costs_one_more_trip(own: Valkey) -> None:
    """With nothing to renew two questions and a read travel together; no script runs, and nothing is written."""
    async with _tier(own.url) as (tier, _):
        await _load(tier)
    with _client(own) as client:
        client.config_resetstat()
        async with _tier(own.url) as (tier, _):
            assert await _read(tier) == "old"
        calls = {name: stats["calls"] for name, stats in client.info("commandstats").items()}
    # One of them counts itself.
    assert calls["cmdstat_info"] <= 3
    assert "cmdstat_eval" not in calls
    assert "cmdstat_set" not in calls


async def test_a_ready_client_is_looked_at_when_it_is_opened_and_after_each_fault(own: Valkey) -> None:
    """Its connections are its owner's: the server is asked before the first command, and after what went wrong."""
    async with Redis.from_url(own.url, retry=None) as client, _tier(client) as (tier, counters):
        await _load(tier)
        with _client(own) as direct:
            direct.save()
        await tier.invalidate(ADA[1], KEEP_MS)
        own.kill()
        assert await look_one(tier, ADA, KEEP_MS) is None
        own.restart()
        assert await _read(tier) is None
        assert counters.get("renewed", "redis") == 1


async def test_a_ready_client_that_connects_again_unseen_is_looked_at_now_and_then(own: Valkey) -> None:
    """Where its own retries hide a failover, the look in the background finds it."""
    async with Redis.from_url(own.url) as client, _tier(client, WATCHFUL) as (tier, counters):
        await _load(tier)
        with _client(own) as direct:
            direct.execute_command("DEBUG", "CHANGE-REPL-ID")
        await eventually_async(lambda: counters.get("renewed", "redis") == 1)
        assert await _read(tier) is None


class Server:
    """A server's side of the look, without a server."""

    def __init__(self, run: str, stored: bytes | None = None) -> None:
        self.run, self.stored, self.left_ms = run, stored, KEPT_MS
        self.scripts: list[Command] = []

    async def send(self, commands: Sequence[Command]) -> list[object]:
        """Answer as Redis does."""
        if commands[0][0] == b"EVAL":
            self.scripts.extend(commands)
            token = commands[0][3 + int(commands[0][2])]
            return [[token, 0]]
        return [f"# Server\r\nrun_id:{self.run}\r\n".encode(), b"master_replid:r\r\n", self.stored, self.left_ms]


async def test_the_name_is_kept_alive_while_it_is_used() -> None:
    """It is written again when half of its time has passed, and not before."""
    incarnation = Incarnation(SPACE, Counters(), lambda: b"token", FakeClock())
    server = Server("a", b"r:a")
    await incarnation.check(server.send)
    assert server.scripts == []
    server.left_ms = KEPT_MS // 2 - 1
    await incarnation.check(server.send)
    assert len(server.scripts) == 1


async def test_an_answer_out_of_step_admits_nobody() -> None:
    """What answers another question says nothing about this server."""
    tokens = iter([b"one", b"two"])
    server = Server("a")

    async def send(commands: Sequence[Command]) -> list[object]:
        return [[b"another's", 0]] if commands[0][0] == b"EVAL" else await server.send(commands)

    incarnation = Incarnation(SPACE, Counters(), lambda: next(tokens), FakeClock())
    with pytest.raises(ConnectionError, match="another question"):
        await incarnation.check(send)
    with pytest.raises(ConnectionError, match="another question"):
        await incarnation.check(send)
