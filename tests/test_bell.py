"""Whether whoever waits is woken from any thread, and many of them leave their event loop to others meanwhile."""

from __future__ import annotations

import asyncio
import threading

import anyio
import anyio.to_thread
import pytest

from ctxmiddleware.bell import AT_ONCE, Bell, ring_all

pytestmark = [pytest.mark.anyio, pytest.mark.every_loop, pytest.mark.trio_branches]


async def test_rung_before_it_does_not_wait_and_rings_once_for_each_wait() -> None:
    """From the loop's own thread as from another one."""
    bell = Bell()
    bell.ring()
    with anyio.fail_after(30):
        await bell.wait()
    with anyio.move_on_after(0.01) as waiting:
        await bell.wait()
    assert waiting.cancelled_caught
    await anyio.to_thread.run_sync(bell.ring)
    with anyio.fail_after(30):
        await bell.wait()


async def test_many_are_woken_some_in_each_turn() -> None:
    """Whoever else has something to do in the event loop comes to his turn in between."""
    bells, woken, seen = [Bell() for _ in range(5 * AT_ONCE)], 0, list[int]()

    async def wait(bell: Bell) -> None:
        nonlocal woken
        await bell.wait()
        woken += 1

    async with anyio.create_task_group() as tasks:
        for bell in bells:
            tasks.start_soon(wait, bell)
        await anyio.wait_all_tasks_blocked()
        ring_all(bells)
        with anyio.fail_after(30):
            while woken < len(bells):
                await anyio.lowlevel.checkpoint()
                seen.append(woken)
    steps = [after - before for before, after in zip([0, *seen], seen, strict=False)]
    # A turn may see the end of one share and the beginning of the next.
    assert max(steps) <= 2 * AT_ONCE
    assert sum(steps) == len(bells)


def test_bells_of_several_loops_ring_in_their_own_and_those_of_a_dead_one_harm_nobody() -> None:
    """One ring reaches all of them."""
    dead = asyncio.new_event_loop()
    bells = [dead.run_until_complete(_made())]
    dead.close()
    rung: list[str] = []
    ready = threading.Barrier(3)

    async def wait(name: str) -> None:
        bell = Bell()
        bells.append(bell)
        await anyio.to_thread.run_sync(ready.wait)
        with anyio.fail_after(30):
            await bell.wait()
        rung.append(name)

    threads = [threading.Thread(target=asyncio.run, args=(wait(name),)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    ready.wait(30)
    ring_all(bells)
    for thread in threads:
        thread.join(30)
    assert sorted(rung) == ["one", "two"]


async def _made() -> Bell:
    return Bell()
