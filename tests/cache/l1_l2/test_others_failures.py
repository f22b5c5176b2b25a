"""Whether failures that other caches were reported for occur here, on a real server with two instances."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import redis

from ctxmiddleware.cache.failsafe import PAUSE_SECONDS
from ctxmiddleware.errors import SourceUnavailable
from ctxmiddleware.stats import MEMORY
from ctxmiddleware.testing import FakeClock
from tests.backends import asyncio_only
from tests.cache.rig import ADA, STEADY, Database, Instance, instance
from tests.waiting import eventually_async

pytestmark = [pytest.mark.anyio, asyncio_only]


@pytest.fixture
def server(redis_url: str) -> Any:
    """A client of the server, for what is done by hand."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@asynccontextmanager
async def _pair(url: str, database: Database) -> AsyncIterator[tuple[Instance, Instance, FakeClock]]:
    clock, policy = FakeClock(), replace(STEADY, stale_for=30)
    async with (
        instance(database, url=url, clock=clock, policy=policy) as one,
        instance(database, url=url, clock=clock, policy=policy) as two,
    ):
        yield one, two, clock


def _pass(server: Any, clock: FakeClock, seconds: float) -> None:
    """Let time go on, for the value in Redis too."""
    clock.advance(seconds)
    for key in server.scan_iter("ctx:*:v:*"):
        server.pexpire(key, server.pttl(key) - int(1000 * seconds))


def _left(server: Any) -> int:
    """Return the milliseconds that the value in Redis has left."""
    (key,) = server.scan_iter("ctx:*:v:*")
    left: int = server.pttl(key)
    return left


async def test_no_read_lengthens_the_life_of_an_entry(redis_url: str, server: Any) -> None:
    """Hits in memory, looks that renew trust, and a copy that another instance takes from Redis: all end together."""
    database = Database({ADA[1]: "old"}, ttl=20)
    async with _pair(redis_url, database) as (one, two, clock):
        await one.get()
        for second in range(19):
            left = _left(server)
            for each in (one, two) if second > 9 else (one,):
                assert await each.value() == "old"
            assert _left(server) <= left
            _pass(server, clock, 1)
        assert len(database.calls) == 1
        database.rows[ADA[1]] = "new"
        _pass(server, clock, 1.1)
        assert [await each.value() for each in (one, two)] == ["new", "new"]


async def test_a_stale_answer_is_not_kept_past_the_end_of_what_it_stands_for(redis_url: str, server: Any) -> None:
    """Handed from one instance to the other while the source is down, it stays as old, and as stale, as it is."""
    database = Database({ADA[1]: "old"}, ttl=20)
    async with _pair(redis_url, database) as (one, two, clock):
        await one.get()
        database.error = SourceUnavailable("down")
        # The age of a value in Redis is of real time, and counts in milliseconds: a little more than its time.
        _pass(server, clock, 21)
        for _ in range(4):
            for each in (one, two):
                found = await each.get()
                assert (found.entry.value, found.stale) == ("old", True)
                assert found.entry.expires_at + found.entry.grace <= clock() + 29.1
            _pass(server, clock, 7)
        _pass(server, clock, 2)
        for each in (one, two):
            with pytest.raises(SourceUnavailable):
                await each.get()
        database.error = None
        database.rows[ADA[1]] = "new"
        clock.advance(PAUSE_SECONDS)
        assert [await each.value() for each in (one, two)] == ["new", "new"]


async def test_being_unknown_ends_with_the_creation_of_the_user(redis_url: str) -> None:
    """Every instance remembers it, and Redis too; the invalidation that follows the COMMIT ends it for all."""
    database = Database({ADA[1]: None})
    async with _pair(redis_url, database) as (one, two, _):
        for each in (one, two):
            await eventually_async(partial(_hears, each))
        assert [await each.value() for each in (one, two)] == [None, None]
        database.rows[ADA[1]] = "created"
        found = [await each.get() for each in (one, two)]
        assert [(each.entry.value, each.origin) for each in found] == [(None, MEMORY)] * 2
        assert len(database.calls) == 1
        _, reach = await one.cache.invalidate(ADA[1])
        assert reach.knew is True
        assert [ADA in each.cache.memory._entries for each in (one, two)] == [False, False]
        assert [await each.value() for each in (one, two)] == ["created", "created"]


async def test_being_unknown_under_a_former_generation_is_not_found_in_redis(redis_url: str, server: Any) -> None:
    """Put back by an instance that had stopped in the middle of it, after the user was created and invalidated."""
    async with instance(Database({ADA[1]: None}), url=redis_url) as one:
        assert await one.value() is None
        (place,) = server.scan_iter("ctx:*:v:*")
        former, left = server.get(place), server.pttl(place)
        await one.cache.invalidate(ADA[1])
        server.set(place, former, px=left)
        one.database.rows[ADA[1]] = "created"
        assert await one.value() == "created"


def _hears(one: Instance) -> bool:
    return one.redis is not None and one.redis.is_heard() and one.redis.is_listed
