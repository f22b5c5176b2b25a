"""Whether a slow source keeps nobody waiting whose context is known."""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest

from ctxmiddleware.errors import SourceUnavailable
from tests.cache.rig import ADA, STEADY, Database, instance
from tests.waiting import eventually_async

pytestmark = pytest.mark.anyio
SOFT = replace(STEADY, soft_timeout=0.02)


async def test_after_the_soft_timeout_what_is_known_is_served_marked_stale() -> None:
    """The caller leaves, the load goes on, and what it brings serves the next one."""
    database = Database()
    async with instance(database, policy=SOFT) as one:
        await one.get()
        one.clock.advance(900)
        database.hold()
        database.rows[ADA[1]] = "new"
        found = await one.get()
        assert (found.entry.value, found.stale, found.origin) == (f"{ADA[1]} 1", True, "memory")
        await eventually_async(lambda: database.running == 1)
        database.release()
        await eventually_async(lambda: len(one.cache.flights) == 0)
        assert await one.value() == "new"
    assert len(database.calls) == 2
    assert one.counters.get("load", "slow") == 1


async def test_the_next_requests_do_not_wait_the_soft_timeout_again() -> None:
    """Once one caller found the source slow, the others are served at once for a while."""
    database = Database()
    async with instance(database, policy=SOFT) as one:
        await one.get()
        one.clock.advance(900)
        database.hold()
        for _ in range(20):
            assert (await one.get()).stale
        assert one.counters.get("load", "slow") == 1
        database.release()


async def test_where_nothing_is_known_the_caller_waits_for_the_source() -> None:
    """There is nothing to serve in its place."""
    database = Database()
    answers: list[str | None] = []
    async with instance(database, policy=SOFT) as one:

        async def ask() -> None:
            answers.append(await one.value())

        database.hold()
        async with anyio.create_task_group() as callers:
            callers.start_soon(ask)
            await anyio.sleep(0.1)  # several soft timeouts
            assert answers == []
            database.release()
    assert answers == [f"{ADA[1]} 1"]


async def test_a_user_invalidated_under_a_slow_load_is_not_served_what_was_known() -> None:
    """The invalidation ends what may stand in, also for a caller that waits already."""
    await eventually_async(_is_invalidated_while_a_caller_waits)


async def _is_invalidated_while_a_caller_waits() -> bool:
    """Return False where the caller's soft timeout had ended before the invalidation returned."""
    database = Database()
    answers: list[str | None] = []
    async with instance(database, policy=SOFT) as one:

        async def ask() -> None:
            answers.append(await one.value())

        await one.get()
        one.clock.advance(900)
        database.hold()
        async with anyio.create_task_group() as callers:
            callers.start_soon(ask)
            await database.started(2)
            database.rows[ADA[1]] = "new"
            await one.cache.invalidate(ADA[1])
            await anyio.wait_all_tasks_blocked()
            is_waiting = answers == []
            await anyio.sleep(0.1)  # several soft timeouts
            assert not (is_waiting and answers)
            database.release()
    return is_waiting and answers == ["new"]


async def test_past_stale_for_even_a_slow_source_is_waited_for() -> None:
    """What is too old stands in for nothing."""
    database = Database()
    async with instance(database, policy=replace(SOFT, load_timeout=0.1)) as one:
        await one.get()
        one.clock.advance(1200)
        database.hold()
        with pytest.raises(SourceUnavailable, match="did not answer"):
            await one.get()


async def test_an_unknown_user_waits_for_a_slow_source() -> None:
    """That nobody was known does not stand in for whoever was hired since."""
    database = Database({ADA[1]: None})
    async with instance(database, policy=replace(SOFT, load_timeout=0.1)) as one:
        await one.get()
        one.clock.advance(60)
        database.hold()
        with pytest.raises(SourceUnavailable, match="did not answer"):
            await one.get()


async def test_what_a_landed_load_stood_for_does_not_come_back() -> None:
    """A caller's time is up in the turn in which the load lands; an invalidation follows before the caller's own."""
    database = Database()
    async with instance(database, policy=SOFT) as one:
        await one.get()
        one.clock.advance(900)
        database.hold()
        flight = one.cache.flights.start(ADA)
        await eventually_async(lambda: database.running == 1)
        fail_safe = one.cache._filling.fail_safe
        assert fail_safe.standby(flight) is not None
        database.release()
        await flight.wait()
        await one.cache.invalidate(ADA[1])
        assert fail_safe.standby(flight) is None
        assert len(one.cache.memory) == 0
