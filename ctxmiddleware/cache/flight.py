"""One load under way, who waits for it, and where it starts."""

from __future__ import annotations

import contextvars
import copy
import math
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import anyio
from anyio.abc import TaskGroup

from .base import Entry, Found, Key
from .shared import Look

V = TypeVar("V")


class Flight(Generic[V]):
    """One load under way, and those who wait for it.

    Args:
        runway: the event loop's, from which it starts.
        key: what it is for.
        behind: whether nobody waits for it, because what memory holds still answers.

    `overtaken` is set by an invalidation: what the flight brings was asked for before it, so nobody may have it.
    `doubted` is set by news that its generation was touched: what it brings is not trusted beyond those who wait.
    `alone` is one that leaves the shared tier alone.
    `listed` is whether the reports of other instances counted this one in when Redis, and then the source, was asked.
    `closes_at` is the monotonic second from which a caller that comes waits for another load.
    `epoch` is the epoch of trust before it looked, `lease` the fleet's for this load, where one was given.
    """

    def __init__(self, runway: Runway[V], key: Key, *, behind: bool) -> None:
        self.runway = runway
        self.key = key
        self.behind = behind
        self.overtaken = False
        self.doubted = False
        self.alone = False
        self.listed = True
        self.closes_at = math.inf
        self.looked = (0.0, 0.0)
        self.epoch = 0
        self.lease = b""
        self.agains = 0
        self.started_at = anyio.current_time()
        self.has_looked = False
        self.held: Entry[V] | None = None
        self.look: Look[V] | None = None
        self.known: Found[V] | None = None
        self._landed = anyio.Event()
        self._result: Found[V] | None = None
        self._error: Exception | None = None

    async def wait(self) -> Found[V] | None:
        """Wait for the load, and return what it brought, or None where it was overtaken and another is due.

        Raises:
            SourceError: the load failed.
        """
        await self._landed.wait()
        if self.overtaken:
            return None
        if self._error is not None:
            raise _own(self._error)
        return self._result

    def end(self, result: Found[V] | None = None, error: Exception | None = None) -> None:
        """Hand the result, or the error, to all who wait."""
        self._result, self._error = result, error
        self._landed.set()

    @property
    def landed(self) -> bool:
        """Whether the load has ended."""
        return self._landed.is_set()


Carry = Callable[[Sequence[Flight[V]]], Coroutine[Any, Any, None]]
"""Takes flights on their way; whichever it leaves neither landed nor waiting in the air fails."""


class Queue(Protocol[V]):
    """Where flights wait for their turn at the source."""

    def add(self, flight: Flight[V]) -> None:
        """Let a flight wait for its turn.

        Raises:
            SourceUnavailable: too many wait already.
        """
        ...

    def dispatch(self) -> None:
        """Send off those whose turn it is."""
        ...


@dataclass(eq=False)
class Runway(Generic[V]):
    """One event loop's flights, the task group that carries them, and their queue at the source."""

    tasks: TaskGroup
    context: contextvars.Context
    queue: Queue[V]
    flights: dict[Key, Flight[V]] = field(default_factory=dict)
    in_the_air: set[Flight[V]] = field(default_factory=set)
    departing: list[Flight[V]] = field(default_factory=list)
    closing: bool = False


def _own(error: Exception) -> Exception:
    """Return a copy of an error for one waiter: raised by all of them it would grow by the traceback of each."""
    try:
        mine = copy.copy(error)
    except Exception:  # noqa: BLE001 - an exception whose constructor asks for more is shared as it is
        return error
    mine.__cause__, mine.__context__ = error.__cause__, error.__context__
    mine.__suppress_context__ = error.__suppress_context__
    return mine.with_traceback(error.__traceback__)
