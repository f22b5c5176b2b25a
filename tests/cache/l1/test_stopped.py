"""Whether a process that was stopped while it waited for Redis serves what it was told before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import anyio.lowlevel
import pytest

from ctxmiddleware.cache.redis.lua.channel import Beat
from ctxmiddleware.testing import FakeClock
from tests.backends import ASYNCIO
from tests.cache.machine.fake_server import FakeServer
from tests.cache.machine.fake_tier import FakeTier
from tests.cache.machine.gates import Gates
from tests.cache.rig import ADA, STEADY, Database, Instance, instance
from tests.waiting import eventually_async

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", [ASYNCIO])]


@dataclass
class Rig:
    """Two instances over one server; the first one's commands wait at gates."""

    one: Instance
    other: Instance
    gates: Gates
    clock: FakeClock
    answers: list[tuple[str | None, bool]] = field(default_factory=list)

    async def ask(self) -> None:
        """Ask the first instance."""
        found = await self.one.get()
        self.answers.append((found.entry.value, found.stale))

    async def through(self, count: int) -> None:
        """Let commands be carried out, and answered, so many times."""
        for _ in range(count):
            await eventually_async(lambda: len(self.gates) > 0)
            self.gates.open(0)
            await anyio.wait_all_tasks_blocked()

    async def stop_and_resume(self) -> None:
        """Let so much time pass as memory is trusted for, while the user is invalidated elsewhere."""
        self.one.database.rows[ADA[1]] = "new"
        await self.other.cache.invalidate(ADA[1])
        self.clock.advance(STEADY.untrusted_ttl)


@asynccontextmanager
async def _rig() -> AsyncIterator[Rig]:
    clock, gates, database = FakeClock(), Gates(), Database()
    server = FakeServer(clock)
    tiers = FakeTier(server, gates.wait), FakeTier(server, anyio.lowlevel.checkpoint)
    async with (
        instance(database, shared=tiers[0], clock=clock) as one,
        instance(database, shared=tiers[1], clock=clock) as other,
    ):
        for tier in tiers:
            tier.channel.listed(Beat(b"", 0, b"0-0"), clock())
        yield Rig(one, other, gates, clock)


@pytest.mark.parametrize("is_stored", [True, False], ids=["during a look", "during a store"])
async def test_who_asks_after_it_was_stopped_is_not_served_what_redis_said_before(is_stored: bool) -> None:  # noqa: FBT001
    """What Redis confirmed is good for as long as memory is trusted; that an answer came late does not prolong it."""
    async with _rig() as rig, anyio.create_task_group() as callers:
        if is_stored:
            assert await rig.other.value() == f"{ADA[1]} 1"
        callers.start_soon(rig.ask)
        await rig.through(1 if is_stored else 3)
        await rig.stop_and_resume()
        callers.start_soon(rig.ask)
        await eventually_async(lambda: rig.one.counters.get("load", "shared") == 1)
        while len(rig.answers) < 2:
            await rig.through(1)
        assert rig.answers == [("new", False)] * 2


async def test_an_answer_within_that_time_is_an_answer() -> None:
    """Whoever waited is served, without another look."""
    async with _rig() as rig, anyio.create_task_group() as callers:
        callers.start_soon(rig.ask)
        await rig.through(1)
        rig.clock.advance(STEADY.untrusted_ttl - 0.1)
        await rig.through(2)
        rig.clock.advance(STEADY.untrusted_ttl - 0.1)
        await rig.through(1)
        await eventually_async(lambda: len(rig.answers) == 1)
    assert rig.answers == [(f"{ADA[1]} 1", False)]
    assert len(rig.one.database.calls) == 1


async def test_where_redis_always_answers_late_the_source_is_asked() -> None:
    """It is as good as down: nobody waits for it again and again."""
    async with _rig() as rig, anyio.create_task_group() as callers:
        assert await rig.other.value() == f"{ADA[1]} 1"
        rig.one.database.rows[ADA[1]] = "new"
        callers.start_soon(rig.ask)
        for _ in range(2):
            await rig.through(1)
            rig.clock.advance(STEADY.untrusted_ttl)
            await rig.through(1)
        await eventually_async(lambda: len(rig.answers) == 1)
    assert rig.answers == [("new", False)]
