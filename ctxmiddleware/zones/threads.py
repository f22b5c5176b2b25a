"""How a task waits for what another thread does."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import anyio

T = TypeVar("T")


class Alarm:
    """An event of the running event loop that any thread may set."""

    def __init__(self) -> None:
        self._event = anyio.Event()
        self._soon = _scheduler()

    def set(self) -> None:
        """Wake who waits; nothing happens where their loop is gone."""
        with contextlib.suppress(RuntimeError):
            self._soon(self._event.set)

    async def wait(self) -> None:
        """Wait until it is set."""
        await self._event.wait()


class Bell:
    """Tells waiters in any event loop that something changed."""

    def __init__(self) -> None:
        # No lock: the garbage collector may end a wait, and with it a load, wherever it finds it.
        self._alarms: set[Alarm] = set()

    def ring(self) -> None:
        """Let all who wait look again."""
        for alarm in self._alarms.copy():
            alarm.set()

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait until `done()` is true, which is looked at now and at every ring."""
        while not done():
            alarm = Alarm()
            self._alarms.add(alarm)
            try:
                # Looked at again once the alarm hangs, or a ring between the two looks would be missed.
                if not done():
                    await alarm.wait()
            finally:
                self._alarms.discard(alarm)


class _Work(Generic[T]):
    """One call in a thread, and what came of it."""

    def __init__(self, function: Callable[[threading.Event], T]) -> None:
        self._function = function
        self._result: T | None = None
        self._failure: BaseException | None = None
        self.given_up = threading.Event()
        self.ended = Alarm()

    def run(self) -> None:
        try:
            self._result = self._function(self.given_up)
        except BaseException as failure:  # noqa: BLE001 - raised again in the task that waits
            self._failure = failure
        finally:
            self.ended.set()

    def outcome(self) -> T:
        if self._failure is not None:
            try:
                raise self._failure
            finally:
                # The error's traceback holds this frame, and the frame would hold the error.
                self._failure = None
        return self._result  # type: ignore[return-value]  # it is a T once the function has returned


async def in_daemon_thread(name: str, function: Callable[[threading.Event], T]) -> T:
    """Call a blocking function in a thread of its own, which a cancelled caller leaves behind at once.

    Pools of worker threads are no place for a call that may hang: the interpreter waits for their threads when it
    exits. It waits for no daemon.

    Args:
        name: the thread's name.
        function: what to call; the event it is given is set when nobody waits for its result any more.
    """
    work = _Work(function)
    threading.Thread(target=work.run, name=name, daemon=True).start()
    try:
        await work.ended.wait()
    except BaseException:
        work.given_up.set()
        raise
    return work.outcome()


def _scheduler() -> Callable[[Callable[[], None]], object]:
    try:
        return asyncio.get_running_loop().call_soon_threadsafe
    except RuntimeError:
        import trio

        return trio.lowlevel.current_trio_token().run_sync_soon
