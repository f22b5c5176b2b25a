"""Who asks the source next: loads wait for their turn, and travel in few batches so that later misses gather."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import anyio
from anyio.abc import TaskGroup

from ..errors import SourceUnavailable
from .flight import Carry, Flight

V = TypeVar("V")

PATIENCE_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How many loads may be where.

    Args:
        batch_size: loads that travel in one call at most; 1 where the source takes one name only.
        max_batches: calls in flight above which later loads gather, while none of them is slow.
        max_calls: calls in flight at most, slow ones included.
        max_waiting: loads that may wait for their turn.
        patience: seconds after which a call is slow and no longer keeps others waiting.
    """

    batch_size: int
    max_batches: int
    max_calls: int
    max_waiting: int
    patience: float = PATIENCE_SECONDS


class LoadQueue(Generic[V]):
    """One event loop's loads on their way to the source.

    With few calls in flight later loads gather into full batches: at 1,000 misses a second over calls of 20 ms, one
    call in flight costs a sixteenth of what twenty do. A call that is slow gives its turn away, so that one hung answer
    does not hold up everybody; `max_calls` is never passed.

    Args:
        tasks: where calls run.
        carry: makes one call for these loads and lands them all.
        limits: how many.
        sleep: waits for the end of `patience`.
    """

    def __init__(
        self,
        tasks: TaskGroup,
        carry: Carry[V],
        limits: QueueLimits,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._tasks = tasks
        self._carry = carry
        self._limits = limits
        self._sleep = sleep
        self._waiting: deque[Flight[V]] = deque()
        self.calls = 0
        self._slow = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __repr__(self) -> str:
        return f"<LoadQueue: {len(self)} waiting, {self.calls} calls in flight, {self._slow} of them slow>"

    def add(self, flight: Flight[V]) -> None:
        """Let a load wait for its turn.

        Raises:
            SourceUnavailable: too many wait already.
        """
        if len(self._waiting) >= self._limits.max_waiting:
            raise SourceUnavailable(f"{len(self._waiting)} loads wait for the source already", retry_after=1.0)
        self._waiting.append(flight)

    def dispatch(self) -> None:
        """Send off as many batches as there are turns for."""
        while self._waiting and self._has_turn():
            size = min(len(self._waiting), self._limits.batch_size)
            batch = [self._waiting.popleft() for _ in range(size)]
            self.calls += 1
            self._tasks.start_soon(self._call, batch)

    def _has_turn(self) -> bool:
        if self.calls >= self._limits.max_calls:
            return False
        return self._limits.batch_size == 1 or self.calls - self._slow < self._limits.max_batches

    async def _call(self, batch: list[Flight[V]]) -> None:
        turn = _Turn()
        try:
            async with anyio.create_task_group() as tasks:
                if self._limits.batch_size > 1:
                    tasks.start_soon(self._lose_patience, turn)
                await self._carry(batch)
                tasks.cancel_scope.cancel()
        finally:
            self.calls -= 1
            self._slow -= turn.is_slow
            self.dispatch()

    async def _lose_patience(self, turn: _Turn) -> None:
        await self._sleep(self._limits.patience)
        turn.is_slow = True
        self._slow += 1
        self.dispatch()


@dataclass(slots=True)
class _Turn:
    is_slow: bool = False
