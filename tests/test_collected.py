"""The garbage collector may end a task at any line of any thread: no lock is entered twice, and nothing is lost."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final

import anyio
import pytest

import ctxmiddleware
from ctxmiddleware.cache.base import Fence
from ctxmiddleware.cache.redis.channel import Channel
from ctxmiddleware.cache.redis.keys import KeySpace
from ctxmiddleware.cache.redis.landings import Landings
from ctxmiddleware.cache.redis.lease import Leases
from ctxmiddleware.cache.refill import Refill
from ctxmiddleware.cache.settling import Settling
from ctxmiddleware.cache.shared import Claiming
from ctxmiddleware.cache.tiered import TieredCache
from ctxmiddleware.cache.watchers import Watchers
from ctxmiddleware.collectable import CollectableLock
from ctxmiddleware.perloop import PerLoop
from ctxmiddleware.sources.paths import Paths
from ctxmiddleware.stats import Counters
from ctxmiddleware.zones.threads import Bells
from tests.cache.rig import ADA, BOB, STEADY, Database

from .people import plugin_of
from .waiting import PATIENCE

_PACKAGE: Final = ctxmiddleware.__path__[0]


class Never:
    """The object that a collected task waits for."""

    def __await__(self) -> Generator[None, None, None]:
        yield


async def never(*_: object) -> Any:
    """Wait for ever."""
    await Never()


@dataclass
class Scene:
    """A task that is about to be collected, what its thread does meanwhile, and what holds in the end."""

    task: Coroutine[Any, Any, Any]
    work: Callable[[], object]
    check: Callable[[], None]


def leases() -> Scene:
    """A claim whose answer is lost: the lease is held all the same, to be given back."""
    one = Leases(never, KeySpace("n", b"s"), me=lambda: "me", wake=lambda _: None, token=lambda: b"token", lasts=1.0)

    async def claim() -> None:
        await one.claim([Claiming(ADA, Fence(b"", b""), 1000, lambda: False)])

    def check() -> None:
        one.forget([])
        assert len(one) == 1

    return Scene(claim(), lambda: one.forget([b"another"]), check)


def channel() -> Scene:
    """A loop that listened: another may, at once."""
    one, ear, other = Channel(lambda _: None), object(), object()

    async def listen() -> None:
        assert one.take(ear, 1e9)
        try:
            await Never()
        finally:
            one.leave(ear)

    def work() -> None:
        one.take(other, 0.0)
        one.leave(other)

    return Scene(listen(), work, lambda: _holds(one.take(object(), 1.0)))


def landings() -> Scene:
    """A wait for another instance's load: further waits for the same load are woken all the same."""
    one: Landings = Landings(lambda key: key[1].encode())

    async def wait() -> None:
        with one.of([ADA]):
            await Never()

    def work() -> None:
        with one.of([ADA, BOB]) as mine:
            one.landed([ADA[1].encode()])
            assert mine._landed == {ADA}

    def check() -> None:
        with one.of([BOB]):
            assert len(one) == 1

    return Scene(wait(), work, check)


def refill() -> Scene:
    """A look-up at the start: it is under way no longer."""
    one: Refill[str] = Refill(lambda key, entry: True)

    async def look() -> None:
        with one.begin():
            await Never()

    def work() -> None:
        with one.begin() as mine:
            one.hear(b"news")
            one.keep(mine, [])

    def check() -> None:
        one.hear(None)
        assert one._news is None

    return Scene(look(), work, check)


def watchers() -> Scene:
    """A watch: it is forgotten."""
    one = Watchers()

    async def watch() -> None:
        with one.watching("ada"):
            await Never()

    def work() -> None:
        with one.watching("ada"):
            one.ring("ada")
            one.ring(None)

    return Scene(watch(), work, lambda: _holds(len(one) == 0))


def settling() -> Scene:
    """A hold around a transaction: it holds no longer."""
    one = Settling(5.0, 60.0, lambda: 1000.0)

    async def hold() -> None:
        one.hold(["ada"])
        try:
            await Never()
        finally:
            one.release(["ada"])

    def work() -> None:
        one.hear(b"digest")
        one.hold(["ada", "bob"])
        one.release(["ada", "bob"])

    def check() -> None:
        one.hear(None)
        assert one._held == {}

    return Scene(hold(), work, check)


def paths() -> Scene:
    """A call of the source, the one that tries a way that was left alone: another may try."""
    now = [0.0]
    one = Paths(["way"], lambda: now[0])
    breaker = one._breakers["way"]
    for _ in range(5):
        breaker.failure(breaker.admit() or 0)
    now[0] = 1.5

    def work() -> None:
        breaker.success(-1)
        breaker.failure(-1)
        breaker.admit()

    def check() -> None:
        now[0] += 0.1
        breaker.success(-1)
        assert breaker.state == "half-open"

    return Scene(one.through("way", never), work, check)


def zones() -> Scene:
    """A wait for zones: it is rung for no longer."""
    one = Bells()

    def work() -> None:
        one.ring()
        asyncio.ensure_future(one.until(lambda: True)).cancel()

    return Scene(one.until(lambda: False), work, lambda: _holds(not one._bells))


def flights() -> Scene:
    """A load: its callers have an error, and it is in the air no longer."""
    cache: TieredCache[str] = TieredCache(STEADY, Database(), counters=Counters())
    one = cache.flights
    one.opened._running()

    async def load() -> None:
        flight = one.start(ADA)
        with one.aboard([flight]):
            await Never()

    def work() -> None:
        flight = one.start(BOB)
        one.settle(flight, lambda: None)
        one.overtake(BOB[1], lambda: 0)
        one.doubt(BOB[1], lambda: None)
        one.fail(flight, ValueError())

    def check() -> None:
        one.overtake(None, lambda: 0)
        assert len(one) == 0

    return Scene(load(), work, check)


def counts() -> Scene:
    """A call of the source: what counts may be in the middle of it."""
    counters = Counters()
    cache: TieredCache[str] = TieredCache(STEADY, _NeverLoads(), counters=counters)
    flight: Any = _Flight()

    def check() -> None:
        assert counters.get("load", "failed") == 1

    return Scene(cache._filling._ask([flight]), lambda: counters.add("load", "failed"), check)


def invalidations() -> Scene:
    """An invalidation that Redis may have carried out: nothing is trusted that was looked up before."""
    counters = Counters()
    cache: TieredCache[str] = TieredCache(STEADY, Database(), shared=_NeverTold(), counters=counters)  # type: ignore[arg-type]  # the part that is asked
    trust = cache.trust
    trust.prove(1e12)
    return Scene(cache.invalidate("ada"), lambda: cache.memory.drop("bob"), lambda: _holds(trust.epoch == 1))


class _NeverLoads(Database):
    async def __call__(self, asks: Sequence[Any]) -> Any:
        await Never()


class _NeverTold:
    def listen(self, listener: object) -> None:
        """Receive no announcement."""

    async def invalidate(self, *_: object) -> Any:
        """Take for ever."""
        await Never()


@dataclass(eq=False)
class _Flight:
    key: tuple[str, str] = ADA
    alone: bool = False
    listed: bool = True
    look: None = None


def _holds(condition: object) -> None:
    assert condition


async def _play(scene: Callable[[], Scene], line: int) -> bool:
    """Play a scene in which the task is collected at one line, and return whether there was such a line."""
    one = scene()
    # Resources of a scene are open by then.
    for _ in range(5):
        await anyio.lowlevel.checkpoint()
    one.task.send(None)
    left = [line]

    def at_each_line(frame: FrameType, event: str, argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(_PACKAGE):
            return None
        if event == "line":
            left[0] -= 1
            if left[0] == -1:
                one.task.close()
        return at_each_line

    # A measurement of coverage goes on afterwards.
    before = sys.gettrace()
    sys.settrace(at_each_line)
    try:
        one.work()
    finally:
        sys.settrace(before)
    one.task.close()
    one.check()
    return left[0] < 0


@pytest.mark.parametrize(
    "scene",
    [leases, channel, landings, refill, watchers, settling, paths, zones, flights, counts, invalidations],
    ids=lambda scene: scene.__name__,
)
def test_a_task_may_be_collected_at_each_line(scene: Callable[[], Scene]) -> None:
    """In a thread of its own, which would wait for itself for ever."""
    played: list[int] = []
    failures: list[BaseException] = []

    async def play() -> None:
        line = 0
        while await _play(scene, line):
            played.append(line)
            line += 1

    def run() -> None:
        try:
            asyncio.run(play())
        except BaseException as failure:  # noqa: BLE001 - raised where it is waited for
            failures.append(failure)

    gc.disable()
    try:
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(PATIENCE)
    finally:
        gc.enable()
    assert not thread.is_alive(), f"it waits for itself where the task is collected at line {len(played)}"
    assert failures == []
    assert played


def test_a_change_is_made_at_once_or_by_the_holder_of_the_lock() -> None:
    """And in any case before the lock is taken again."""
    lock, made = CollectableLock(), list[str]()
    lock.soon(lambda: made.append("free"))
    assert made == ["free"]
    with lock:
        lock.soon(lambda: made.append("held"))
        assert made == ["free"]
    assert made == ["free", "held"]


def test_a_change_that_comes_while_the_lock_is_released_is_made_by_who_releases_it() -> None:
    """It has found the lock taken, and no holder looks again."""
    lock, made = CollectableLock(), list[str]()

    class Releasing:
        def __init__(self, real: Any) -> None:
            self.acquire, self._release = real.acquire, real.release

        def release(self) -> None:
            if not made and not lock._changes:
                lock.soon(lambda: made.append("late"))
                assert made == []
            self._release()

    lock._lock = Releasing(lock._lock)  # type: ignore[assignment]  # with another thread in it
    with lock:
        pass
    assert made == ["late"]


def test_a_change_that_waits_is_made_before_the_lock_is_held() -> None:
    """The thread that brought it may not have come to make it yet."""
    lock, made = CollectableLock(), list[str]()
    lock._changes.append(lambda: made.append("waiting"))
    with lock:
        assert made == ["waiting"]


def test_no_change_is_lost_between_threads() -> None:
    """Threads that hold the lock and threads that never wait for it: each change is made once, one at a time."""
    lock, state = CollectableLock(), {"changes": 0, "inside": 0, "overlaps": 0}
    count, threads = 2000, 4

    def change() -> None:
        state["inside"] += 1
        state["overlaps"] += state["inside"] > 1
        state["changes"] += 1
        state["inside"] -= 1

    def hold() -> None:
        for _ in range(count):
            with lock:
                change()

    def soon() -> None:
        for _ in range(count):
            lock.soon(change)

    running = [threading.Thread(target=target) for target in [hold, soon] * (threads // 2)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert state == {"changes": threads * count, "inside": 0, "overlaps": 0}


def test_what_is_collected_in_another_loop_leaves_that_one_alone() -> None:
    """The counts of holders and the notified watches are those of the running loop."""
    events: list[str] = []

    @asynccontextmanager
    async def slow() -> AsyncIterator[str]:
        if not events:
            events.append("hangs")
            await anyio.sleep_forever()
        events.append("open")
        yield "resource"
        events.append("closed")

    resource, plugin = PerLoop("a resource", slow), plugin_of()
    opening = resource.__aenter__()
    told: list[Any] = []

    async def former() -> None:
        opening.send(None)
        told.append(plugin._watching.open())
        told[0].__enter__()

    async def now() -> None:
        async with plugin, resource:
            opening.close()
            told[0].gen.close()
            assert (await anext(plugin.watch(ADA[1]))) is not None
        assert events == ["hangs", "open", "closed"]

    asyncio.run(former())
    asyncio.run(now())
