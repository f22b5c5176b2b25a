"""How a task waits for what another thread does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from ..bell import Bell

T = TypeVar("T")


class Bells:
    """Tell waiters in any event loop that something changed."""

    def __init__(self) -> None:
        # No lock: the garbage collector may end a wait, and with it a load, wherever it finds it.
        self._bells: set[Bell] = set()

    def ring(self) -> None:
        """Let all waiters look again."""
        for bell in self._bells.copy():
            bell.ring()

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait until `done()` is true, which is looked at now and at every ring."""
        while not done():
            bell = Bell()
            self._bells.add(bell)
            try:
                # Looked at again once the bell hangs, or a ring between the two looks would be missed.
                if not done():
                    await bell.wait()
            finally:
                self._bells.discard(bell)


class _Work(Generic[T]):
    """One call in a thread, and what came of it."""

    def __init__(self, function: Callable[[threading.Event], T]) -> None:
        self._function = function
        self._result: T | None = None
        self._failure: BaseException | None = None
        self.given_up = threading.Event()
        self.ended = Bell()

    def run(self) -> None:
        try:
            self._result = self._function(self.given_up)
        except BaseException as failure:  # noqa: BLE001 - raised again in the task that waits
            self._failure = failure
        finally:
            self.ended.ring()

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
