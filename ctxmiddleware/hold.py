"""One block's hold: its names, and the task that begins, renews and ends it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import Any

import anyio

from . import forking
from .bell import Bell
from .reports import InvalidationReport


class HoldTask:
    """A task of one event loop that works on a hold, made in that loop; others wait for it, and never cut it short."""

    def __init__(self) -> None:
        self.ready = anyio.Event()
        self.done = anyio.Event()
        self.beginning = anyio.CancelScope()
        self.has_begun = False
        self.failure: Exception | None = None
        self.bell = Bell()
        self._loop = _running_loop()

    @property
    def is_in_closed_loop(self) -> bool:
        """Whether its event loop goes on no more."""
        if isinstance(self._loop, asyncio.AbstractEventLoop):
            return self._loop.is_closed()
        try:
            self._loop.run_sync_soon(_nothing, idempotent=True)
        except RuntimeError:
            return True
        return False

    @property
    def is_in_running_loop(self) -> bool:
        """Whether its event loop runs in this thread."""
        return self._loop is _running_loop()


class Hold:
    """Names that are held while a block is open. It may be given up before it has begun, from any thread.

    Args:
        names: the names of cache keys.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.holder = secrets.token_bytes(16)
        self.task: HoldTask | None = None
        self.report: InvalidationReport | None = None
        self.is_over = False
        self.is_ended = False
        self.is_doubtful = False
        self._process = forking.epoch()

    @property
    def is_of_this_process(self) -> bool:
        """Whether it was made in this process, not in the one that this one was forked from."""
        return self._process == forking.epoch()

    @property
    def is_orphaned(self) -> bool:
        """Whether no task will end it: its event loop was closed, or has cancelled the task, and its block is over."""
        task = self.task
        if task is None or self.is_ended:
            return False
        return task.is_in_closed_loop or (self.is_over and task.done.is_set())

    def finish(self) -> None:
        """Let its task end it, without a wait: from any thread, by the garbage collector and by a signal's handler."""
        self.is_over = True
        if self.task is not None and self.is_of_this_process:
            self.task.bell.ring()


def _running_loop() -> Any:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        import trio

        return trio.lowlevel.current_trio_token()


def _nothing() -> None:
    pass
