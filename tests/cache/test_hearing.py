"""What an instance makes of what it hears: the listener alone, without Redis."""

from __future__ import annotations

import anyio
import pytest

from ctxmiddleware.cache.names import digest_of
from tests.cache.rig import ADA, STEADY, instance

pytestmark = pytest.mark.anyio


async def test_who_watches_asks_again_when_it_is_told_of_touched_generations_from_now_on() -> None:
    """Whatever was touched before nobody told; a connection that breaks again and again does not keep them asking."""
    async with instance() as one:
        hearing, watchers = one.cache.hearing, one.cache.watchers
        with watchers.watching(ADA[1]) as bell:
            for seconds, is_woken in (
                (0, True),
                (1, False),
                (STEADY.untrusted_ttl - 1.5, False),
                (0.5, True),
                (1, False),
            ):
                one.clock.advance(seconds)
                hearing.told(one.clock())
                assert await _rings(bell.wait) is is_woken
        assert one.cache.trust.told_from == one.clock() + STEADY.untrusted_ttl


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


async def _rings(wait: object) -> bool:
    with anyio.move_on_after(0.05) as waiting:
        await wait()  # type: ignore[operator]  # a coroutine function
    return not waiting.cancelled_caught
