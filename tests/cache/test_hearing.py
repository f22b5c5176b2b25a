"""What an instance makes of what it hears: the listener alone, without Redis."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack

import anyio
import pytest

from ctxmiddleware.cache.names import digest_of
from ctxmiddleware.cache.trust import Trust
from ctxmiddleware.cache.watchers import SHARE, Watchers
from tests.cache.rig import ADA, instance

pytestmark = pytest.mark.anyio


async def test_who_watches_asks_again_by_and_by_where_there_was_a_gap() -> None:
    """Of generations that were touched in it nobody told; each gap wakes everybody once, a share at a time."""
    watchers, trust = Watchers(), Trust(0.01)
    with ExitStack() as stack, anyio.move_on_after(10):
        bells = [stack.enter_context(watchers.watching(f"user{number}")) for number in range(2 * SHARE)]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watchers.keep_asking, trust, anyio.current_time)
            # Nobody is trusted yet, and everybody is told of that once.
            assert await _rings(bells[0].wait)
            assert not await _rings(bells[0].wait)
            trust.told(anyio.current_time())
            assert await _rings(bells[0].wait)
            assert await _rings(bells[-1].wait, 1.0)
            assert not await _rings(bells[0].wait)
            tasks.cancel_scope.cancel()


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


async def _rings(wait: Callable[[], Awaitable[None]], seconds: float = 0.3) -> bool:
    with anyio.move_on_after(seconds) as waiting:
        await wait()
    return not waiting.cancelled_caught
