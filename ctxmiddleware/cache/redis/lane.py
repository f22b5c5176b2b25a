"""How what callers ask of Redis while a trip is under way travels together on the next."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import anyio
from anyio.abc import TaskGroup

from .order import Order

A = TypeVar("A")

# So many users travel at a time: their answers have to arrive within the time of one.
TRIP_USERS: Final = 500
TRIP_BYTES: Final = 2 * 1024 * 1024


class Lane:
    """Carries orders in trips, one after the other, in a task of its own.

    Whoever gives up waiting leaves the others of a trip alone. Nobody waits longer than `patience` for a trip that does
    not end, nor longer than `longest` for one to begin.

    Args:
        travel: carries orders out in one trip, sets the answers it gets, and never raises.
        give_up: told how many users will not be asked for, because their order did not come to its turn.
        patience: seconds.
        longest: seconds.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        travel: Callable[[Sequence[Order[Any]]], Awaitable[None]],
        give_up: Callable[[int], None],
        *,
        patience: float,
        longest: float,
        clock: Callable[[], float],
    ) -> None:
        self._travel = travel
        self._give_up = give_up
        self._patience = patience
        self._longest = longest
        self._clock = clock
        self._waiting: deque[Order[Any]] = deque()
        self._travelling: Sequence[Order[Any]] = ()
        self._moved_at = clock()
        self._wanted = anyio.Event()
        self._crowded = anyio.Event()
        self._closed = False
        self.trips = 0

    def __repr__(self) -> str:
        return f"<Lane: {len(self._travelling)} orders travelling, {len(self._waiting)} waiting>"

    @property
    def is_idle(self) -> bool:
        """Whether nobody travels and nobody waits."""
        return not self._travelling and not self._waiting

    def place(self, order: Order[Any]) -> None:
        """Let an order travel on the next trip that has room; `order.done` tells when it is over."""
        if self._closed:
            order.done.set()
            return
        if self._travelling:
            self._crowded.set()
        self._waiting.append(order)
        self._wanted.set()

    def open(self, tasks: TaskGroup) -> None:
        """Begin to travel, in tasks that end when they are cancelled."""
        tasks.start_soon(self._carry)
        tasks.start_soon(self._watch)

    def send_back(self) -> None:
        """Answer those who wait for a trip that nobody can say."""
        for order in self._waiting:
            order.done.set()
        self._waiting.clear()

    async def _carry(self) -> None:
        try:
            while True:
                # Whatever is placed in this turn of the event loop is there when this task comes to its turn.
                await self._wanted.wait()
                self._wanted = anyio.Event()
                while self._waiting:
                    await self._trip()
                    # Those who were just answered, and ask again at once, travel along.
                    await anyio.lowlevel.checkpoint()
        finally:
            self._closed = True
            self.send_back()

    async def _trip(self) -> None:
        self._travelling = self._next()
        self.trips += 1
        if self._waiting:
            self._crowded.set()
        try:
            await self._travel(self._travelling)
        finally:
            for order in self._travelling:
                order.done.set()
            self._travelling = ()
            self._moved_at = self._clock()

    def _next(self) -> list[Order[Any]]:
        taken = [self._waiting.popleft()]
        users, size = len(taken[0].errands), taken[0].size
        while self._waiting:
            users, size = users + len(self._waiting[0].errands), size + self._waiting[0].size
            if users > TRIP_USERS or size > TRIP_BYTES:
                break
            taken.append(self._waiting.popleft())
        return taken

    async def _watch(self) -> None:
        while True:
            await self._crowded.wait()
            self._crowded = anyio.Event()
            while self._waiting:
                await anyio.sleep(max(0.0, self._until(self._waiting[0]) - self._clock()))
                self._dismiss()

    def _until(self, order: Order[Any]) -> float:
        # Whoever waits in a line that moves is not busy's victim; a line that stands still is left at once.
        return min(order.at + self._longest, max(order.at, self._moved_at) + self._patience)

    def _dismiss(self) -> None:
        now = self._clock()
        while self._waiting and self._until(self._waiting[0]) <= now:
            order = self._waiting.popleft()
            self._give_up(len(order.errands))
            order.done.set()
