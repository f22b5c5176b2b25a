"""Whether what is asked for is refreshed behind the answer before its time is over, and nobody waits for it."""

from __future__ import annotations

import gc
import logging
from dataclasses import replace

import anyio
import pytest

from ctxmiddleware.cache.failsafe import PAUSE_SECONDS
from ctxmiddleware.errors import SourceUnavailable
from tests.cache.rig import ADA, STEADY, Database, instance
from tests.waiting import eventually_async

pytestmark = pytest.mark.anyio
EAGER = replace(STEADY, refresh_ahead=0.8)


async def test_a_hit_late_in_its_time_is_answered_at_once_and_refreshed_behind() -> None:
    """The hit gets what is known, a later one what is new; nobody waits and nothing is asked for before that share."""
    database = Database()
    async with instance(database, policy=EAGER) as one:
        await one.get()
        one.clock.advance(719.9)
        await one.get()
        await anyio.wait_all_tasks_blocked()
        assert len(database.calls) == 1
        database.rows[ADA[1]] = "new"
        one.clock.advance(0.1)
        found = await one.get()
        assert (found.entry.value, found.origin, found.stale) == (f"{ADA[1]} 1", "memory", False)
        await eventually_async(lambda: len(one.cache.flights) == 0 and len(database.calls) == 2)
        entry = one.cache.peek(ADA)
        assert entry is not None
        assert (entry.value, entry.expires_at) == ("new", one.clock() + 900)
    assert one.counters.get("load", "behind") == 1


async def test_many_hits_start_one_refresh() -> None:
    """While one is under way further hits are hits."""
    database = Database()
    async with instance(database, policy=EAGER) as one:
        await one.get()
        one.clock.advance(800)
        database.hold()
        for _ in range(100):
            assert one.cache.peek(ADA) is not None
        await database.started(2)
        assert one.cache.peek(ADA) is not None
        database.release()
        await eventually_async(lambda: len(one.cache.flights) == 0)
    assert len(database.calls) == 2


async def test_a_refresh_that_fails_is_nobody_s_error_and_tried_again_after_a_pause(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Until its time is over the context is served as fresh, and the source is not asked by every hit."""
    database = Database()
    async with instance(database, policy=EAGER) as one:
        await one.get()
        one.clock.advance(800)
        database.error = SourceUnavailable("down")
        for _ in range(50):
            found = await one.get()
            assert (found.origin, found.stale) == ("memory", False)
            await anyio.wait_all_tasks_blocked()
        assert len(database.calls) == 2
        one.clock.advance(PAUSE_SECONDS)
        await one.get()
        await database.started(3)
    gc.collect()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_an_invalidation_overtakes_a_refresh() -> None:
    """What a refresh brings that began before it is kept nowhere; the next read is fresh."""
    database = Database()
    async with instance(database, policy=EAGER) as one:
        await one.get()
        one.clock.advance(800)
        database.hold()
        await one.get()
        await database.started(2)
        database.rows[ADA[1]] = "new"
        await one.cache.invalidate(ADA[1])
        database.release()
        assert await one.value() == "new"
        await eventually_async(lambda: len(one.cache.flights) == 0)
        assert await one.value() == "new"
    assert len(database.calls) == 3


async def test_an_unknown_user_is_not_refreshed() -> None:
    """Whoever floods us with names does not keep the source busy behind them."""
    database = Database({ADA[1]: None})
    async with instance(database, policy=EAGER) as one:
        await one.get()
        one.clock.advance(59)
        assert await one.value() is None
        await anyio.wait_all_tasks_blocked()
    assert len(database.calls) == 1


async def test_a_caller_whose_context_expires_under_a_refresh_joins_it() -> None:
    """A refresh under way serves whoever comes after the time is over, by the same load."""
    database = Database()
    async with instance(database, policy=EAGER) as one:
        await one.get()
        one.clock.advance(899)
        database.hold()
        await one.get()
        await database.started(2)
        one.clock.advance(2)
        async with anyio.create_task_group() as callers:
            callers.start_soon(one.get)
            await eventually_async(lambda: one.counters.get("load", "shared") == 1)
            database.release()
    assert len(database.calls) == 2


async def test_a_hit_where_nothing_is_open_is_a_hit() -> None:
    """Memory answers in a loop that has opened nothing; what refreshes is for those who can."""
    database = Database()
    async with instance(database, policy=EAGER) as one:
        await one.get()
    one.clock.advance(800)
    assert one.cache.peek(ADA) is not None
    assert len(database.calls) == 1


async def test_times_to_live_are_scattered_and_never_longer() -> None:
    """Of a hundred contexts loaded at once no two expire together, all within the share that `jitter` allows."""
    async with instance(policy=replace(STEADY, jitter=0.1)) as one:
        lives = [
            found.entry.expires_at - one.clock()
            for found in [await one.get(("", f"user{number}")) for number in range(100)]
        ]
    assert len(set(lives)) == 100
    assert all(810 <= life <= 900 for life in lives)
    assert max(lives) - min(lives) > 60
