"""The block around a transaction: `async with plugin.changing(...)`, and `with` where code is synchronous."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self

import anyio

from .blocking import Blocking
from .errors import InvalidationFailed


class Changing:
    """A block in which no instance keeps what it loads of some users, and at whose end they are invalidated.

    Args:
        names: the names of their cache keys.
        begin: begins it, and returns what ends it.
        end: ends it.
        abandon: has it ended by others, without an await.
        blocking: runs both from synchronous code.
    """

    def __init__(
        self,
        names: Sequence[str],
        begin: Callable[[Sequence[str]], Awaitable[bytes]],
        end: Callable[[bytes], Awaitable[None]],
        abandon: Callable[[bytes], None],
        blocking: Blocking,
    ) -> None:
        self._names = names
        self._begin = begin
        self._end = end
        self._abandon = abandon
        self._blocking = blocking
        self._holder: bytes | None = None

    async def __aenter__(self) -> Self:
        self._refuse_second()
        self._holder = await self._begin(self._names)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, GeneratorExit):
            self._abandon(self._taken())
            return
        try:
            # Cancelled, the transaction may have been committed all the same.
            with anyio.CancelScope(shield=True):
                await self._end(self._taken())
        except InvalidationFailed as failure:
            if error is None:
                raise
            _attach(failure, error)

    def __enter__(self) -> Self:
        self._refuse_second()
        self._holder = self._blocking.run(self._begin, self._names)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._blocking.run(self._end, self._taken())
        except InvalidationFailed as failure:
            if error is None:
                raise
            _attach(failure, error)

    def _refuse_second(self) -> None:
        if self._holder is not None:
            raise RuntimeError("this block is open already: call plugin.changing() for each")

    def _taken(self) -> bytes:
        holder, self._holder = self._holder, None
        if holder is None:
            raise RuntimeError("this block is not open")
        return holder


def _attach(failure: InvalidationFailed, error: BaseException) -> None:
    """Add a failure to the error that a block ends with, which is raised in its place."""
    error.add_note(f"and at the end of plugin.changing(): {failure}")
    # Raised while the other was handled, it would be a circle.
    failure.__context__ = None
    first = error
    while first.__context__ is not None:
        first = first.__context__
    first.__context__ = failure
