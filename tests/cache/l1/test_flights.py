"""Whether callers share one load and cannot harm each other."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import threading
import traceback
from collections.abc import Sequence
from dataclasses import replace

import anyio
import anyio.lowlevel
import pytest
from anyio import get_cancelled_exc_class

from ctxmiddleware.cache.base import Fetched, Found, Key
from ctxmiddleware.cache.shared import Look
from ctxmiddleware.errors import ConfigurationError, NotOpen, SourceError, SourceUnavailable
from ctxmiddleware.testing import FakeClock
from tests.backends import asyncio_only
from tests.cache.machine.fake_server import FakeServer
from tests.cache.machine.fake_tier import FakeTier
from tests.cache.rig import ADA, BOB, STEADY, Database, Load, instance
from tests.waiting import eventually_async

pytestmark = pytest.mark.anyio


async def test_a_thousand_concurrent_misses_cost_one_load() -> None:
    """Callers that miss together wait for one load and get the same entry; look-ups and answers add up."""
    database = Database()
    found: list[Found[str]] = []
    async with instance(database) as one:

        async def ask() -> None:
            found.append(await one.get())

        database.hold()
        async with anyio.create_task_group() as callers:
            for _ in range(1000):
                callers.start_soon(ask)
            await database.started(1)
            database.release()
        assert database.calls == [ADA[1]]
        assert len({id(each.entry) for each in found}) == 1
        assert (await one.get()).origin == "memory"
    counters = one.counters
    assert (counters.get("hit", "memory"), counters.get("miss", "memory")) == (1, 1000)
    assert (counters.get("load", "started"), counters.get("load", "shared")) == (1, 999)


async def test_different_users_and_partitions_load_side_by_side() -> None:
    """One load at a time is a rule for each key, not for all."""
    database = Database()
    async with instance(database) as one:
        database.hold()
        async with anyio.create_task_group() as callers:
            for key in (ADA, BOB, ("tenant", ADA[1])):
                callers.start_soon(one.get, key)
            await database.started(3)
            database.release()
        assert database.most_at_once == 3
        assert len(one.cache.memory) == 3


async def test_the_first_of_twenty_cancelled_leaves_the_load_to_the_rest() -> None:
    """Nineteen callers are served by the load that the cancelled one began."""
    database = Database()
    served: list[str | None] = []
    async with instance(database) as one:

        async def ask() -> None:
            served.append(await one.value())

        database.hold()
        with anyio.CancelScope() as first:
            async with anyio.create_task_group() as callers:
                callers.start_soon(ask)
                await database.started(1)
                async with anyio.create_task_group() as others:
                    for _ in range(19):
                        others.start_soon(_shielded, ask)
                    await eventually_async(lambda: one.counters.get("load", "shared") == 19)
                    first.cancel()
                    database.release()
    assert served == [f"{ADA[1]} 1"] * 19
    assert len(database.calls) == 1


async def _shielded(ask: object) -> None:
    assert callable(ask)
    with anyio.CancelScope(shield=True):
        await ask()


async def test_a_load_whose_last_caller_has_gone_is_carried_to_its_end() -> None:
    """What was asked for is kept, and the next request finds it."""
    database = Database()
    async with instance(database) as one:
        database.hold()
        with anyio.move_on_after(0.01) as gone:
            await one.get()
        assert gone.cancelled_caught
        database.release()
        await eventually_async(lambda: len(one.cache.memory) == 1)
        assert (await one.get()).origin == "memory"
    assert len(database.calls) == 1


async def test_a_failed_load_fails_all_who_wait_and_nobody_after() -> None:
    """Each waiter has the error to itself, with the load's own traceback; the next request loads again."""
    database = Database(error=SourceUnavailable("down", retry_after=7))
    errors: list[SourceUnavailable] = []
    async with instance(database) as one:

        async def ask() -> None:
            try:
                await one.get()
            except SourceUnavailable as error:
                errors.append(error)

        database.hold()
        async with anyio.create_task_group() as callers:
            for _ in range(50):
                callers.start_soon(ask)
            await database.started(1)
            database.release()
        database.error = None
        assert await one.value() == f"{ADA[1]} 1"
    assert len({id(error) for error in errors}) == 50
    assert {(str(error), error.retry_after) for error in errors} == {("down", 7)}
    depths = {len(traceback.extract_tb(error.__traceback__)) for error in errors}
    assert len(depths) == 1
    assert "in load" in "".join(traceback.format_exception(errors[-1]))
    assert one.counters.get("load", "failed") == 1


class Demanding(SourceError):
    """An error that cannot be made from its message alone."""

    def __init__(self, message: str, *, row: int) -> None:
        super().__init__(f"{message} in row {row}")


@pytest.mark.parametrize("error", [Demanding("bad", row=3), ConfigurationError("a", "b"), ZeroDivisionError("oh")])
async def test_any_error_of_a_source_reaches_the_caller_as_it_is(error: Exception) -> None:
    """Its type and its message are the source's, even where it cannot be copied."""
    database = Database(error=error)
    async with instance(database) as one:
        with pytest.raises(type(error)) as told:
            await one.get()
    assert str(told.value) == str(error)


async def test_the_cause_of_an_error_comes_along() -> None:
    """What a source was raising from is still there for whoever reads the log."""
    async with instance() as one:

        async def load(moved_ago: float) -> Fetched[str]:
            try:
                raise OSError("cable")
            except OSError as error:
                raise SourceUnavailable("down") from error

        with pytest.raises(SourceUnavailable) as told:
            await one.get(ADA, load)
    assert isinstance(told.value.__cause__, OSError)


async def test_a_failure_nobody_waits_for_is_not_a_complaint_at_collection(caplog: pytest.LogCaptureFixture) -> None:
    """An error of a load whose callers have all gone is not reported as never retrieved."""
    database = Database(error=SourceUnavailable("down"))
    async with instance(database) as one:
        database.hold()
        with anyio.move_on_after(0.01):
            await one.get()
        database.release()
        await eventually_async(lambda: database.ended == 1)
    gc.collect()
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_load_has_context_variables_of_its_own() -> None:
    """A load neither sees the request that came first nor leaves anything behind for it or for the next load."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    seen: list[str] = []
    async with instance() as one:

        async def load(moved_ago: float) -> Fetched[str]:
            seen.append(variable.get())
            variable.set("the load's")
            return Fetched("v", "db")

        variable.set("the request's")
        await one.get(ADA, load)
        await one.get(BOB, load)
        assert variable.get() == "the request's"
    assert seen == ["none", "none"]


async def test_a_source_that_cancels_itself_harms_nobody_else() -> None:
    """A cancellation out of a source is an error of that load; the cache goes on."""

    class Stop(Exception):
        pass

    async with instance() as one:

        async def load(moved_ago: float) -> Fetched[str]:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await anyio.sleep(1)
            raise Stop

        with pytest.raises(Stop):
            await one.get(ADA, load)
        assert await one.value(BOB) == f"{BOB[1]} 1"


async def _leaks(moved_ago: float) -> Fetched[str]:
    inner = asyncio.ensure_future(asyncio.sleep(60))
    asyncio.get_running_loop().call_soon(inner.cancel)
    await inner
    raise AssertionError


async def _ends_itself(moved_ago: float) -> Fetched[str]:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(60)
    raise AssertionError


@asyncio_only
@pytest.mark.parametrize("batch_size", [1, 100])
@pytest.mark.parametrize("load", [_leaks, _ends_itself])
async def test_a_cancellation_that_slips_out_of_a_source_ends_that_load_only(load: Load, batch_size: int) -> None:
    """Somebody cancelled what a source awaits, or its task: that user gets a 503, and later the next load's answer.

    Others whose loads are under way are served as if nothing had happened, and so is everybody after.
    """
    database = Database(batch_size=batch_size)
    answers: list[str | None] = []
    async with instance(database) as one, anyio.create_task_group() as callers:

        async def ask() -> None:
            answers.append(await one.value(BOB))

        database.hold()
        callers.start_soon(ask)
        await database.started(1)
        with anyio.fail_after(30), pytest.raises(SourceUnavailable, match="cancelled"):
            await one.get(ADA, load)
        database.release()
        for key in (ADA, ("", "cy")):
            assert await one.value(key) == f"{key[1]} 1"
    assert answers == [f"{BOB[1]} 1"]
    assert one.counters.get("load", "failed") == 1
    assert len(one.cache.flights) == 0


@asyncio_only
async def test_what_is_known_stands_in_for_a_source_that_lets_a_cancellation_out() -> None:
    """It is a source that cannot answer, like any other."""
    async with instance() as one:
        await one.get()
        one.clock.advance(900)
        assert (await one.get(ADA, _leaks)).stale


@asyncio_only
async def test_cancelled_in_the_shared_tier_a_load_fails_and_the_cache_goes_on() -> None:
    """A cancellation out of a look, before any source is asked, leaves nobody waiting either."""

    class Leaking(FakeTier):
        async def look(self, keys: Sequence[Key], keep_ms: int) -> list[Look[str] | None]:
            if keys == [ADA]:
                await _leaks(0)
            return await super().look(keys, keep_ms)

    tier = Leaking(FakeServer(FakeClock()), anyio.lowlevel.checkpoint)
    async with instance(shared=tier) as one:
        with anyio.fail_after(30), pytest.raises(SourceUnavailable, match="cancelled"):
            await one.get()
        assert await one.value(BOB) == f"{BOB[1]} 1"


async def test_a_load_takes_load_timeout_at_most() -> None:
    """A source that never answers is unavailable after `load_timeout`, and its load is cancelled."""
    database = Database()
    async with instance(database, policy=replace(STEADY, load_timeout=1.0)) as one:
        database.hold()
        with pytest.raises(SourceUnavailable, match=r"did not answer within 1 s"):
            await one.get()
        assert database.running == 0
    assert one.counters.get("load", "failed") == 1


async def test_closing_lets_loads_land() -> None:
    """A load under way at shut-down is given time to end, and its caller its answer."""
    database = Database()
    answers: list[str | None] = []
    async with anyio.create_task_group() as callers, instance(database) as one:

        async def ask() -> None:
            answers.append(await one.value())

        database.hold()
        callers.start_soon(ask)
        await database.started(1)
        callers.start_soon(_release_soon, database)
    assert answers == [f"{ADA[1]} 1"]


async def _release_soon(database: Database) -> None:
    await anyio.sleep(0.01)
    database.release()


async def test_closing_ends_loads_that_do_not_land() -> None:
    """A load that outlasts the drain is cancelled, and whoever waits for it is told that the source is unavailable."""
    database = Database()
    errors: list[Exception] = []
    cancelled: list[str] = []

    async def load(moved_ago: float) -> Fetched[str]:
        try:
            await anyio.sleep(60)
        except get_cancelled_exc_class():
            cancelled.append("yes")
            raise
        raise AssertionError

    async with anyio.create_task_group() as callers, instance(database, drain_seconds=0.02) as one:

        async def ask() -> None:
            try:
                await one.get(ADA, load)
            except SourceUnavailable as error:
                errors.append(error)

        callers.start_soon(ask)
        await eventually_async(lambda: len(one.cache.flights) == 1)
    assert cancelled == ["yes"]
    assert "shutting down" in str(errors[0])
    assert len(one.cache.flights) == 0


async def test_nothing_is_begun_while_it_closes() -> None:
    """A miss during the drain is told at once that the application is shutting down."""
    database = Database()
    errors: list[Exception] = []

    async def load(moved_ago: float) -> Fetched[str]:
        with anyio.CancelScope(shield=True):
            await eventually_async(lambda: one.cache.flights.opened.current.closing)
            try:
                await one.get(BOB)
            except SourceUnavailable as error:
                errors.append(error)
        return Fetched("late", "db")

    async with anyio.create_task_group() as callers, instance(database) as one:
        callers.start_soon(one.get, ADA, load)
        await eventually_async(lambda: len(one.cache.flights) == 1)
    assert [str(error) for error in errors] == ["the application is shutting down"]
    assert database.calls == []


async def test_unopened_it_says_what_to_write() -> None:
    """A miss on a cache that nobody opened is a clear error."""
    async with instance() as one:
        pass
    with pytest.raises(NotOpen, match="async with"):
        await one.get()


async def test_two_event_loops_in_two_threads_share_memory_and_not_flights() -> None:
    """Each loop runs its own loads; an invalidation in one reaches the loads of the other."""
    database = Database()
    async with instance(database) as one:
        await one.get(BOB)
        elsewhere: list[Found[str]] = []

        def other_loop() -> None:
            async def main() -> None:
                async with one.cache.flights.opened:
                    elsewhere.append(await one.get(BOB))
                    elsewhere.append(await one.get(("t", "carol")))

            anyio.run(main)

        thread = threading.Thread(target=other_loop)
        thread.start()
        await anyio.to_thread.run_sync(thread.join)
        assert [found.origin for found in elsewhere] == ["memory", "db"]
        assert (await one.get(("t", "carol"))).origin == "memory"


async def test_an_invalidation_in_one_loop_overtakes_a_load_in_another() -> None:
    """A load of another event loop's thread that began before the invalidation is neither kept nor answered with."""
    started, go_on = threading.Event(), threading.Event()
    loads: list[str] = []
    answers: list[str | None] = []

    async def load(moved_ago: float) -> Fetched[str]:
        loads.append("load")
        if len(loads) == 1:
            started.set()
            await anyio.to_thread.run_sync(go_on.wait)
            return Fetched("old", "db")
        return Fetched("new", "db")

    async with instance() as one:

        def other_loop() -> None:
            async def main() -> None:
                async with one.cache.flights.opened:
                    answers.append((await one.get(ADA, load)).entry.value)

            anyio.run(main)

        thread = threading.Thread(target=other_loop)
        thread.start()
        await anyio.to_thread.run_sync(started.wait)
        await one.cache.invalidate(ADA[1])
        assert len(one.cache.memory) == 0
        go_on.set()
        await anyio.to_thread.run_sync(thread.join)
        assert answers == ["new"]
        entry = one.cache.peek(ADA)
        assert entry is not None
        assert entry.value == "new"


class Panic(BaseException):
    """What some drivers raise that no `except Exception` catches."""


async def test_what_a_driver_raises_beside_exceptions_ends_one_load_only() -> None:
    """A panic in one user's load is that user's 503; everybody else, and that user later, is loaded."""
    database = Database()
    async with instance(database) as one:

        async def load(moved_ago: float) -> Fetched[str]:
            raise Panic("not an Exception")

        with pytest.raises(SourceUnavailable, match="broken off by Panic"):
            await one.get(ADA, load)
        assert await one.value(BOB) is not None
        assert await one.value(ADA) is not None


async def test_a_load_that_cannot_be_cancelled_does_not_hold_its_callers() -> None:
    """A source that works in a thread may go on for ever: whoever waits is told when the time is over."""
    policy = replace(STEADY, load_timeout=1.0)
    release = anyio.Event()
    async with instance(policy=policy, grace_seconds=0.1) as one:

        async def load(moved_ago: float) -> Fetched[str]:
            with anyio.CancelScope(shield=True):
                await release.wait()
            return Fetched("late", "db")

        with pytest.raises(SourceUnavailable, match="cannot be cancelled"):
            await one.get(ADA, load)
        release.set()


async def test_so_many_loads_at_a_time_and_no_more() -> None:
    """A crowd of different users asks the source a bounded number of times at once, and all are served."""
    database = Database()
    async with instance(database, policy=replace(STEADY, max_loads=3)) as one:
        database.hold()
        async with anyio.create_task_group() as callers:
            for number in range(20):
                callers.start_soon(one.value, ("", f"user{number}"))
            await database.started(3)
            await anyio.wait_all_tasks_blocked()
            assert database.running == 3
            database.release()
    assert (len(database.calls), database.most_at_once) == (20, 3)
