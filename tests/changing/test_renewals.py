"""The renewal of holds: each by itself, in time, and right about what Redis had lost."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack

import anyio
import pytest

from ctxmiddleware import Identity
from ctxmiddleware.cache.shared import SharedTierFailed
from tests.waiting import eventually_async

from .rig import ADA, Rows, plugin_over

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
