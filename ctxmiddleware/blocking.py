"""Coroutines run from synchronous code: on an event loop in a thread of its own, begun with the first of them."""

from __future__ import annotations

import asyncio
import atexit
import threading
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Final, TypeVar, TypeVarTuple

import anyio
import sniffio
from anyio.from_thread import BlockingPortal

from . import forking

R = TypeVar("R")
A = TypeVarTuple("A")

_STOPPED_WITHIN: Final = 10.0


class Blocking:
    """Runs coroutine functions from threads without an event loop, and ends with the interpreter."""

    def __init__(self) -> None:
        self.begin_anew()
        forking.register(self)

    def begin_anew(self) -> None:
        """Begin a thread of its own in a forked process: its parent's is not there."""
        self._lock = threading.Lock()
        self._portal: BlockingPortal | None = None
        self._thread: threading.Thread | None = None

    def run(self, function: Callable[[*A], Awaitable[R]], *arguments: *A) -> R:
        """Run a coroutine function and return what it returns.

        Args:
            function: the function.
            *arguments: its arguments.

        Raises:
            RuntimeError: an event loop runs in this thread, which would stand still.
        """
        if _in_event_loop():
            raise RuntimeError("an event loop runs in this thread and would stand still: await it, or use `async with`")
        return self._running().call(function, *arguments)

    def stop(self) -> None:
        """Close what was opened in the thread, and end it; the next call begins another."""
        with self._lock:
            portal, thread = self._portal, self._thread
            self._portal = self._thread = None
        if portal is not None and thread is not None:
            portal.start_task_soon(portal.stop)
            thread.join(_STOPPED_WITHIN)

    def _running(self) -> BlockingPortal:
        with self._lock:
            if self._portal is None:
                begun: Future[BlockingPortal] = Future()
                # No thread that the interpreter waits for at its end.
                self._thread = threading.Thread(target=_serve, args=(begun,), name="ctxmiddleware", daemon=True)
                self._thread.start()
                self._portal = begun.result()
                _stop_at_exit(weakref.ref(self))
            return self._portal


def _serve(begun: Future[BlockingPortal]) -> None:
    async def main() -> None:
        async with BlockingPortal() as portal:
            begun.set_result(portal)
            await portal.sleep_until_stopped()

    try:
        anyio.run(main)
    except BaseException as error:
        if begun.done():
            raise
        begun.set_exception(error)


def _stop_at_exit(blocking: weakref.ref[Blocking]) -> None:
    def stop() -> None:
        held = blocking()
        if held is not None:
            held.stop()

    atexit.register(stop)


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        try:
            sniffio.current_async_library()
        except sniffio.AsyncLibraryNotFoundError:
            return False
    return True
