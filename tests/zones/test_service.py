"""When zones are loaded, what readers see meanwhile, and what a failing source does to that."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, cast

import anyio
import pytest

from ctxmiddleware.errors import ConfigurationError, SourceError, SourceMisconfigured, SourceUnavailable
from ctxmiddleware.model import Zone
from ctxmiddleware.zones.base import EMPTY
from ctxmiddleware.zones.service import Backoff, ZonesService

from .conftest import DEADLINE, FakeClock, some_zones

pytestmark = pytest.mark.anyio


class Script:
    """A source that gives one thing after another, the last one for ever, each when its gate is open."""

    def __init__(self, *outcomes: Sequence[Zone] | Exception) -> None:
        self._outcomes = outcomes
        self.calls = 0
        self.running = 0
        self.gate: anyio.Event | None = None
        self.begun = anyio.Event()

    async def fetch(self) -> Sequence[Zone]:
        outcome = self._outcomes[min(self.calls, len(self._outcomes) - 1)]
        self.calls += 1
        self.running += 1
        self.begun.set()
        try:
            if self.gate is not None:
                await self.gate.wait()
        finally:
            self.running -= 1
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def service_of(source: Script, clock: FakeClock, *, chance: float = 0.0, **options: Any) -> ZonesService:
    """Return a service over this source on this clock, whose chance is always the same."""
    return ZonesService(source, clock=clock, sleep=clock.sleep, rng=lambda: chance, **options)


async def test_zones_are_loaded_at_once_without_holding_anybody_up(clock: FakeClock) -> None:
    """Readers see the empty snapshot until the first load ends, and then its zones."""
    source = Script(some_zones(9))
    source.gate = anyio.Event()
    service = service_of(source, clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(service.run)
        await source.begun.wait()
        assert service.snapshot is EMPTY
        assert (service.state().state, service.state().age) == ("loading", None)
        clock.now += 2
        source.gate.set()
        with anyio.fail_after(DEADLINE):
            snapshot = await service.wait_loaded()
        clock.now += 5
        state = service.state()
        tasks.cancel_scope.cancel()
    assert snapshot is service.snapshot
    assert (state.state, state.count, state.age, state.refreshes, state.failures) == ("ready", 9, 7.0, 1, 0)


async def test_a_snapshot_is_replaced_after_its_ttl_and_not_before(clock: FakeClock) -> None:
    """The next load comes with the TTL, makes a new snapshot and leaves the old one as it was."""
    source = Script(some_zones(9), some_zones(4))
    service = service_of(source, clock, ttl=100.0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(service.run)
        assert await clock.asleep() == 100.0
        first = service.snapshot
        await clock.advance(99.9)
        assert service.snapshot is first
        assert source.calls == 1
        await clock.advance(0.1)
        await clock.asleep()
        tasks.cancel_scope.cancel()
    assert (source.calls, first.count, service.snapshot.count) == (2, 9, 4)


async def test_a_failing_source_is_asked_less_and_less_until_it_works(clock: FakeClock) -> None:
    """Waits double from one second to five minutes, start over after a success, and the last snapshot stays."""
    broken = [SourceUnavailable("down")] * 11
    source = Script(some_zones(9), *broken, some_zones(3), SourceUnavailable("down again"))
    service = service_of(source, clock, ttl=1000.0)
    waits = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(service.run)
        for _ in range(14):
            waits.append(await clock.asleep())
            if len(waits) in {2, 12}:
                assert (service.state().state, service.snapshot.count) == ("failing", 9)
            await clock.advance(waits[-1])
        await clock.asleep()
        tasks.cancel_scope.cancel()
    assert waits == [1000, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 1000, 1]
    assert (service.state().refreshes, service.state().failures, service.state().error) == (2, 13, "down again")
    assert service.snapshot.count == 3


@pytest.mark.parametrize(("chance", "wait"), [(0.0, 8.0), (0.5, 6.0), (1.0, 4.0)])
def test_the_wait_after_a_failure_is_shortened_by_chance(chance: float, wait: float) -> None:
    """Up to half of a wait is left to chance, so that a fleet does not ask all at once."""
    assert Backoff().delay(4, chance) == wait


def test_the_backoff_does_not_overflow() -> None:
    """After thousands of failures the wait is still the longest one."""
    assert Backoff(first=0.5, most=7.0).delay(100_000, 0.0) == 7.0


@pytest.mark.parametrize(("asked", "wait"), [(None, 1.0), (0.5, 1.0), (42.0, 42.0), (100_000.0, 300.0)])
async def test_a_source_may_say_when_to_come_back(clock: FakeClock, asked: float | None, wait: float) -> None:
    """A longer Retry-After is obeyed up to the longest wait."""
    service = service_of(Script(SourceUnavailable("busy", retry_after=asked)), clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(service.run)
        assert await clock.asleep() == wait
        tasks.cancel_scope.cancel()


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, bool]]:
    """Return level and "has a traceback" of what was logged above DEBUG, and forget it."""
    found = [(r.levelname, r.exc_info is not None) for r in caplog.records if r.levelno > logging.DEBUG]
    caplog.clear()
    return found


async def test_a_fault_is_logged_when_it_begins_changes_and_ends(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """One line per change of state, the recovery at the level of the failure; tracebacks and repetitions are DEBUG."""
    down, wrong = SourceUnavailable("down"), SourceMisconfigured("no such table")
    source = Script(some_zones(2), some_zones(2), down, down, down, wrong, wrong, some_zones(2), some_zones(2), down)
    service = service_of(source, clock, ttl=10.0)
    caplog.set_level(logging.DEBUG, "ctxmiddleware.zones")
    seen = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(service.run)
        for _ in range(10):
            wait = await clock.asleep()
            seen.append(told(caplog))
            await clock.advance(wait)
        tasks.cancel_scope.cancel()
    loaded, down_now, wrong_now, again = ([(level, False)] for level in ("INFO", "WARNING", "ERROR", "ERROR"))
    assert seen == [loaded, [], down_now, [], [], wrong_now, [], again, [], down_now]


@pytest.mark.parametrize(
    "outcome",
    [
        KeyError("secret-key"),
        ExceptionGroup("several", [ValueError("secret-key")]),
        cast("list[Zone]", [{"id": "a"}]),
        cast("list[Zone]", None),
        [Zone("a", "A", "R1"), Zone("a", "B", "R2")],
    ],
    ids=["error", "group", "no zones", "nothing", "an id twice"],
)
async def test_nothing_a_source_does_ends_the_service(clock: FakeClock, outcome: Sequence[Zone] | Exception) -> None:
    """Any exception and any garbage is a failed load, told without the text of foreign errors, and tried again."""
    service = service_of(Script(outcome, some_zones(5)), clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(service.run)
        await clock.asleep()
        failing = service.state()
        assert service.snapshot is EMPTY
        await clock.advance(1.0)
        await clock.asleep()
        tasks.cancel_scope.cancel()
    assert failing.state == "failing"
    assert "secret-key" not in str(failing.error)
    assert (service.state().state, service.state().error, service.snapshot.count) == ("ready", None, 5)


async def test_no_zones_at_all_are_believed_and_looked_at_again_soon(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """An empty answer empties contexts, warns once, and is asked again after minutes, not after a day."""
    service = service_of(Script(some_zones(2), [], [], some_zones(2)), clock)
    waits, logged = [], []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(service.run)
        for _ in range(4):
            waits.append(await clock.asleep())
            logged.append(told(caplog))
            if len(waits) == 2:
                assert (service.snapshot.count, service.state().state) == (0, "ready")
                assert service.snapshot is not EMPTY
            await clock.advance(waits[-1])
        tasks.cancel_scope.cancel()
    assert waits == [86_400, 300, 300, 86_400]
    assert logged[1:3] == [[("WARNING", False)], []]


async def test_a_source_that_never_answers_is_given_up(clock: FakeClock) -> None:
    """A load ends after the load timeout, whatever the source does about time."""
    source = Script(some_zones(1))
    source.gate = anyio.Event()
    service = service_of(source, clock, load_timeout=0.02)
    with anyio.fail_after(DEADLINE), pytest.raises(SourceUnavailable, match=r"within 0\.02 s"):
        await service.refresh()
    assert (source.running, service.state().state) == (0, "failing")


async def test_a_cancelled_load_leaves_the_service_usable(clock: FakeClock) -> None:
    """Whoever loads may be cancelled; nothing counts as failed and the next one loads."""
    source = Script(some_zones(3))
    source.gate = anyio.Event()
    service = service_of(source, clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(service.run)
        await source.begun.wait()
        tasks.cancel_scope.cancel()
    assert (source.running, service.state().failures, service.state().state) == (0, 0, "loading")
    source.gate.set()
    with anyio.fail_after(DEADLINE):
        assert (await service.refresh()).count == 3


async def test_another_loop_takes_over_when_the_loading_one_ends(clock: FakeClock) -> None:
    """Of two tasks that run the service one loads; when that one is cancelled, the other does."""
    source = Script(some_zones(3))
    source.gate = anyio.Event()
    service = service_of(source, clock)
    async with anyio.create_task_group() as second, anyio.create_task_group() as first:
        first.start_soon(service.run)
        await source.begun.wait()
        second.start_soon(service.run)
        await anyio.wait_all_tasks_blocked()
        assert source.running == 1
        first.cancel_scope.cancel()
        source.gate.set()
        with anyio.CancelScope(shield=True), anyio.fail_after(DEADLINE):
            assert (await service.wait_loaded()).count == 3
        second.cancel_scope.cancel()
    assert source.calls == 2


async def test_refresh_returns_what_is_newer_than_the_call(clock: FakeClock) -> None:
    """Callers during a load do not take its result, which may be older than they are, but share the next load."""
    source = Script(some_zones(1), some_zones(2), some_zones(3))
    source.gate = anyio.Event()
    service = service_of(source, clock)
    counts: list[int] = []

    async def refresh() -> None:
        counts.append((await service.refresh()).count)

    with anyio.fail_after(DEADLINE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(refresh)
            await source.begun.wait()
            for _ in range(5):
                tasks.start_soon(refresh)
            await anyio.wait_all_tasks_blocked()
            source.gate.set()
    assert sorted(counts) == [1, 2, 2, 2, 2, 2]
    assert source.calls == 2


async def test_a_failed_refresh_raises_and_keeps_the_snapshot(clock: FakeClock) -> None:
    """Who forces a load is told that it failed; readers keep what they had."""
    service = service_of(Script(some_zones(2), SourceError("row 3: name is NULL")), clock)
    before = await service.refresh()
    with pytest.raises(SourceError, match="row 3"):
        await service.refresh()
    assert service.snapshot is before
    assert service.state().failures == 1


async def test_a_refresh_moves_the_next_load(clock: FakeClock) -> None:
    """After a forced load the TTL begins anew, also for the loop that is asleep."""
    source = Script(some_zones(2))
    service = service_of(source, clock, ttl=100.0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(service.run)
        await clock.asleep()
        clock.now += 60
        await service.refresh()
        await clock.advance(40)
        assert await clock.asleep() == 60.0
        tasks.cancel_scope.cancel()
    assert source.calls == 2


@pytest.mark.parametrize(
    "build",
    [
        lambda: ZonesService(cast("Script", None), ttl=0),
        lambda: ZonesService(cast("Script", None), load_timeout=float("nan")),
        lambda: Backoff(first=0),
        lambda: Backoff(first=2, most=1),
        lambda: Backoff(most=float("inf")),
    ],
)
def test_times_that_cannot_work_are_refused(build: Any) -> None:
    """Options are checked when the service is built."""
    with pytest.raises(ConfigurationError):
        build()


def test_the_service_shows_its_state() -> None:
    """Its repr tells where it stands."""

    class Warehouse:
        async def fetch(self) -> Iterable[Zone]:
            return ()

        def __repr__(self) -> str:
            return "<Warehouse>"

    assert repr(ZonesService(cast("Script", Warehouse()))) == "<ZonesService loading, 0 zones from <Warehouse>>"
