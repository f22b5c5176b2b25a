"""The end of a block: what is cancelled, closed, forked or lost meanwhile keeps no user from being invalidated."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Self

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
import redis

from ctxmiddleware import InvalidationFailed, perloop
from examples.servers import Valkey
from tests.backends import asyncio_only
from tests.waiting import eventually_async

from .rig import (
    ADA,
    Rows,
    finished,
    generation_key,
    held_by,
    holds_key,
    is_held,
    plugin_over,
    two_instances,
    value_of,
)

pytestmark = [pytest.mark.anyio, pytest.mark.trio_branches]


def _is_waiting(client: redis.Redis) -> bool:
    return bool(client.info("clients")["blocked_clients"])


@asyncio_only
@pytest.mark.parametrize("way", ["cancelled twice", "out of time"])
async def test_a_cancellation_of_asyncio_in_the_exit_is_raised_after_it(own: Valkey, way: str) -> None:
    """Errors of `Task.cancel` and `asyncio.timeout` pass a shielded scope."""
    async with two_instances(own.url) as (one, two, source):
        await value_of(two)
        timeouts: list[asyncio.Timeout] = []
        before: list[object] = []

        async def change() -> None:
            async with asyncio.timeout(None) as timeout:
                timeouts.append(timeout)
                async with one.changing(ADA):
                    source.rows[ADA] = "new"
                    before.append(client.get(generation_key()))
                    client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")

        with redis.Redis.from_url(own.url) as client:
            task = asyncio.get_running_loop().create_task(change())
            await eventually_async(lambda: _is_waiting(client) and source.rows)
            for _ in range(2):
                if way == "out of time":
                    timeouts[0].reschedule(asyncio.get_running_loop().time())
                else:
                    task.cancel()
                for _ in range(10):
                    await anyio.lowlevel.checkpoint()
                if way == "out of time":
                    break
            client.execute_command("CLIENT", "UNPAUSE")
            with pytest.raises(TimeoutError if way == "out of time" else asyncio.CancelledError):
                await task
            assert client.get(generation_key()) != before[0]
        assert await value_of(two) == "new"
        assert not is_held(own)
        assert held_by(one) == {}


@asyncio_only
async def test_a_failure_of_the_exit_is_attached_to_the_cancellation_that_came_meanwhile(own: Valkey) -> None:
    """The cancellation is raised, and what it hides is that the users were not invalidated."""
    async with plugin_over(Rows(), own.url) as plugin:

        async def change() -> None:
            with pytest.raises(asyncio.CancelledError) as raised:
                async with plugin.changing(ADA):
                    client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
            assert any("plugin.changing()" in note for note in raised.value.__notes__)
            assert isinstance(raised.value.__context__, InvalidationFailed)
            raise raised.value

        with redis.Redis.from_url(own.url) as client:
            task = asyncio.get_running_loop().create_task(change())
            await eventually_async(lambda: _is_waiting(client))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            client.execute_command("CLIENT", "UNPAUSE")


@asyncio_only
async def test_a_block_whose_tasks_are_cancelled_again_and_again_does_not_end_as_if_it_was_well(own: Valkey) -> None:
    """Nothing was invalidated."""
    async with plugin_over(Rows(), own.url) as plugin:
        before = set(perloop._tasks)

        async def change() -> None:
            async with plugin.changing(ADA):
                client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")

        def its_tasks() -> set[asyncio.Task[None]]:
            return perloop._tasks - before

        with redis.Redis.from_url(own.url) as client:
            task = asyncio.get_running_loop().create_task(change())
            await eventually_async(lambda: _is_waiting(client))
            for _ in range(2):
                await eventually_async(lambda: task.done() or its_tasks())
                for each in its_tasks():
                    each.cancel()
                    await asyncio.wait([each])
            client.execute_command("CLIENT", "UNPAUSE")
            with pytest.raises((RuntimeError, InvalidationFailed)):
                await task


@asyncio_only
async def test_a_cancellation_in_the_entry_leaves_no_hold(own: Valkey) -> None:
    """The cancellation is raised once Redis holds the user no more."""
    async with plugin_over(Rows(), own.url) as plugin:
        await value_of(plugin)

        async def change() -> None:
            async with plugin.changing(ADA):
                pytest.fail("the body ran")

        with redis.Redis.from_url(own.url) as client:
            client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
            task = asyncio.get_running_loop().create_task(change())
            await eventually_async(lambda: held_by(plugin))
            task.cancel()
            await anyio.lowlevel.checkpoint()
            task.cancel()
            await anyio.lowlevel.checkpoint()
            client.execute_command("CLIENT", "UNPAUSE")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not is_held(own)
        assert held_by(plugin) == {}


class Once(Rows):
    """A source that can be entered once."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = False

    async def __aenter__(self) -> Self:
        if self.entered:
            raise OSError("a second time")
        self.entered = True
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


@asyncio_only
async def test_a_plugin_that_is_closed_inside_the_block(own: Valkey) -> None:
    """The hold is renewed until the block ends, the body's error is raised, and nothing is opened again for good."""
    plugin = plugin_over(Once(), own.url)
    plugin._holding._every = 0.05

    async def change() -> None:
        async with plugin:
            await value_of(plugin)
            block = plugin.changing(ADA)
            await block.__aenter__()
        try:
            with redis.Redis.from_url(own.url) as client:
                client.delete(holds_key())
                await eventually_async(lambda: is_held(own))
            raise LookupError("the body's")
        except LookupError as error:
            await block.__aexit__(type(error), error, error.__traceback__)
            raise

    with pytest.raises(LookupError, match="the body's") as raised:
        await change()
    assert not hasattr(raised.value, "__notes__")
    assert held_by(plugin) == {}
    assert not is_held(own)
    assert plugin._loop.peek() is None
    assert plugin._assembly.redis is not None
    assert plugin._assembly.redis.opened.peek() is None


@asyncio_only
async def test_an_error_that_refuses_attributes_wins_too(own: Valkey) -> None:
    """An error may be a frozen dataclass."""

    @dataclass(frozen=True)
    class Frozen(Exception):
        code: int

    async with plugin_over(Rows(), own.url) as plugin:

        async def change() -> None:
            async with plugin.changing(ADA):
                own.kill()
                raise Frozen(7)

        with pytest.raises(Frozen) as raised:
            await change()
        assert isinstance(raised.value.__context__, InvalidationFailed)
        assert held_by(plugin) == {}


def test_a_forked_child_ends_with_its_own_error_and_ends_no_hold_of_its_parent(own: Valkey) -> None:
    """It invalidates by the names of its block, and the parent's block goes on."""
    done = finished(f"""
        import os, warnings
        from tests.changing.rig import ADA, Rows, holds_key, plugin_over
        import redis

        warnings.simplefilter("ignore", DeprecationWarning)
        plugin = plugin_over(Rows(), {own.url!r})
        with plugin.changing(ADA):
            child = os.fork()
            if not child:
                raise SystemExit(3)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            print(redis.Redis.from_url({own.url!r}).exists(holds_key()))
        print(redis.Redis.from_url({own.url!r}).exists(holds_key()))
    """)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["3", "1", "0"], "")


def test_a_child_that_is_forked_in_an_asynchronous_block_ends_with_its_own_error(own: Valkey) -> None:
    """Its parent's event loop is not there any more, and nothing can be awaited."""
    done = finished(f"""
        import asyncio, os, warnings
        from tests.changing.rig import ADA, Rows, holds_key, plugin_over
        import redis

        warnings.simplefilter("ignore", DeprecationWarning)

        async def main():
            async with plugin_over(Rows(), {own.url!r}) as plugin:
                try:
                    async with plugin.changing(ADA):
                        child = os.fork()
                        if not child:
                            raise SystemExit(3)
                        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
                        print(redis.Redis.from_url({own.url!r}).exists(holds_key()))
                except SystemExit as error:
                    os._exit(error.code)
            print(redis.Redis.from_url({own.url!r}).exists(holds_key()))

        asyncio.run(main())
    """)
    assert (done.returncode, done.stdout.split()) == (0, ["3", "1", "0"])
    assert "a block of plugin.changing() was not ended" in done.stderr


def test_a_task_that_its_event_loop_ends_can_still_invalidate(own: Valkey) -> None:
    """asyncio.run cancels the plugin's own tasks at once, in any order, and those that come later never."""
    done = finished(f"""
        import asyncio
        import random
        from tests.changing.rig import ADA, Rows, plugin_over

        plugin = plugin_over(Rows(), {own.url!r})

        async def work():
            try:
                await asyncio.sleep(3600)
            finally:
                print((await plugin.invalidate(ADA)).redis)

        async def main():
            await plugin.resolve(ADA)
            main.task = asyncio.create_task(work())
            await asyncio.sleep(0)

        for seed in range(12):
            with asyncio.Runner() as runner:
                runner.run(main())
                tasks = list(asyncio.all_tasks(runner.get_loop()))
                random.Random(seed).shuffle(tasks)
                for each in tasks:
                    each.cancel()
                runner.get_loop().run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
                left = asyncio.all_tasks(runner.get_loop())
                if left:
                    print(left)
    """)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["done"] * 12, "")


def test_an_event_loop_that_ends_while_a_task_is_in_its_block(own: Valkey) -> None:
    """asyncio.run cancels the task and the plugin's own at once: the user is invalidated, and nothing is left open."""
    done = finished(f"""
        import asyncio
        from tests.changing.rig import ADA, Rows, held_by, plugin_over

        plugin = plugin_over(Rows(), {own.url!r})

        async def change(begun):
            async with plugin.changing(ADA) as block:
                report = block.report
                begun.set()
                try:
                    await asyncio.sleep(3600)
                finally:
                    plugin.seen = block, report

        async def main():
            await plugin.resolve(ADA)
            begun = asyncio.Event()
            task = asyncio.create_task(change(begun))
            await begun.wait()
            main.task = task

        asyncio.run(main())
        block, report = plugin.seen
        print(held_by(plugin), block.report is not report, block.report.redis)
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{} True done\n", "")
    assert not is_held(own)


async def test_a_block_whose_event_loop_was_closed_is_ended_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed without a cancellation it can end nothing itself, and would be held for ever."""
    source = Rows()
    plugin = plugin_over(source)
    monkeypatch.setattr(plugin._holding, "_every", 0.01)
    kept: list[Any] = []

    def begin() -> None:
        loop = asyncio.new_event_loop()
        block = plugin.changing(ADA)
        loop.run_until_complete(block.__aenter__())
        # Kept, or the collector would end it.
        kept.extend((block, asyncio.all_tasks(loop)))
        loop.close()

    async with plugin:
        await value_of(plugin)
        await anyio.to_thread.run_sync(begin)
        await eventually_async(lambda: held_by(plugin) == {})
        source.rows[ADA] = "new"
        await plugin.invalidate(ADA)
        assert await value_of(plugin) == "new"
        calls = len(source.calls)
        await value_of(plugin)
        assert len(source.calls) == calls


async def test_a_block_reports_its_invalidations() -> None:
    """The report of the begin, then that of the end."""
    async with plugin_over(Rows()) as plugin:
        await value_of(plugin)
        block = plugin.changing(ADA)
        reports = [block.report]
        async with block:
            reports.append(block.report)
        reports.append(block.report)
        before, first, last = reports
        assert before is None
        assert (first and first.memory, last and last.memory) == (1, 0)
