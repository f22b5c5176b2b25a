"""The block around a transaction: `async with plugin.changing(...)`, and `with` where code is synchronous."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Self

from .attaching import attach
from .blocking import Blocking
from .hold import Hold
from .holding import Holding
from .reports import InvalidationReport


class Changing:
    """A block in which no instance keeps what it loads of some users, and at whose end they are invalidated.

    Args:
        names: the names of their cache keys.
        holding: returns the holds of this process.
        blocking: begins and ends them from synchronous code.
    """

    def __init__(self, names: Sequence[str], holding: Callable[[], Holding], blocking: Blocking) -> None:
        self._names = names
        self._holding = holding
        self._blocking = blocking
        self._hold: Hold | None = None
        self._last: Hold | None = None

    @property
    def report(self) -> InvalidationReport | None:
        """The report of the invalidation at the begin, after the block of the one at its end; None before the begin."""
        return None if self._last is None else self._last.report

    async def __aenter__(self) -> Self:
        hold = self._opening()
        try:
            await self._holding().begin(hold)
        except BaseException:
            self._hold = None
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        hold = self._closing(error)
        if hold is None:
            return
        try:
            await self._holding().end(hold)
        except Exception as failure:
            if error is None:
                raise
            attach(failure, error)

    def __enter__(self) -> Self:
        hold = self._opening()
        try:
            self._blocking.run(partial(self._holding().begin, hold))
        except BaseException:
            # A signal's handler may have raised it while the hold was begun.
            hold.finish()
            self._hold = None
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        hold = self._closing(error)
        if hold is None:
            return
        try:
            self._blocking.run(partial(self._holding().end, hold))
        except Exception as failure:
            if error is None:
                raise
            attach(failure, error)
        finally:
            hold.finish()

    def _opening(self) -> Hold:
        if self._hold is not None:
            raise RuntimeError("this block is open already: call plugin.changing() for each")
        self._hold = self._last = Hold(self._names)
        return self._hold

    def _closing(self, error: BaseException | None) -> Hold | None:
        hold, self._hold = self._hold, None
        if hold is None:
            raise RuntimeError("this block is not open")
        if isinstance(error, GeneratorExit):
            # By the garbage collector, maybe, in any thread: nothing can be awaited.
            hold.finish()
            return None
        return hold
