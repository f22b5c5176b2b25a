"""How a resource of which each event loop has its own is opened, shared, closed and opened again."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import pytest

from ctxmiddleware.errors import NotOpen
from ctxmiddleware.perloop import PerLoop, spawn

from .resources import Rig

pytestmark = [pytest.mark.anyio, pytest.mark.every_loop]


@pytest.fixture
def rig() -> Rig:
    """A rig with both gates open."""
    return Rig()


@pytest.fixture
def shared(rig: Rig) -> PerLoop[str]:
    """The rig's resource, one for each loop."""
    return PerLoop("the resource", rig.open_one)


async def test_it_is_opened_by_the_first_and_closed_by_the_last(rig: Rig, shared: PerLoop[str]) -> None:
    """Nested holders share one resource, which closes when the outermost leaves."""
    async with shared as outer:
        async with shared as inner:
            assert outer is inner is shared.current is shared.peek()
        assert rig.events == ["opening 1"]
    assert rig.events == ["opening 1", "closing 1", "closed 1"]


async def test_unopened_use_says_what_to_write(shared: PerLoop[str]) -> None:
    """Whoever uses it before it is open is told how it is opened."""
    assert shared.peek() is None
    with pytest.raises(NotOpen, match="async with"):
        _ = shared.current


async def test_many_who_ensure_it_at_once_open_one(rig: Rig, shared: PerLoop[str]) -> None:
    """Concurrent first uses wait for one opening."""
    rig.opening = anyio.Event()
    got: list[str] = []

    async def use() -> None:
        got.append(await shared.ensure())

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(use)
        await anyio.wait_all_tasks_blocked()
        assert shared.peek() is None
        rig.opening.set()
    assert got == ["resource 1"] * 20
    assert await shared.ensure() == "resource 1"
    async with shared:
        pass
    assert rig.events == ["opening 1", "closing 1", "closed 1"]


@pytest.mark.parametrize(
    "runner",
    [
        lambda main: anyio.run(main),
        lambda main: anyio.run(main, backend_options={"use_uvloop": True}),
        lambda main: anyio.run(main, backend="trio"),
    ],
    ids=["asyncio", "uvloop", "trio"],
)
def test_what_nobody_holds_closes_with_its_loop(runner: Callable[[object], None]) -> None:
    """A resource opened at first use is closed when the loop's runner ends, and another loop opens its own."""
    rigs: list[Rig] = []

    async def main() -> None:
        rig = Rig()
        rigs.append(rig)
        assert await PerLoop("the resource", rig.open_one).ensure() == "resource 1"

    runner(main)
    assert rigs[0].events == ["opening 1", "closing 1", "closed 1"]


def test_a_loop_is_not_kept_alive_by_what_it_held() -> None:
    """A loop that has ended is freed, although a PerLoop that served it lives on."""
    events: list[str] = []

    @asynccontextmanager
    async def open_one() -> AsyncIterator[str]:
        events.append("open")
        yield "resource"
        events.append("close")

    shared: PerLoop[str] = PerLoop("the resource", open_one)
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def main() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        async with shared:
            await shared.ensure()

    asyncio.run(main())
    asyncio.run(main())
    gc.collect()
    assert [loop() for loop in loops] == [None, None]
    assert events == ["open", "close"] * 2


async def test_it_is_not_opened_again_while_it_is_being_closed(rig: Rig, shared: PerLoop[str]) -> None:
    """Whoever comes while it closes waits and gets a new one; else the closing would reach what was just opened."""
    rig.closing = anyio.Event()
    got: list[str] = []

    async def use() -> None:
        async with shared as resource:
            got.append(resource)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(use)
        await anyio.wait_all_tasks_blocked()
        assert rig.events == ["opening 1", "closing 1"]
        tasks.start_soon(use)
        tasks.start_soon(shared.ensure)
        await anyio.wait_all_tasks_blocked()
        assert rig.events == ["opening 1", "closing 1"]
        rig.closing.set()
    assert got == ["resource 1", "resource 2"]
    assert rig.events[:4] == ["opening 1", "closing 1", "closed 1", "opening 2"]


async def test_who_waits_for_it_while_its_last_holder_leaves_gets_another(rig: Rig, shared: PerLoop[str]) -> None:
    """A request that comes at first use is served, and not by what is about to be closed."""
    rig.opening = anyio.Event()
    left = False
    got: list[str] = []

    async def hold() -> None:
        nonlocal left
        async with shared:
            left = True

    async def use() -> None:
        resource = await shared.ensure()
        got.append(resource if left else "before it left")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hold)
        await anyio.wait_all_tasks_blocked()
        for _ in range(5):
            tasks.start_soon(use)
        await anyio.wait_all_tasks_blocked()
        rig.opening.set()
    assert len(got) == 5
    assert set(got) <= {"before it left", "resource 2"}


async def test_holders_that_come_and_go_never_hold_a_closed_one(rig: Rig, shared: PerLoop[str]) -> None:
    """With many holders entering and leaving, whoever is inside finds it open."""

    async def visit(turns: int) -> None:
        for turn in range(turns):
            async with shared as resource:
                for _ in range(turn % 3):
                    await anyio.lowlevel.checkpoint()
                    assert shared.current == resource
                assert f"closing {resource.split()[1]}" not in rig.events

    async with anyio.create_task_group() as tasks:
        for turns in range(1, 30):
            tasks.start_soon(visit, turns)
    assert rig.events.count(f"closed {rig.opened}") == 1


async def test_what_is_spawned_sees_nothing_of_the_request() -> None:
    """A task of the loop's own starts with no context variables of whoever happened to come first."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("a request's")
    seen: list[str | None] = []
    done = anyio.Event()

    async def look() -> None:
        seen.append(variable.get(None))
        done.set()

    spawn(look)
    await done.wait()
    assert seen == [None]


def test_two_loops_in_two_threads_have_two() -> None:
    """Each thread's loop opens and closes its own, at the same time."""
    both_inside = threading.Barrier(2, timeout=30)
    events: dict[str, list[str]] = {"one": [], "two": []}
    names: dict[int, str] = {}
    failures: list[BaseException] = []

    @asynccontextmanager
    async def open_one() -> AsyncIterator[str]:
        name = names[threading.get_ident()]
        events[name].append("open")
        yield name
        events[name].append("close")

    shared: PerLoop[str] = PerLoop("the resource", open_one)

    async def main(name: str) -> None:
        names[threading.get_ident()] = name
        async with shared as resource:
            assert resource == name
            both_inside.wait()
            assert shared.current == name

    def run(name: str) -> None:
        try:
            asyncio.run(main(name))
        except BaseException as error:  # noqa: BLE001 - a thread's error is the test's
            failures.append(error)

    threads = [threading.Thread(target=run, args=(name,)) for name in events]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert events == {"one": ["open", "close"], "two": ["open", "close"]}


def test_outside_of_every_loop_there_is_none(shared: PerLoop[str]) -> None:
    """Statistics may be asked for where no event loop runs."""
    assert shared.peek() is None


def test_it_is_a_context_manager(shared: PerLoop[str]) -> None:
    """It can stand wherever an async context manager is asked for."""
    assert isinstance(shared, AbstractAsyncContextManager)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_is_being_closed_by_the_loops_end_is_not_given_out() -> None:
    """Its runner cancels the task that owns it: a block that goes on opens another, and closes it."""
    opened: list[int] = []

    @asynccontextmanager
    async def one() -> AsyncIterator[int]:
        opened.append(len(opened))
        try:
            yield opened[-1]
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.01)

    resource, before = PerLoop("a resource", one), asyncio.all_tasks()
    async with resource:
        (owner,) = asyncio.all_tasks() - before
        owner.cancel()
        await asyncio.sleep(0)
        assert await resource.ensure() == 1
    assert opened == [0, 1]


@pytest.mark.parametrize("keeper_first", [True, False])
def test_what_is_used_while_its_event_loop_ends_is_closed_by_it(*, keeper_first: bool) -> None:
    """The loop's runner has cancelled the task that owned it, and waits for the task that uses it."""
    events: list[str] = []

    @asynccontextmanager
    async def one() -> AsyncIterator[int]:
        number = len(events) // 2
        events.append(f"open {number}")
        try:
            yield number
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.01)
            events.append(f"closed {number}")

    resource = PerLoop("a resource", one)
    used: list[int] = []

    async def use() -> None:
        try:
            async with resource.using() as first:
                used.append(first)
            await asyncio.sleep(3600)
        finally:
            for _ in range(2):
                async with resource.using() as late:
                    used.append(late)

    async def begin() -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(use())
        await asyncio.sleep(0)
        await resource.ensure()
        await asyncio.sleep(0)
        return task

    # As asyncio.run ends, but for the order in which tasks are cancelled, which there is any.
    with asyncio.Runner() as runner:
        task = runner.run(begin())
        tasks = sorted(asyncio.all_tasks(runner.get_loop()), key=lambda each: (each is task) is keeper_first)
        for each in tasks:
            each.cancel()
        runner.get_loop().run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        assert asyncio.all_tasks(runner.get_loop()) == set()
    assert task.cancelled()
    assert used == ([0, 1, 2] if keeper_first else [0, 0, 0])
    assert events == [f"{what} {number}" for number in range(used[-1] + 1) for what in ("open", "closed")]


def test_a_call_under_way_puts_off_the_closing_by_the_event_loop() -> None:
    """It would lose its connection, and open another that is closed by nothing."""
    events: list[str] = []

    @asynccontextmanager
    async def one() -> AsyncIterator[str]:
        try:
            yield "resource"
        finally:
            events.append("closed")

    async def use() -> None:
        for _ in range(2):
            async with resource.using():
                await asyncio.sleep(0)
        async with resource.using():
            try:
                await asyncio.sleep(3600)
            finally:
                await asyncio.sleep(0.02)
                events.append("call ended")

    async def main() -> None:
        tasks.append(asyncio.get_running_loop().create_task(use()))
        for _ in range(20):
            await asyncio.sleep(0)

    resource = PerLoop("a resource", one)
    tasks: list[asyncio.Task[None]] = []
    asyncio.run(main())
    assert events == ["call ended", "closed"]
