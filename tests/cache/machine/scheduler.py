"""An event loop whose time is virtual and whose next step is chosen: every await is put in an order."""

from __future__ import annotations

import asyncio
import asyncio.events
from collections.abc import Callable
from typing import Any


class Scheduler(asyncio.BaseEventLoop):
    """Runs one ready callback at a time, whichever is chosen, and a timer when its virtual second has come.

    asyncio runs callbacks in the order they became ready; nothing in it promises how many awaits lie between two of
    them, so code that is right only in that order is wrong. What a callback raises is kept in `failures`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.steps = 0
        self.failures: list[str] = []
        self.set_exception_handler(self._failed)

    def time(self) -> float:
        """Return the virtual seconds."""
        return self.now

    def step(self, choose: Callable[[int], int]) -> bool:
        """Run one callback of those that are ready; return whether there was one.

        Args:
            choose: picks a place below the number of callbacks that are ready.
        """
        self._wake()
        ready: Any = self._ready  # type: ignore[attr-defined]  # where asyncio keeps its handles
        if not ready:
            return False
        place = choose(len(ready))
        handle = ready[place]
        del ready[place]
        self.steps += 1
        if not handle.cancelled():
            asyncio.events._set_running_loop(self)
            try:
                handle._run()
            finally:
                asyncio.events._set_running_loop(None)
        return True

    def settle(self, choose: Callable[[int], int], most: int = 20_000) -> None:
        """Run callbacks until none is ready, so many at most."""
        for _ in range(most):
            if not self.step(choose):
                return
        self.failures.append(f"not at rest after {most} steps")

    def next_timer(self) -> float | None:
        """Return the virtual second of the first timer, or None where there is none."""
        timers = [timer.when() for timer in self._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
        return min(timers, default=None)

    def _wake(self) -> None:
        scheduled: Any = self._scheduled  # type: ignore[attr-defined]  # where asyncio keeps its timers
        due = sorted((timer for timer in scheduled if timer.when() <= self.now), key=lambda timer: timer.when())
        for timer in due:
            scheduled.remove(timer)
            timer._scheduled = False
            if not timer.cancelled():
                self._ready.append(timer)  # type: ignore[attr-defined]

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.failures.append(f"{context.get('message')}: {context.get('exception')!r}")

    def _process_events(self, event_list: object) -> None:
        """Nothing comes from outside."""

    def _write_to_self(self) -> None:
        """Nobody sleeps in a selector that would have to be woken."""
