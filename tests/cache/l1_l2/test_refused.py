"""Whether what Redis holds is refused where it may be old, broken or in nobody's power, and nobody waits in vain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import anyio
import msgspec
import pytest
import redis

from ctxmiddleware.cache.base import Stored
from ctxmiddleware.cache.redis.codec import Codec
from ctxmiddleware.cache.redis.keys import KeySpace
from ctxmiddleware.cache.redis.tier import RedisTier
from ctxmiddleware.errors import SourceUnavailable
from ctxmiddleware.stats import Counters
from examples.servers import Valkey
from tests.backends import asyncio_only
from tests.cache.rig import ADA, BOB, PATIENT, STEADY, Database, Instance, instance
from tests.waiting import eventually_async

pytestmark = [pytest.mark.anyio, asyncio_only]
OPTIONS = replace(PATIENT, check_every=0.05, probe_every=0.05)


@pytest.fixture
def own() -> Iterator[Valkey]:
    """A Valkey that this test may demote and empty."""
    with Valkey.start() as server:
        yield server


def _is_down(one: Instance) -> bool:
    assert one.redis is not None
    return one.redis.is_up() is False


@pytest.mark.parametrize("new", [False, True], ids=["a process that knew it", "a new process"])
async def test_a_master_that_was_demoted_is_not_read(own: Valkey, new: bool) -> None:  # noqa: FBT001 - a parameter
    """Cut off from its new master it goes by its former name, and would answer for ever with what it had."""
    database = Database()
    async with instance(database, url=own.url, options=OPTIONS) as one:
        assert (await one.get()).origin == "db"
        with redis.Redis.from_url(own.url) as client:
            client.replicaof("127.0.0.1", 1)
        database.rows[ADA[1]] = "new"
        if new:
            async with instance(database, url=own.url, options=OPTIONS) as other:
                assert (await other.get()).origin == "db"
        else:
            await eventually_async(lambda: _is_down(one))
            one.clock.advance(STEADY.untrusted_ttl)
            assert await one.value() == "new"


async def test_a_redis_that_keeps_no_generations_costs_loads_and_no_errors(own: Valkey) -> None:
    """Full, it evicts them while each load goes on: after a few in vain a user is loaded as if it were not there."""

    class Evicting(Database):
        async def load(self, asks: Any) -> Any:
            answers = await super().load(asks)
            client.flushall()
            return answers

    with redis.Redis.from_url(own.url) as client:
        async with instance(Evicting(), url=own.url, options=OPTIONS) as one:
            assert await one.value() == f"{ADA[1]} 1"
            assert len(one.database.calls) <= 4
            # It is known for as long as it is trusted.
            assert (await one.get()).origin in ("memory", "db")


async def test_a_refresh_that_fails_is_tried_again_after_a_pause_and_not_by_every_hit(own: Valkey) -> None:
    """Also where Redis has just confirmed what is in memory."""
    policy = replace(STEADY, refresh_ahead=0.5)
    async with instance(url=own.url, options=OPTIONS, policy=policy, deaf=True) as one:
        await one.get()
        one.clock.advance(STEADY.ttl * 0.6)
        await one.get()
        one.database.error = SourceUnavailable("down")
        calls = len(one.database.calls)
        for _ in range(20):
            await one.get()
            await eventually_async(lambda: len(one.cache.flights) == 0)
        assert len(one.database.calls) <= calls + 2


class Picky(msgspec.Struct, frozen=True):
    """A type whose older values raise."""

    name: str

    def __post_init__(self) -> None:
        if self.name == "old":
            raise KeyError(self.name)


async def test_a_value_that_raises_when_it_is_made_is_nobody_s(redis_url: str) -> None:
    """Stored by an older release: its user is loaded, and whoever is looked up with him is answered."""
    counters = Counters()
    kind: Any = RedisTier(redis_url, codec=Codec(Picky), namespace="test", counters=counters, options=OPTIONS)
    async with kind.opened:
        keys = KeySpace("test", kind.codec.shape)
        (look,) = await kind.look([ADA], 60_000)
        data = kind.codec.pack(ADA, look.fence, _stored(Picky("new")), 60_000, redis_key=keys.of(ADA).value)
        with redis.Redis.from_url(redis_url) as client:
            client.set(keys.of(ADA).value, data.replace(b"new", b"old"), px=60_000)
        found = await kind.look([ADA, BOB], 60_000)
        assert [each.stored for each in found] == [None, None]
        assert counters.get("rejected", "redis") == 1


def _stored(value: Picky) -> Any:
    return Stored(value, "db", 30.0)


async def test_a_caller_of_an_overtaken_load_does_not_wait_for_it() -> None:
    """Whoever came before the invalidation is served by the load after it, as whoever came later is."""
    policy = replace(STEADY, soft_timeout=0.05)
    async with instance(policy=policy) as one:
        one.database.hold()
        answers: list[str | None] = []

        async def ask() -> None:
            answers.append(await one.value())

        async with anyio.create_task_group() as callers:
            callers.start_soon(ask)
            await one.database.started(1)
            one.database.rows[ADA[1]] = "new"
            await one.cache.invalidate(ADA[1])
            held = one.database._gate
            one.database._gate = None
            await eventually_async(lambda: answers == ["new"])
            assert held is not None
            held.set()
