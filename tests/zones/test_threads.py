"""How tasks wait for other threads: results, cancellation, loops that are gone, and two loops on one service."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import anyio
import pytest

from ctxmiddleware.model import Zone
from ctxmiddleware.zones.service import Backoff, ZonesService
from ctxmiddleware.zones.threads import Bells, in_daemon_thread
from tests.waiting import eventually, eventually_async

from .conftest import DEADLINE, some_zones


@pytest.mark.anyio
async def test_a_thread_gives_back_its_result_or_its_error() -> None:
    """The caller gets what the function returned or raised, from a daemon thread of the given name."""
    thread = await in_daemon_thread("a-name", lambda given_up: threading.current_thread())
    assert (thread.name, thread.daemon) == ("a-name", True)
    error = ValueError("as it was raised")

    def fail(given_up: threading.Event) -> None:
        raise error

    with pytest.raises(ValueError, match="as it was raised") as caught:
        await in_daemon_thread("a-name", fail)
    assert caught.value is error


@pytest.mark.anyio
async def test_a_cancelled_caller_leaves_the_thread_behind() -> None:
    """Cancellation does not wait for the thread, and tells it that nobody waits any more."""
    end, told = threading.Event(), threading.Event()

    def hang(given_up: threading.Event) -> None:
        end.wait(DEADLINE)
        if given_up.is_set():
            told.set()

    with anyio.fail_after(DEADLINE / 2), anyio.move_on_after(0.02) as scope:
        await in_daemon_thread("hanging", hang)
    assert scope.cancelled_caught
    assert not told.is_set()
    end.set()
    assert told.wait(DEADLINE)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_thread_may_outlive_the_loop_that_started_it(backend: str) -> None:
    """A thread that ends after its loop has nobody to tell, which is no error."""
    end, threads = threading.Event(), []

    def hang(given_up: threading.Event) -> None:
        threads.append(threading.current_thread())
        end.wait(DEADLINE)

    async def main() -> None:
        with anyio.move_on_after(0.02):
            await in_daemon_thread("left behind", hang)

    anyio.run(main, backend=backend)
    eventually(lambda: threads)
    end.set()
    threads[0].join(DEADLINE)
    assert not threads[0].is_alive()


@pytest.mark.anyio
async def test_a_bell_wakes_waiters_whose_condition_has_come_true() -> None:
    """A ring lets all look again; those who find it true go on and the others keep waiting."""
    bell, ready, went = Bells(), set[str](), []

    def went_on(name: str) -> Callable[[], bool]:
        return lambda: name in went

    async def wait(name: str) -> None:
        await bell.until(lambda: name in ready)
        went.append(name)

    with anyio.fail_after(DEADLINE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait, "a")
            tasks.start_soon(wait, "b")
            await anyio.wait_all_tasks_blocked()
            for name in ("b", "a"):
                ready.add(name)
                threading.Thread(target=bell.ring).start()
                await eventually_async(went_on(name))
    assert went == ["b", "a"]


@pytest.mark.anyio
async def test_a_ring_just_before_the_wait_is_not_missed() -> None:
    """What comes true between the first look and the wait is seen, though its ring found nobody waiting."""
    bell, looks = Bells(), []

    def done() -> bool:
        looks.append(True)
        bell.ring()
        return len(looks) > 1

    with anyio.fail_after(DEADLINE):
        await bell.until(done)
    assert len(looks) == 3


class Counting:
    """A source that notices two loads at once."""

    def __init__(self) -> None:
        self.calls = 0
        self.overlaps = 0
        self._busy = threading.Lock()

    async def fetch(self) -> Sequence[Zone]:
        if not self._busy.acquire(blocking=False):
            self.overlaps += 1
            return some_zones(1)
        try:
            self.calls += 1
            await anyio.lowlevel.checkpoint()
            if self.calls % 3 == 0:
                raise OSError("now and then")
            return some_zones(self.calls % 5)
        finally:
            self._busy.release()


@pytest.mark.parametrize("backends", [("asyncio", "asyncio"), ("asyncio", "trio")], ids="-".join)
def test_two_loops_in_two_threads_share_one_service(backends: tuple[str, str]) -> None:
    """Each loop runs it, one of them loads at a time, both see the snapshots, and either may end first."""
    source = Counting()
    service = ZonesService(source, ttl=1e-4, backoff=Backoff(first=1e-4, most=1e-4))
    errors: list[BaseException] = []

    async def until(calls: int) -> None:
        with anyio.fail_after(DEADLINE):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(service.run)
                tasks.start_soon(service.run)
                await service.wait_loaded()
                while source.calls < calls:
                    try:
                        await service.refresh()
                    except OSError:
                        continue
                tasks.cancel_scope.cancel()

    def run(backend: str, calls: int) -> None:
        try:
            anyio.run(until, calls, backend=backend)
        except BaseException as error:  # noqa: BLE001 - told below
            errors.append(error)

    threads = [
        threading.Thread(target=run, args=(backend, calls)) for backend, calls in zip(backends, (200, 400), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * DEADLINE)
    assert errors == []
    assert source.overlaps == 0
    state = service.state()
    # Each of the four tasks may have been cancelled in a load of its own.
    assert state.refreshes + state.failures >= 400 - 4
    assert state.failures > 100


def test_a_loop_that_looked_too_early_does_not_load_again() -> None:
    """Between a look at the time and the load another loop may have loaded, and once is enough."""
    source, looked, go_on = Counting(), threading.Event(), threading.Event()

    def clock() -> float:
        if threading.current_thread().name == "late" and not looked.is_set():
            looked.set()
            go_on.wait(DEADLINE)
        return 0.0

    async def asleep(seconds: float) -> None:
        slept.append(seconds)
        await anyio.sleep_forever()

    async def run() -> None:
        with anyio.fail_after(DEADLINE):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(service.run)
                await eventually_async(lambda: slept)
                tasks.cancel_scope.cancel()

    slept: list[float] = []
    service = ZonesService(source, clock=clock, sleep=asleep)
    late = threading.Thread(target=anyio.run, args=(run,), name="late")
    late.start()
    assert looked.wait(DEADLINE)
    anyio.run(service.refresh)
    go_on.set()
    late.join(DEADLINE)
    assert (source.calls, slept) == (1, [86_400.0])
