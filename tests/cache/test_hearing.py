"""What an instance makes of what it hears: the listener alone, without Redis."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack

import anyio
import anyio.lowlevel
import pytest

from ctxmiddleware.bell import AT_ONCE
from ctxmiddleware.cache.names import digest_of
from ctxmiddleware.cache.trust import Trust
from ctxmiddleware.cache.watchers import SHARE, Watchers
from tests.cache.rig import ADA, instance

pytestmark = pytest.mark.anyio


async def test_who_watches_asks_again_by_and_by_where_there_was_a_gap() -> None:
    """Of generations that were touched in it nobody told; each gap wakes everybody once, a share at a time."""
    watchers, trust = Watchers(), Trust(0.01)
    with ExitStack() as stack, anyio.fail_after(30):
        bells = [stack.enter_context(watchers.watching(f"user{number}")) for number in range(2 * SHARE)]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watchers.keep_asking, trust, anyio.current_time)
            # Nobody is trusted yet, and everybody is told of that once.
            await bells[0].wait()
            assert not await _rings(bells[0].wait)
            trust.told(anyio.current_time())
            await bells[0].wait()
            await bells[-1].wait()
            assert not await _rings(bells[0].wait)
            tasks.cancel_scope.cancel()


async def test_all_who_watch_are_woken_some_in_each_turn_of_the_event_loop() -> None:
    """Whoever else has something to do in it comes to his turn in between."""
    watchers, woken, seen = Watchers(), 0, list[int]()

    async def watch(name: str) -> None:
        nonlocal woken
        with watchers.watching(name) as bell:
            await bell.wait()
        woken += 1

    async with anyio.create_task_group() as tasks:
        for number in range(5 * AT_ONCE):
            tasks.start_soon(watch, f"user{number}")
        await anyio.wait_all_tasks_blocked()
        watchers.ring(None)
        with anyio.fail_after(20):
            while woken < 5 * AT_ONCE:
                await anyio.lowlevel.checkpoint()
                seen.append(woken)
    assert max(after - before for before, after in zip([0, *seen], seen, strict=False)) <= 2 * AT_ONCE


async def test_what_was_looked_up_before_a_gap_ended_is_looked_up_again_before_its_time() -> None:
    """Whoever watches is told how long what he has holds: to the end of its time, but for such a gap."""
    async with instance() as one:
        entry = one.cache.policy.entry("value", "db", one.clock(), 900.0, shared=True)
        one.cache.trust.prove(one.clock() + 800)
        one.cache._shared = object()  # type: ignore[assignment]  # that there is one is all that is asked
        assert one.cache.holds_for(entry) == 900
        one.clock.advance(1)
        one.cache.trust.told(one.clock())
        assert one.cache.holds_for(entry) == entry.renew_at - one.clock()
        one.clock.advance(100)
        assert one.cache.holds_for(entry) == one.cache.policy.untrusted_ttl


async def test_what_is_expected_is_not_kept_until_it_has_happened() -> None:
    """By whichever invalidation of the name, each of which ends itself."""
    async with instance() as one:
        await one.get()
        for token in (b"one", b"two"):
            one.cache.hearing.expect(None, token)
        assert len(one.cache.memory) == 0
        await one.get()
        one.cache.hearing.forget(None, None, b"one")
        assert one.cache.is_doubted(ADA) is False
        await one.get()
        assert one.cache.is_doubted(ADA)
        one.cache.hearing.forget(None, None, b"two")
        await one.get()
        assert not one.cache.is_doubted(ADA)
        one.cache.hearing.doubt(digest_of("nobody@example.org"))


async def _rings(wait: Callable[[], Awaitable[None]]) -> bool:
    with anyio.move_on_after(0.3) as waiting:
        await wait()
    return not waiting.cancelled_caught
