"""What becomes of a shared resource whose opening, life or closing fails or is cancelled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from ctxmiddleware.errors import NotOpen
from ctxmiddleware.perloop import PerLoop

from .backends import ASYNCIO, UVLOOP
from .resources import Rig
from .waiting import eventually_async

pytestmark = [pytest.mark.anyio, pytest.mark.every_loop]


@pytest.fixture
def rig() -> Rig:
    """A rig with both gates open."""
    return Rig()


@pytest.fixture
def shared(rig: Rig) -> PerLoop[str]:
    """The rig's resource, one for each loop."""
    return PerLoop("the resource", rig.open_one)


async def test_a_failed_opening_is_everybodys_and_the_next_try_is_a_new_one() -> None:
    """All who wait for an opening get its error; whoever comes later may have more luck."""
    tries = 0
    gate = anyio.Event()

    @asynccontextmanager
    async def open_one() -> AsyncIterator[str]:
        nonlocal tries
        tries += 1
        await gate.wait()
        if tries == 1:
            raise OSError("refused")
        yield "resource"

    shared: PerLoop[str] = PerLoop("the resource", open_one)
    errors: list[Exception] = []

    async def use(manager: bool) -> None:  # noqa: FBT001 - two ways of one thing
        try:
            if manager:
                await shared.__aenter__()
            else:
                await shared.ensure()
        except OSError as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        for number in range(6):
            tasks.start_soon(use, number % 2 == 0)
        await anyio.wait_all_tasks_blocked()
        gate.set()
    assert len(errors) == 6
    async with shared as resource:
        assert resource == "resource"
    assert shared.peek() is None


async def test_a_cancelled_holder_does_not_close_it_for_the_rest(rig: Rig, shared: PerLoop[str]) -> None:
    """Who gives up while it opens does not count, and takes nothing from those who stay."""
    rig.opening = anyio.Event()
    done = anyio.Event()

    async def hold() -> None:
        async with shared:
            assert shared.current == "resource 1"
            done.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hold)
        with anyio.CancelScope() as scope:
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
            await shared.__aenter__()
        rig.opening.set()
        await done.wait()
    assert rig.events == ["opening 1", "closing 1", "closed 1"]


async def test_a_cancelled_holder_leaves_nothing_open(rig: Rig, shared: PerLoop[str]) -> None:
    """Cancelled inside, it closes all the same, and the closing is waited for."""
    rig.closing = anyio.Event()
    async with anyio.create_task_group() as tasks:

        async def hold() -> None:
            async with shared:
                await anyio.sleep_forever()

        tasks.start_soon(hold)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.wait_all_tasks_blocked()
            rig.closing.set()
    assert rig.events == ["opening 1", "closing 1", "closed 1"]


async def test_a_failed_closing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """An error while closing is nobody's to handle: it is logged with its traceback, and the holder goes on."""

    @asynccontextmanager
    async def open_one() -> AsyncIterator[str]:
        yield "resource"
        raise OSError("stuck")

    async with PerLoop("the resource", open_one):
        pass
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], OSError)


async def test_one_that_dies_while_it_is_held_is_replaced_and_still_counted(caplog: pytest.LogCaptureFixture) -> None:
    """A resource that breaks is opened anew at the next use, and its holders go on holding the new one."""
    opened: list[anyio.Event] = []
    closed: list[int] = []

    @asynccontextmanager
    async def open_one() -> AsyncIterator[int]:
        poison = anyio.Event()
        opened.append(poison)
        number = len(opened)

        async def die() -> None:
            await poison.wait()
            raise OSError("died")

        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(die)
                yield number
                tasks.cancel_scope.cancel()
        finally:
            closed.append(number)

    shared = PerLoop("the resource", open_one)
    async with shared:
        opened[0].set()
        await eventually_async(lambda: shared.peek() is None)
        async with shared as second:
            assert second == 2
        # The outer holder still holds.
        assert shared.current == 2
    assert closed == [1, 2]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_a_holder_of_one_that_died_leaves_quietly() -> None:
    """Leaving needs nothing that is still there."""
    started = anyio.Event()

    @asynccontextmanager
    async def open_one() -> AsyncIterator[int]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(started.wait)
            yield 1
        raise OSError("died")

    shared = PerLoop("the resource", open_one)
    async with shared:
        started.set()
    assert shared.peek() is None


@pytest.mark.parametrize("anyio_backend", [ASYNCIO, UVLOOP])
async def test_one_whose_opening_was_cancelled_says_so(rig: Rig, shared: PerLoop[str]) -> None:
    """A host that cancels every task of the loop leaves whoever shields himself with a clear error."""
    rig.opening = anyio.Event()
    waiting = asyncio.ensure_future(shared.ensure())
    await anyio.wait_all_tasks_blocked()
    for task in asyncio.all_tasks() - {asyncio.current_task(), waiting}:
        if "PerLoop" in str(task.get_coro()):
            task.cancel()
    with pytest.raises(NotOpen, match="closed while it was being opened"):
        await waiting
