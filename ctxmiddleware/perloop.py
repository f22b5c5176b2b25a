"""A resource of which each event loop has its own, opened by count or at first use, owned by a task of that loop."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from types import TracebackType
from typing import Any, Final, Generic, TypeVar

import anyio
from anyio.lowlevel import RunVar

from .errors import NotOpen

logger = logging.getLogger("ctxmiddleware")

R = TypeVar("R")

# As long as a call under way at the end of its loop puts off the closing of what it uses.
CALL_SECONDS: Final = 2.0


class _Keeper(Generic[R]):
    """The task that enters one loop's resource, holds it open, and leaves it when told or when the loop ends."""

    def __init__(self, what: str, manager: AbstractAsyncContextManager[R], former: _Keeper[R] | None) -> None:
        self._what = what
        self._manager = manager
        self._former = former
        self.ready = anyio.Event()
        self.stop = anyio.Event()
        self.done = anyio.Event()
        self.resource: R | None = None
        self.failure: Exception | None = None
        self.was_cancelled = False
        self._calls = 0
        self._idle = anyio.Event()

    async def run(self) -> None:
        try:
            await self._former_done()
            async with self._manager as resource:
                self.resource = resource
                self.ready.set()
                try:
                    await self.stop.wait()
                finally:
                    # Cancelled by the loop's runner, too: what asks for it from now on would find it closed.
                    self.was_cancelled = not self.stop.is_set()
                    self.stop.set()
                    await self._called_no_more()
        except Exception as error:  # noqa: BLE001 - a system task has nobody else to catch for it
            self._failed(error)
        finally:
            self.resource = None
            self.ready.set()
            self.done.set()

    @contextmanager
    def called(self) -> Iterator[None]:
        """Put off closing by the loop's runner while a call uses the resource."""
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.set()

    async def _called_no_more(self) -> None:
        if self.was_cancelled and self._calls:
            self._idle = anyio.Event()
            with anyio.move_on_after(CALL_SECONDS, shield=True):
                await self._idle.wait()

    async def _former_done(self) -> None:
        # What is opened again while it is still being closed would be closed under whoever opened it.
        if self._former is not None:
            await self._former.done.wait()
            self._former = None

    def _failed(self, error: Exception) -> None:
        if self.ready.is_set():
            logger.error("%s failed while it was closed", self._what, exc_info=error)
        else:
            self.failure = error

    def opened(self) -> R:
        if self.failure is not None:
            raise self.failure
        if self.resource is None:
            raise NotOpen(f"{self._what} was closed while it was being opened")
        return self.resource


class PerLoop(Generic[R]):
    """Holds one resource for each running event loop, which a task of that loop enters and leaves.

    Sockets belong to the loop that opened them, while the objects users hold are shared by threads and loops. The
    owning task closes the resource when the last `async with` ends or when the loop's runner cancels it, so what was
    opened at first use by `ensure` is closed too. The context manager must shield its own closing from cancellation.

    Args:
        what: what it is, for errors and logs.
        open_one: makes the context manager of one loop's resource, which is never None.
    """

    def __init__(self, what: str, open_one: Callable[[], AbstractAsyncContextManager[R]]) -> None:
        self._what = what
        self._open_one = open_one
        self._keeper: RunVar[_Keeper[R] | None] = RunVar(what, None)
        # Apart from the keeper, whose place another takes if it fails while it is held.
        self._holders: RunVar[int] = RunVar(what, 0)
        self._is_ending: RunVar[bool] = RunVar(what, False)  # noqa: FBT003 - its default

    @property
    def current(self) -> R:
        """This loop's resource.

        Raises:
            NotOpen: nobody has opened it in this event loop.
        """
        resource = self.peek()
        if resource is None:
            raise NotOpen(f"{self._what} is not open in this event loop: use it inside `async with`")
        return resource

    def peek(self) -> R | None:
        """Return this loop's resource, or None where nobody has opened it, or no event loop is running."""
        try:
            keeper = self._keeper.get()
        except RuntimeError:  # NoEventLoopError is one, too; in a forked process the library seems to run still
            return None
        return None if keeper is None else keeper.resource

    def is_open(self) -> bool:
        """Return whether this loop's resource is open, and is not being closed."""
        keeper = self._keeper.get()
        return keeper is not None and keeper.resource is not None and not keeper.stop.is_set()

    async def ensure(self) -> R:
        """Return this loop's resource, opening it where it is not open yet. It closes with the loop."""
        keeper = self._running()
        while keeper.resource is None:
            await keeper.ready.wait()
            if not keeper.stop.is_set():
                return keeper.opened()
            # Its last holder left between its opening and this task's turn.
            keeper = self._running()
        return keeper.resource

    @asynccontextmanager
    async def using(self) -> AsyncIterator[R]:
        """Use this loop's resource for one call; at the end of the loop it is opened for that call alone.

        The loop's runner has cancelled the task that owned it, and would not cancel another that `ensure` begins then.
        """
        self._running()
        if self._is_ending.get():
            async with self as resource:
                yield resource
            return
        resource = await self.ensure()
        keeper = self._keeper.get()
        with nullcontext() if keeper is None else keeper.called():
            yield resource

    async def __aenter__(self) -> R:
        # Counted before the wait, or a holder that leaves meanwhile would close it under this one.
        keeper = self._running()
        self._hold(1)
        try:
            await keeper.ready.wait()
            return keeper.opened()
        except GeneratorExit:
            # By the garbage collector, in whichever loop is running now: the count of that one is another.
            raise
        except BaseException:
            self._hold(-1)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        keeper = self._keeper.get()
        if self._hold(-1) == 0 and keeper is not None:
            keeper.stop.set()
            with anyio.CancelScope(shield=True):
                await keeper.done.wait()

    def _hold(self, change: int) -> int:
        holders = self._holders.get() + change
        self._holders.set(holders)
        return holders

    def _running(self) -> _Keeper[R]:
        keeper = self._keeper.get()
        if keeper is not None and not keeper.stop.is_set() and not keeper.done.is_set():
            return keeper
        if keeper is not None and keeper.was_cancelled:
            self._is_ending.set(True)
        keeper = _Keeper(self._what, self._open_one(), keeper)
        self._keeper.set(keeper)

        async def run() -> None:
            try:
                await keeper.run()
            finally:
                # The loop's variables hold the keeper and the keeper's task holds the loop: a circle that never ends.
                if self._keeper.get() is keeper:
                    self._keeper.set(None)
                    self._is_ending.set(self._is_ending.get() or keeper.was_cancelled)

        spawn(run)
        return keeper


_tasks: set[asyncio.Task[None]] = set()


def spawn(function: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine function in a task that belongs to the running loop alone, with context variables of its own."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        import trio

        trio.lowlevel.spawn_system_task(function, context=contextvars.Context())
    else:
        task = loop.create_task(function(), context=contextvars.Context())
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)
