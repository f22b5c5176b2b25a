"""Whether nothing loaded before an invalidation is served after it, in one process."""

from __future__ import annotations

import math

import anyio
import pytest

from ctxmiddleware.cache.base import Fetched
from ctxmiddleware.cache.shared import NOWHERE
from ctxmiddleware.cache.tiered import ALONE_AFTER, MAX_ATTEMPTS
from ctxmiddleware.errors import SourceUnavailable
from tests.cache.rig import ADA, BOB, Database, instance
from tests.waiting import eventually_async

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("name", [ADA[1], None], ids=["invalidate", "clear"])
async def test_what_is_in_memory_is_forgotten_in_every_partition(name: str | None) -> None:
    """The next read is fresh, for each partition of the name, and the number forgotten is told."""
    database = Database()
    async with instance(database) as one:
        for key in (ADA, ("tenant", ADA[1]), BOB):
            await one.get(key)
        database.rows = {ADA[1]: "new", BOB[1]: "new"}
        assert await one.cache.invalidate(name) == (2 if name else 3, NOWHERE)
        assert await one.value() == await one.value(("tenant", ADA[1])) == "new"
        assert (await one.value(BOB) == "new") is (name is None)


@pytest.mark.parametrize("name", [ADA[1], None], ids=["invalidate", "clear"])
async def test_a_load_in_flight_is_overtaken(name: str | None) -> None:
    """Its waiters get a fresh load, the next read as well, and what it brought is kept nowhere."""
    database = Database()
    answers: list[str | None] = []
    async with instance(database) as one:

        async def ask() -> None:
            answers.append(await one.value())

        database.hold()
        async with anyio.create_task_group() as callers:
            for _ in range(5):
                callers.start_soon(ask)
            await database.started(1)
            await eventually_async(lambda: one.counters.get("load", "shared") == 4)
            database.rows[ADA[1]] = "new"
            await one.cache.invalidate(name)
            database.release()
            assert await one.value() == "new"
        assert answers == ["new"] * 5
        assert await one.value() == "new"
    assert len(database.calls) == 2
    assert one.counters.get("load", "overtaken") == 1


async def test_a_read_after_the_invalidation_does_not_wait_for_the_old_load() -> None:
    """The fresh load starts at once beside the overtaken one, whichever of them ends first."""
    database = Database()
    slow = anyio.Event()

    async def old(moved_ago: float) -> Fetched[str]:
        await slow.wait()
        return Fetched("old", "db")

    async with instance(database) as one, anyio.create_task_group() as callers:
        callers.start_soon(one.get, ADA, old)
        await eventually_async(lambda: len(one.cache.flights) == 1)
        await one.cache.invalidate(ADA[1])
        database.rows[ADA[1]] = "new"
        assert await one.value() == "new"
        slow.set()
        await eventually_async(lambda: len(one.cache.flights) == 0)
        found = await one.get()
        assert (found.entry.value, found.origin) == ("new", "memory")


async def test_another_user_s_load_is_left_alone() -> None:
    """An invalidation costs nobody else a load."""
    database = Database()
    async with instance(database) as one:
        database.hold()
        async with anyio.create_task_group() as callers:
            callers.start_soon(one.get, BOB)
            await database.started(1)
            await one.cache.invalidate(ADA[1])
            database.release()
    assert database.calls == [BOB[1]]


async def test_a_failure_of_an_overtaken_load_is_not_told() -> None:
    """Its waiters are served by the load that followed it."""
    loads = 0
    async with instance() as one:

        async def load(moved_ago: float) -> Fetched[str]:
            nonlocal loads
            loads += 1
            if loads == 1:
                await one.cache.invalidate(ADA[1])
                raise SourceUnavailable("old trouble")
            return Fetched("new", "db")

        assert (await one.get(ADA, load)).entry.value == "new"


async def test_invalidated_again_and_again_a_caller_is_told_in_the_end() -> None:
    """A user whose every load is overtaken is unavailable for now, not waited for without end."""
    async with instance() as one:
        loads = 0

        async def load(moved_ago: float) -> Fetched[str]:
            nonlocal loads
            loads += 1
            await one.cache.invalidate(ADA[1])
            return Fetched("old", "db")

        with pytest.raises(SourceUnavailable, match="again and again"):
            await one.get(ADA, load)
        assert loads == MAX_ATTEMPTS
        assert len(one.cache.memory) == 0


async def test_a_load_that_goes_alone_says_that_its_user_was_invalidated_just_now() -> None:
    """It asks no shared tier how long ago that was, and a replica of the database may be behind."""
    told: list[float] = []
    async with instance() as one:

        async def load(moved_ago: float) -> Fetched[str]:
            told.append(moved_ago)
            if len(told) <= ALONE_AFTER:
                await one.cache.invalidate(ADA[1])
            return Fetched("new", "db")

        assert (await one.get(ADA, load)).entry.value == "new"
    assert told == [*[math.inf] * ALONE_AFTER, 0.0]
