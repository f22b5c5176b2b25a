"""Coroutines run from synchronous code: where the plugin is open, or else on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Final, Generic, TypeVar

from . import forking

R = TypeVar("R")

_STOPPED_WITHIN: Final = 10.0
_BEGUN_WITHIN: Final = 5.0
_LOOKED_EVERY: Final = 0.5


class Blocking:
    """Runs coroutine functions from threads without an event loop.

    Args:
        opened: returns what opens, in the thread of its own, what the functions need; it does not refer to this object,
            whose end is the thread's.
    """

    def __init__(self, opened: Callable[[], AbstractAsyncContextManager[object]]) -> None:
        self._opened = opened
        self.begin_anew()
        forking.register(self)

    def begin_anew(self) -> None:
        """Begin a thread of its own in a forked process: its parent's is not there, and neither are its loops."""
        # By their numbers: only the last one is used, and `setdefault` decides between two callers without a lock,
        # which a signal's handler or the garbage collector could find taken by its own thread.
        self._threads: dict[int, _LoopThread] = {}
        # Those that are not used, or no more, until they have closed what they opened.
        self._ending: weakref.WeakSet[_LoopThread] = weakref.WeakSet()
        self._loops: list[asyncio.AbstractEventLoop] = []
        weakref.finalize(self, _stop_all, self._threads).atexit = False

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Run functions in the running event loop, where it is one of asyncio, for as long as the block is open."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            yield
            return
        self._loops = [*(each for each in self._loops if not each.is_closed()), loop]
        try:
            yield
        finally:
            self._loops = [each for each in self._loops if each is not loop]

    def run(self, function: Callable[[], Coroutine[Any, Any, R]]) -> R:
        """Run a coroutine function and return what it returns.

        Args:
            function: the function; it may be run again where its event loop ends under it.

        Raises:
            RuntimeError: an event loop runs in this thread, which would stand still.
        """
        if _in_event_loop():
            raise RuntimeError("an event loop runs in this thread and would stand still: await it, or use `async with`")
        for loop in self._loops:
            if loop.is_running():
                try:
                    return _Call(function, loop).result(_BEGUN_WITHIN)
                except _LoopEnded:
                    continue
        return _Call(function, self._own_loop()).result(None)

    def stop(self) -> None:
        """Close what was opened in the thread, and end it; the next call begins another."""
        for thread in list(self._threads.values()):
            thread.stop()
        for thread in [*self._threads.values(), *self._ending]:
            thread.join()

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        last = max(self._threads, default=0)
        thread = self._threads.get(last)
        if thread is None or not thread.is_serving:
            mine = _LoopThread(self._opened())
            thread = self._threads.setdefault(last + 1, mine)
            if thread is not mine:
                self._ending.add(mine)
                mine.stop()
            former = self._threads.pop(last, None)
            if former is not None:
                self._ending.add(former)
        return thread.loop()


class _LoopEnded(RuntimeError):
    """The event loop of a call has ended, or never got to it."""


class _Call(Generic[R]):
    """A coroutine function that an event loop of another thread runs."""

    def __init__(self, function: Callable[[], Coroutine[Any, Any, R]], loop: asyncio.AbstractEventLoop) -> None:
        self._function = function
        self._loop = loop
        # The side that takes it decides whether the function runs.
        self._turn = [True]
        coroutine = self._run()
        try:
            # Without the caller's context variables, of which one may name another event loop's library.
            self._future = contextvars.Context().run(asyncio.run_coroutine_threadsafe, coroutine, loop)
        except RuntimeError as error:
            coroutine.close()
            raise _LoopEnded("the event loop was closed") from error

    async def _run(self) -> R:
        if not self._takes_turn():
            raise asyncio.CancelledError
        return await self._function()

    def _takes_turn(self) -> bool:
        try:
            return self._turn.pop()
        except IndexError:
            return False

    def result(self, begun_within: float | None) -> R:
        """Return what the function returns.

        Args:
            begun_within: seconds after which the loop is taken for one that stands still; None waits for it.
        """
        waited = 0.0
        try:
            while True:
                try:
                    return self._future.result(_LOOKED_EVERY)
                except TimeoutError:
                    if self._future.done():
                        return self._future.result()
                waited += _LOOKED_EVERY
                is_late = begun_within is not None and waited >= begun_within
                if not self._loop.is_running() or is_late:
                    took_turn = self._takes_turn()
                    if took_turn or not self._loop.is_running():
                        raise _LoopEnded("the event loop does not go on")
        except CancelledError as error:
            raise _LoopEnded("the event loop ended before the call did") from error
        except BaseException:
            # Raised by a signal's handler, too.
            self._future.cancel()
            raise


class _LoopThread:
    """A thread that runs an event loop and keeps something open in it, until it is stopped."""

    def __init__(self, opened: AbstractAsyncContextManager[object]) -> None:
        self._begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._is_stopped = False
        # No thread that the interpreter waits for at its end.
        self._thread = threading.Thread(target=self._serve, args=(opened,), name="ctxmiddleware", daemon=True)
        _begun_here.add(self)
        self._thread.start()

    @property
    def is_serving(self) -> bool:
        return not self._is_stopped and self._thread.is_alive()

    def loop(self) -> asyncio.AbstractEventLoop:
        return self._begun.result()[0]

    def stop(self) -> None:
        """Let it end, without a wait: the garbage collector may call it in any thread."""
        self._is_stopped = True
        # What is begun later sees the mark.
        if self._thread.is_alive() and self._begun.done() and self._begun.exception() is None:
            loop, stopped = self._begun.result()
            try:
                loop.call_soon_threadsafe(stopped.set)
            except RuntimeError:
                return

    def join(self) -> None:
        if self._thread is not threading.current_thread():
            self._thread.join(_STOPPED_WITHIN)

    def _serve(self, opened: AbstractAsyncContextManager[object]) -> None:
        async def main() -> None:
            stopped = asyncio.Event()
            async with opened:
                self._begun.set_result((asyncio.get_running_loop(), stopped))
                if not self._is_stopped:
                    await stopped.wait()

        try:
            asyncio.run(main())
        except BaseException as error:
            if self._begun.done():
                raise
            self._begun.set_exception(error)


_begun_here: Final[weakref.WeakSet[_LoopThread]] = weakref.WeakSet()


def _stop_all(threads: dict[int, _LoopThread]) -> None:
    for thread in list(threads.values()):
        thread.stop()


@atexit.register
def _join_all() -> None:
    threads = list(_begun_here)
    for thread in threads:
        thread.stop()
    for thread in threads:
        thread.join()


def _in_event_loop() -> bool:
    # No context variable, which asyncio.to_thread and others copy into their threads.
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        in_trio_run = getattr(sys.modules.get("trio.lowlevel"), "in_trio_run", None)
        return in_trio_run is not None and bool(in_trio_run())
    return True
