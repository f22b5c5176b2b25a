"""Whether a watch ends where it can be told nothing any more, and begins anew where it can again."""

from __future__ import annotations

import gc
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import pytest

from ctxmiddleware import ContextPlugin, Identity, Loaded, SourceError, SourceUnavailable, UserContext
from ctxmiddleware.cache.policy import CachePolicy
from ctxmiddleware.cache.watchers import Watchers
from ctxmiddleware.testing import StaticSource
from tests.backends import ASYNCIO, UVLOOP
from tests.cache.rig import PATIENT
from tests.people import ADA, context_of, plugin_of
from tests.waiting import eventually, eventually_async

pytestmark = pytest.mark.anyio

STEADY = CachePolicy(jitter=0, refresh_ahead=1)


class Row(StaticSource[UserContext]):
    """A source of one user, whose answer a test changes."""

    def __init__(self, ttl: float | None = None) -> None:
        super().__init__({})
        self.answer: UserContext | SourceError = context_of(ADA)
        self._ttl = ttl

    def _answer(self, identity: Identity) -> Loaded[UserContext] | SourceError:
        return self.answer if isinstance(self.answer, SourceError) else Loaded(self.answer, ttl=self._ttl)


class Waiting:
    """What a task that has been told of Ada once is told next."""

    def __init__(self) -> None:
        self.told: UserContext | None = None
        self.error: Exception | None = None


def watched(plugin: ContextPlugin[UserContext]) -> int:
    """Return how many wait for news."""
    return len(plugin._assembly.cache.watchers)


def is_told_of_the_second(found: Waiting) -> bool:
    """Return whether Ada's change has been told."""
    return found.told == context_of(ADA, number=2)


@asynccontextmanager
async def waiting(plugin: ContextPlugin[UserContext]) -> AsyncIterator[Waiting]:
    """Watch Ada, who is in force, and wait for the next change."""
    changes, found = plugin.watch(ADA), Waiting()
    assert (await anext(changes)).context == context_of(ADA)

    async def wait() -> None:
        try:
            found.told = (await anext(changes)).context
        except SourceUnavailable as error:
            found.error = error

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await eventually_async(lambda: watched(plugin) == 1)
        yield found
        tasks.cancel_scope.cancel()


async def _is_closed_under_it(plugin: ContextPlugin[UserContext]) -> None:
    async with plugin:
        watching = waiting(plugin)
        found = await watching.__aenter__()
    try:
        await eventually_async(lambda: isinstance(found.error, SourceUnavailable))
        assert watched(plugin) == 0
    finally:
        await watching.__aexit__(None, None, None)


async def test_one_that_is_closed_under_it_fails_closed() -> None:
    """Where nobody hears of invalidations any more nobody goes on as if there were none."""
    await _is_closed_under_it(plugin_of(Row(), policy=STEADY))


@pytest.mark.parametrize("anyio_backend", [ASYNCIO, UVLOOP])
async def test_so_it_does_beside_redis(redis_url: str) -> None:
    """The channel is heard for as long as the plugin is open, and no longer."""
    await _is_closed_under_it(plugin_of(Row(), policy=STEADY, redis=redis_url, redis_options=PATIENT))


async def test_opened_again_it_tells_of_changes_again() -> None:
    """What ended with one opening does not end the next."""
    row = Row()
    plugin = plugin_of(row, policy=STEADY)
    for _ in range(2):
        row.answer = context_of(ADA)
        async with plugin:
            await plugin.clear()
            async with waiting(plugin) as found:
                row.answer = context_of(ADA, number=2)
                await plugin.invalidate(ADA)
                await eventually_async(partial(is_told_of_the_second, found))


async def test_after_an_error_the_same_context_is_told_again() -> None:
    """Whoever has refused the user since must learn that it is over, though nothing has changed."""
    row = Row()
    async with plugin_of(row, policy=STEADY) as plugin:
        changes = plugin.watch(ADA)
        first = await anext(changes)
        row.answer = SourceUnavailable("down")
        await plugin.invalidate(ADA)
        with pytest.raises(SourceUnavailable):
            await anext(changes)
        row.answer = context_of(ADA)
        with anyio.fail_after(30):
            assert (await anext(changes)).context == first.context


async def test_one_that_memory_has_no_room_for_is_asked_for_again_in_its_own_time() -> None:
    """The time that the source gave holds for a watch, whatever became of the entry."""
    row = Row(ttl=0.3)
    policy = replace(STEADY, max_bytes=1, untrusted_ttl=0.2)
    async with plugin_of(row, policy=policy) as plugin, waiting(plugin) as found:
        assert len(plugin._assembly.cache.memory) == 0
        row.answer = context_of(ADA, number=2)
        await eventually_async(partial(is_told_of_the_second, found))


def test_a_watch_may_be_freed_wherever_the_garbage_collector_finds_it() -> None:
    """One whose event loop has died, freed by the thread that rings just then, does not hold it up for ever."""
    watchers = Watchers(lambda name: name.encode())

    async def watch() -> None:
        with watchers.watching(ADA):
            await anyio.sleep_forever()

    async def main() -> None:
        circle: list[Coroutine[Any, Any, None] | list[Any]] = [watch()]
        circle[0].send(None)  # type: ignore[union-attr]  # the coroutine
        circle.append(circle)
        assert len(watchers) == 1
        del circle
        with watchers._lock:
            gc.collect()

    thread = threading.Thread(target=lambda: anyio.run(main), daemon=True)
    thread.start()
    eventually(lambda: not thread.is_alive())
    assert len(watchers) == 0
    assert watchers.names is not None
    assert len(watchers.names) == 0
