"""The renewal of holds: each by itself, in time, and right about what Redis had lost."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack

import anyio
import pytest
import redis

from ctxmiddleware import Identity
from ctxmiddleware.cache.shared import SharedTierFailed
from examples.servers import Valkey
from tests.backends import asyncio_only
from tests.waiting import eventually_async

from .rig import ADA, Rows, holds_key, plugin_over

NAME = Identity(ADA).cache_key[1]

pytestmark = pytest.mark.anyio


async def test_a_renewal_that_is_not_answered_puts_off_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred holds on a node that is out of reach: those on other nodes are renewed in time."""
    async with plugin_over(Rows()) as plugin:
        plugin._holding._every = 0.01
        renewed: list[str] = []
        answered = anyio.Event()

        async def hold(names: Sequence[str], _: bytes) -> list[bool]:
            if NAME not in names and in_block:
                await answered.wait()
            renewed.extend(names)
            return [True] * len(names)

        in_block = False
        monkeypatch.setattr(plugin._assembly.cache, "hold", hold)
        async with AsyncExitStack() as stack:
            for number in range(100):
                await stack.enter_async_context(plugin.changing(f"user{number}@example.org"))
            await stack.enter_async_context(plugin.changing(ADA))
            in_block = True
            renewed.clear()
            await eventually_async(lambda: renewed.count(NAME) > 3)
            answered.set()


async def test_a_user_is_invalidated_where_a_renewal_was_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lost answer may be of the renewal that has set anew what Redis had lost, and the next one finds it held."""
    async with plugin_over(Rows()) as plugin:
        plugin._holding._every = 0.01
        answers: list[str] = []

        async def hold(names: Sequence[str], _: bytes) -> list[bool]:
            answers.append("lost" if len(answers) == 1 else "held")
            if answers[-1] == "lost":
                raise SharedTierFailed("no answer")
            return [True] * len(names)

        monkeypatch.setattr(plugin._assembly.cache, "hold", hold)
        told: list[str | None] = []
        forget = plugin._assembly.cache.invalidate

        async def invalidate(name: str | None) -> object:
            told.append(name)
            return await forget(name)

        monkeypatch.setattr(plugin._assembly.cache, "invalidate", invalidate)
        async with plugin.changing(ADA):
            await eventually_async(lambda: len(answers) > 4)
            assert told == [NAME, NAME]
        assert told == [NAME] * 3


@asyncio_only
async def test_what_a_dead_holder_had_left_is_not_prolonged_by_a_live_one(own: Valkey) -> None:
    """Each renewal of another prolongs the key, and its end lets that have the end of the last one left."""
    async with plugin_over(Rows(), own.url) as plugin:
        cache = plugin._assembly.cache
        with redis.Redis.from_url(own.url) as client:
            seconds, microseconds = client.time()
            now = 1000 * seconds + microseconds // 1000
            for left, most in ((20_000, 20_000), (-1, -2)):
                client.zadd(holds_key(), {b"dead": now + left})
                await cache.hold([NAME], b"live")
                assert client.pttl(holds_key()) > 50_000
                await cache.let_go([NAME], b"live")
                assert client.pttl(holds_key()) <= most
