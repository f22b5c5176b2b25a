"""Whether an invalidation that came before its COMMIT is undone by a load in between, in any tier."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import pytest
import redis

from ctxmiddleware.cache.base import Fetched
from ctxmiddleware.cache.redis.keys import KeySpace
from ctxmiddleware.cache.tiered import ALONE_AFTER
from ctxmiddleware.errors import SourceUnavailable
from ctxmiddleware.testing import FakeClock
from examples.servers import Valkey
from tests.backends import asyncio_only
from tests.cache.rig import ADA, BOB, STEADY, Database, Instance, instance, outlast_marks
from tests.waiting import eventually_async

pytestmark = [pytest.mark.anyio, asyncio_only]

SETTLE = 5.0
POLICY = replace(STEADY, settle=SETTLE)
KEYS = KeySpace("test", b"")


@pytest.fixture
def server(redis_url: str) -> Any:
    """A client of the server, for what is done by hand."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@asynccontextmanager
async def _pair(url: str | None) -> AsyncIterator[tuple[Instance, Instance, Database, FakeClock]]:
    database, clock = Database({ADA[1]: "old"}), FakeClock()
    async with (
        instance(database, url=url, policy=POLICY, clock=clock) as one,
        instance(database, url=url, policy=POLICY, clock=clock) as two,
    ):
        yield one, two, database, clock


def _is_heard(one: Instance) -> bool:
    assert one.redis is not None
    return one.redis.is_heard()


def _pass(server: Any, clock: FakeClock, seconds: float) -> None:
    """Let time go on, for marks and values in Redis too."""
    clock.advance(seconds)
    for pattern in ("ctx:*:m*", "ctx:*:v:*"):
        for key in server.scan_iter(pattern):
            server.pexpire(key, server.pttl(key) - int(1000 * seconds))


@pytest.mark.parametrize("name", [ADA[1], None], ids=["invalidate", "clear"])
async def test_an_invalidation_before_the_commit_is_not_undone(redis_url: str, server: Any, name: str | None) -> None:
    """One request in between reads the old row: it is served, and gone from every tier once the time is over."""
    async with _pair(redis_url) as (one, two, database, clock):
        assert await one.value() == "old"
        await one.cache.invalidate(name)
        assert [await each.value() for each in (one, two)] == ["old", "old"]
        database.rows[ADA[1]] = "new"
        assert await one.value() == "old"
        kept = [server.pttl(key) for key in server.scan_iter("ctx:*:v:*")]
        assert len(kept) == 1
        assert max(kept) < 2000 * SETTLE
        _pass(server, clock, SETTLE * (1 if name else 2))
        assert [await each.value() for each in (one, two)] == ["new", "new"]
        calls = len(database.calls)
        clock.advance(600)
        assert [await each.value() for each in (one, two)] == ["new", "new"]
        assert len(database.calls) == calls


async def test_it_costs_one_load_more(redis_url: str, server: Any) -> None:
    """Within the time what was loaded is shared as usual, by memory and by Redis."""
    async with _pair(redis_url) as (one, two, database, clock):
        await one.cache.invalidate(ADA[1])
        for _ in range(3):
            assert [await each.value() for each in (one, two)] == ["old", "old"]
        assert len(database.calls) == 1
        # The age of a value in Redis is of real time: at the very end it may look older than it is.
        _pass(server, clock, SETTLE + 1)
        for _ in range(3):
            await one.get()
            await two.get()
        assert len(database.calls) == 2


async def test_without_redis_it_holds_for_the_process() -> None:
    """Memory alone remembers what was invalidated."""
    database, clock = Database({ADA[1]: "old"}), FakeClock()
    async with instance(database, policy=POLICY, clock=clock) as one:
        await one.cache.invalidate(ADA[1])
        assert await one.value() == "old"
        database.rows[ADA[1]] = "new"
        clock.advance(SETTLE - 0.1)
        assert await one.value() == "old"
        clock.advance(0.1)
        assert await one.value() == "new"


@pytest.mark.parametrize("is_held", [False, True])
async def test_a_load_that_began_inside_is_not_kept_after_it_and_joined_by_no_later_caller(
    redis_url: str,
    *,
    is_held: bool,
) -> None:
    """It may return uncommitted rows, to callers from before the end only; also while a block is open."""
    async with _pair(redis_url) as (one, two, database, clock), anyio.create_task_group() as callers:
        if is_held:
            await two.cache.hold([ADA[1]], b"holder")
        answers: list[str | None] = []

        async def ask() -> None:
            answers.append(await one.value())

        await one.cache.invalidate(ADA[1])
        database.hold()
        callers.start_soon(ask)
        await database.started(1)
        database.rows[ADA[1]] = "new"
        clock.advance(SETTLE)
        callers.start_soon(ask)
        await database.started(2)
        database.release()
        await eventually_async(lambda: len(answers) == 2)
        assert sorted(map(str, answers)) == ["new", "old"]
        assert await one.value() == "new"


async def test_such_an_entry_has_no_grace(redis_url: str, server: Any) -> None:
    """The source is down at its end: nothing that may never have been committed stands in."""
    async with _pair(redis_url) as (one, _, database, clock):
        await one.cache.invalidate(ADA[1])
        await one.get()
        database.error = SourceUnavailable("down")
        _pass(server, clock, SETTLE)
        with pytest.raises(SourceUnavailable):
            await one.get()


@pytest.mark.parametrize("loss", ["the mark", "flushall"])
async def test_an_instance_remembers_announced_invalidations(redis_url: str, server: Any, loss: str) -> None:
    """Redis has lost when the user was invalidated, and keeps what another one has loaded for the whole time."""
    async with _pair(redis_url) as (one, two, database, clock):
        for each in (one, two):
            await eventually_async(partial(_is_heard, each))
            await each.get()
        await one.cache.invalidate(ADA[1])
        if loss == "flushall":
            server.flushall()
        else:
            server.delete(KEYS.of(ADA).mark)
        database.rows[ADA[1]] = "old"
        async with instance(database, url=redis_url, policy=POLICY, clock=clock) as newcomer:
            await newcomer.get()
        assert [await each.value() for each in (one, two)] == ["old", "old"]
        database.rows[ADA[1]] = "new"
        clock.advance(SETTLE)
        assert [await each.value() for each in (one, two)] == ["new", "new"]


async def test_a_warm_start_keeps_nothing_longer(redis_url: str, server: Any) -> None:
    """A value from Redis ends in a new process with the window it was loaded in."""
    async with _pair(redis_url) as (one, _, database, clock):
        await one.cache.invalidate(ADA[1])
        for _ in range(2):
            await one.get()
        assert one.cache.warming is not None
        await one.cache.warming.remember()
        async with instance(database, url=redis_url, policy=POLICY, clock=clock) as newcomer:
            assert newcomer.cache.warming is not None
            assert await newcomer.cache.warming.recall() == 1
            assert newcomer.cache.peek(ADA) is not None
            database.rows[ADA[1]] = "new"
            _pass(server, clock, SETTLE)
            assert await newcomer.value() == "new"


async def test_the_source_learns_of_announced_invalidations_too(redis_url: str, server: Any) -> None:
    """Its replica may lag behind an invalidation whose mark Redis has lost."""
    async with _pair(redis_url) as (one, _, database, clock):
        await one.get()
        await one.cache.invalidate(ADA[1])
        outlast_marks(redis_url)
        clock.advance(1)
        await one.get()
        assert database.told[-1] == (ADA[1], 1.0)


async def test_a_clear_costs_no_more_calls_the_second_time() -> None:
    """The windows of a share of the users end together, so that their loads travel together."""
    database, clock = Database(batch_size=100), FakeClock()
    users = [("", f"user{number}") for number in range(1000)]
    policy = replace(POLICY, max_batches=1000)
    async with instance(database, policy=policy, clock=clock) as one:

        async def ask_all() -> int:
            before = len(database.batches)
            async with anyio.create_task_group() as tasks:
                for user in users:
                    tasks.start_soon(one.get, user)
            return len(database.batches) - before

        await one.cache.invalidate(None)
        first = await ask_all()
        clock.advance(SETTLE)
        second = await ask_all()
        for _ in range(7):
            clock.advance(SETTLE / 8)
            second += await ask_all()
        # The last call of each share may be for less than a hundred.
        assert second <= first + 4
        assert len(database.calls) == 2000
        assert await ask_all() == 0


async def test_a_load_that_leaves_redis_alone_keeps_nothing(redis_url: str) -> None:
    """Overtaken again and again it does not look, and cannot know that another instance holds the user."""
    async with _pair(redis_url) as (one, two, database, _):
        await two.cache.hold([ADA[1]], b"holder")

        async def load(moved_ago: float) -> Fetched[str]:
            database.calls.append(ADA[1])
            if len(database.calls) <= ALONE_AFTER:
                await one.cache.invalidate(ADA[1])
            return Fetched("old", "db")

        assert (await one.get(ADA, load)).entry.value == "old"
        assert len(database.calls) == ALONE_AFTER + 1
        assert one.cache.peek(ADA) is None


async def test_values_of_the_user_are_removed_in_every_tenant_this_instance_knows(redis_url: str, server: Any) -> None:
    """Values of unknown tenants stay in Redis, are unreadable, and expire."""
    async with _pair(redis_url) as (one, two, _, _):
        await one.get()
        await one.get(("acme", ADA[1]))
        await two.get(("other", ADA[1]))
        await one.get(BOB)
        assert len(list(server.scan_iter("ctx:*:v:*"))) == 4
        _, reach = await one.cache.invalidate(ADA[1])
        assert reach.knew is True
        assert len(list(server.scan_iter("ctx:*:v:*"))) == 2


async def test_the_report_says_whether_there_was_anything_to_forget(redis_url: str) -> None:
    """A generation in Redis says that the user was looked up lately; an invalidation makes none."""
    async with _pair(redis_url) as (one, two, _, _):
        for _ in range(2):
            dropped, reach = await one.cache.invalidate("typo")
            assert (dropped, reach.knew) == (0, False)
        await two.get()
        dropped, reach = await one.cache.invalidate(ADA[1])
        assert (dropped, reach.knew) == (0, True)


async def test_the_time_counts_from_the_return_of_the_invalidation(redis_url: str, server: Any) -> None:
    """It has waited for an instance that has died: what was loaded meanwhile by any instance is loaded again."""
    async with _pair(redis_url) as (one, two, database, clock):
        for each in (one, two):
            await eventually_async(partial(_is_heard, each))
        _, reach = await one.cache.invalidate(ADA[1])
        assert reach.silent == ()
        _pass(server, clock, SETTLE)
        assert await two.value() == "old"
        await one.cache.renew([ADA[1]])
        await eventually_async(lambda: two.cache.peek(ADA) is None)
        assert await two.value() == "old"
        database.rows[ADA[1]] = "new"
        _pass(server, clock, SETTLE)
        assert [await each.value() for each in (one, two)] == ["new", "new"]


async def test_a_thousand_names_are_forgotten_once_more_in_one_trip(redis_url: str, server: Any) -> None:
    """One by one they take longer than a short `settle`, or a long one far away: the first would be kept again."""
    names = [f"{number}@example.org" for number in range(1000)]
    async with _pair(redis_url) as (one, two, _, _):
        for each in (one, two):
            await eventually_async(partial(_is_heard, each))
            for name in names[::100]:
                await each.get(("", name))
        before = server.info("stats")["total_reads_processed"]
        reach = await one.cache.renew(names)
        assert server.info("stats")["total_reads_processed"] - before < len(names) / 2
        assert [len(reach.confirmed), reach.silent] == [1, ()]
        assert [each.cache.peek(("", name)) for each in (one, two) for name in names[::100]] == 20 * [None]


async def test_whether_redis_has_taken_note_of_the_time_is_told(redis_url: str, server: Any) -> None:
    """An error is an answer, too."""
    async with _pair(redis_url) as (one, _, _, _):
        assert await one.cache.settle_from_now([ADA[1]])
        server.execute_command("ACL", "SETUSER", "default", "-set")
        try:
            assert not await one.cache.settle_from_now([ADA[1]])
        finally:
            server.execute_command("ACL", "SETUSER", "default", "+@all")


@pytest.mark.parametrize("loss", ["flushall", "restarted empty"])
async def test_what_a_newcomer_loads_where_redis_has_lost_the_marks_is_not_kept(loss: str) -> None:
    """It started after the invalidation and has no record of it, but learns that Redis has lost its state."""
    database, clock = Database({ADA[1]: "old"}), FakeClock()
    with Valkey.start() as own, redis.Redis.from_url(own.url) as client:
        async with instance(database, url=own.url, policy=POLICY, clock=clock) as one:
            await one.cache.invalidate(ADA[1])
        async with instance(database, url=own.url, policy=POLICY, clock=clock) as newcomer:
            await eventually_async(partial(_is_heard, newcomer))
            if loss == "flushall":
                client.flushall()
            else:
                own.kill()
                own.restart()
            await eventually_async(partial(_is_heard, newcomer))
            await newcomer.get()
            settling = newcomer.cache.settling
            await eventually_async(lambda: loss != "flushall" or settling.moved_ago(ADA[1], None) < math.inf)
            database.rows[ADA[1]] = "new"
            _pass(client, clock, 2 * SETTLE)
            assert await newcomer.value() == "new"
        async with instance(database, url=own.url, policy=POLICY, clock=clock) as another:
            assert await another.value() == "new"


async def test_an_instance_that_begins_on_an_emptied_redis_takes_everyone_for_invalidated(redis_url: str) -> None:
    """No mark and no announcement is left of what was invalidated just before."""
    database, clock = Database({ADA[1]: "old"}), FakeClock()
    with redis.Redis.from_url(redis_url) as client:
        async with instance(database, url=redis_url, policy=POLICY, clock=clock) as one:
            await one.cache.invalidate(ADA[1])
            client.flushall()
            async with instance(database, url=redis_url, policy=POLICY, clock=clock) as newcomer:
                assert await newcomer.value() == "old"
                database.rows[ADA[1]] = "new"
                _pass(client, clock, 2 * SETTLE)
                assert await newcomer.value() == "new"
