"""A lock for state that the garbage collector may change, too, at any line of any thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType


class CollectableLock:
    """A lock, and changes that wait for it without blocking.

    A task that is collected runs its `finally` blocks in whichever thread the collector found it, which may hold the
    lock already: what such a block changes goes through `soon`. It is carried out at once where the lock is free, else
    by its holder; in any case before the lock is taken again.
    """

    __slots__ = ("_changes", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changes: deque[Callable[[], object]] = deque()

    def soon(self, change: Callable[[], object]) -> None:
        """Carry out a change under the lock, without ever waiting for it.

        Args:
            change: what changes; it takes no lock and raises nothing.
        """
        self._changes.append(change)
        self._carry_out_waiting()

    def __enter__(self) -> None:
        self._lock.acquire()
        self._carry_out()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._carry_out()
        self._lock.release()
        self._carry_out_waiting()

    def _carry_out(self) -> None:
        while self._changes:
            self._changes.popleft()()

    def _carry_out_waiting(self) -> None:
        # A call between the last look and the release has found the lock held.
        while self._changes and self._lock.acquire(blocking=False):
            try:
                self._carry_out()
            finally:
                self._lock.release()
