"""How users are held while a transaction changes what is known of them: nothing loaded meanwhile is kept."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, Final

import anyio

from .attaching import attach
from .cache.shared import HELD_SECONDS, SharedTierFailed
from .cache.tiered import TieredCache
from .failure_log import log_failure
from .hold import Hold, HoldTask
from .invalidation import Invalidator
from .perloop import spawn
from .wait_through import wait_through

logger = logging.getLogger("ctxmiddleware.holding")

RENEWED_EVERY: Final = HELD_SECONDS / 6


class Holding:
    """All holds of a process. Each is begun, renewed and ended by a task of its own, which no caller's end cuts short.

    In Redis each ends by itself where it is not renewed.

    Args:
        cache: keeps no value of a held user.
        invalidator: invalidates them.
        opened: opens what both need in the running event loop, for as long as a hold lasts.
        every: seconds between renewals.
    """

    def __init__(
        self,
        cache: TieredCache[Any],
        invalidator: Invalidator,
        opened: AbstractAsyncContextManager[object],
        every: float = RENEWED_EVERY,
    ) -> None:
        self._cache = cache
        self._invalidator = invalidator
        self._opened = opened
        self._every = every
        self._open: dict[bytes, Hold] = {}

    def __repr__(self) -> str:
        return f"<Holding: {len(self._open)} open>"

    async def begin(self, hold: Hold) -> None:
        """Hold the names of a hold and invalidate them.

        Raises:
            InvalidationFailed: Redis did not take the invalidation; nothing is held.
        """
        task = self._start(hold, self._keep)
        if hold.holder not in self._open:
            self._open[hold.holder] = hold
            self._cache.settling.hold(hold.names)
        try:
            await task.ready.wait()
        except GeneratorExit:
            # By the garbage collector: nothing can be awaited.
            hold.finish()
            raise
        except BaseException:
            hold.finish()
            task.beginning.cancel()
            await wait_through(task.done)
            raise
        if not task.has_begun:
            self._release(hold)
            raise task.failure or RuntimeError("the event loop ended while plugin.changing() began")

    async def end(self, hold: Hold) -> None:
        """Invalidate the names of a hold, and hold them no more; a cancellation is raised after that.

        Raises:
            InvalidationFailed: Redis could not be told; other instances hold them until `HELD_SECONDS` are over. It is
                attached to a cancellation.
            RuntimeError: the tasks that do it were cancelled again and again.
        """
        hold.finish()
        task, cancelled = hold.task, None
        try:
            if task is not None and hold.is_of_this_process and task.is_in_running_loop:
                cancelled = await wait_through(task.done)
            if task is None or not hold.is_ended:
                # Its event loop has cancelled its task, or was closed, or is another process'.
                task = self._start(hold, self._invalidate)
                cancelled = await wait_through(task.done) or cancelled
        except Exception:
            self._release(hold)
            raise
        failure = task.failure
        if not hold.is_ended:
            failure = RuntimeError("the event loop ended while plugin.changing() ended: the users are not invalidated")
        if cancelled is not None:
            if failure is not None:
                attach(failure, cancelled)
            raise cancelled
        if failure is not None:
            raise failure

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Keep open what holds need, and end those whose own event loop cannot."""
        async with self._opened, anyio.create_task_group() as tasks:
            tasks.start_soon(self.end_orphans)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()

    async def end_orphans(self) -> None:
        """End holds whose event loop was closed under them, again and again, until it is cancelled."""
        while True:
            await anyio.sleep(self._every)
            for hold in list(self._open.values()):
                if hold.is_orphaned:
                    await self._start(hold, self._invalidate).done.wait()

    def _start(self, hold: Hold, work: Callable[[Hold, HoldTask], Awaitable[None]]) -> HoldTask:
        hold.task = task = HoldTask()
        spawn(partial(self._run, hold, task, work))
        return task

    async def _run(self, hold: Hold, task: HoldTask, work: Callable[[Hold, HoldTask], Awaitable[None]]) -> None:
        # Cancelled by the end of its event loop it leaves the hold as it is: the block may not be over yet.
        try:
            async with self._opened:
                try:
                    await work(hold, task)
                except Exception as error:  # noqa: BLE001 - raised where the block begins or ends
                    task.failure = error
                self._release(hold)
                await self._let_go(hold)
        except Exception as error:  # noqa: BLE001 - as above
            task.failure = task.failure or error
            self._release(hold)
        finally:
            task.ready.set()
            task.done.set()

    async def _keep(self, hold: Hold, task: HoldTask) -> None:
        with task.beginning:
            await self._hold(hold)
            hold.report = await self._invalidator.many(hold.names)
            task.has_begun = True
        if not task.has_begun:
            return
        task.ready.set()
        due = anyio.current_time()
        while not hold.is_over:
            # From the begin of the last renewal: one that takes long must not put off the next.
            due = max(due + self._every, anyio.current_time())
            with anyio.CancelScope(deadline=due):
                while not hold.is_over:
                    await task.bell.wait()
            if not hold.is_over:
                await self._renew(hold)
        await self._invalidate(hold, task)

    async def _invalidate(self, hold: Hold, _: HoldTask) -> None:
        hold.report = await self._invalidator.many(hold.names)

    async def _renew(self, hold: Hold) -> None:
        try:
            held = await self._cache.hold(hold.names, hold.holder)
            # Values loaded while Redis had lost the hold may be kept. A renewal whose answer was lost may be the one
            # that has set it again.
            lost = [name for name, was_held in zip(hold.names, held, strict=True) if hold.is_doubtful or not was_held]
            hold.is_doubtful = True
            if lost:
                await self._invalidator.many(lost)
            hold.is_doubtful = False
        except Exception as error:  # noqa: BLE001 - the next renewal tries again
            hold.is_doubtful = True
            log_failure(logger, logging.WARNING, "a hold was not renewed in Redis", error=error)

    async def _hold(self, hold: Hold) -> None:
        try:
            await self._cache.hold(hold.names, hold.holder)
        except SharedTierFailed as error:
            raise self._invalidator.failed(error) from error

    def _release(self, hold: Hold) -> None:
        hold.is_ended = True
        if self._open.pop(hold.holder, None) is not None:
            self._cache.settling.release(hold.names)

    async def _let_go(self, hold: Hold) -> None:
        # A forked process has no part in what its parent holds.
        if not hold.is_of_this_process:
            return
        try:
            await self._cache.let_go(hold.names, hold.holder)
        except SharedTierFailed as error:
            log_failure(logger, logging.WARNING, "a hold was not removed in Redis and expires by itself", error=error)
