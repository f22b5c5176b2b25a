"""One load per key at a time: single flight, in tasks the cache owns."""

from __future__ import annotations

import contextvars
import copy
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import anyio
from anyio.abc import TaskGroup

from ..errors import SourceUnavailable
from ..perloop import PerLoop
from .base import Key

R = TypeVar("R")

DRAIN_SECONDS = 5.0


class Flight(Generic[R]):
    """One load under way, and those who wait for it.

    `overtaken` is set by an invalidation: what the flight brings was asked for before it, so nobody may have it.
    """

    def __init__(self, key: Key) -> None:
        self.key = key
        self.overtaken = False
        self._landed = anyio.Event()
        self._result: R | None = None
        self._error: Exception | None = None

    async def wait(self) -> R | None:
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

    def land(self, result: R) -> None:
        """Hand the result to all who wait."""
        self._result = result
        self._landed.set()

    def fail(self, error: Exception) -> None:
        """Raise the error in all who wait."""
        self._error = error
        self._landed.set()

    @property
    def landed(self) -> bool:
        """Whether the load has ended."""
        return self._landed.is_set()


@dataclass
class _Runway(Generic[R]):
    """One event loop's flights and the task group they run in."""

    tasks: TaskGroup
    context: contextvars.Context
    places: anyio.CapacityLimiter
    flights: dict[Key, Flight[R]] = field(default_factory=dict)
    closing: bool = False


class Flights(Generic[R]):
    """All loads under way in the process; each event loop runs its own.

    A load whose last caller has gone is carried to its end: the next request finds its result. At shut-down loads that
    do not land in time are cancelled, and whoever still waits is told that the source is unavailable.

    Args:
        max_loads: loads of one event loop that may ask the source at the same time.
        drain_seconds: seconds loads under way get at shut-down to land.
    """

    def __init__(self, max_loads: int = 64, drain_seconds: float = DRAIN_SECONDS) -> None:
        self._max_loads = max_loads
        self._drain_seconds = drain_seconds
        self._lock = threading.Lock()
        self._by_name: dict[str, set[Flight[R]]] = {}
        self._runways: PerLoop[_Runway[R]] = PerLoop("the cache", self._open)

    def __len__(self) -> int:
        return sum(len(flights) for flights in list(self._by_name.values()))

    @property
    def opened(self) -> PerLoop[_Runway[R]]:
        """The context manager that opens the flights of the running event loop."""
        return self._runways

    @property
    def places(self) -> anyio.CapacityLimiter:
        """What a load of the running event loop takes a place of while it asks the source."""
        return self._runways.current.places

    def join(self, key: Key) -> Flight[R] | None:
        """Return the flight to wait for, or None where there is none that may still answer."""
        flight = self._runways.current.flights.get(key)
        return None if flight is None or flight.overtaken or flight.landed else flight

    def start(self, key: Key, load: Callable[[Flight[R]], Awaitable[R]]) -> Flight[R]:
        """Start a load in a task of its own and return its flight.

        Raises:
            SourceUnavailable: the cache is being closed.
        """
        runway = self._runways.current
        if runway.closing:
            raise SourceUnavailable("the application is shutting down")
        flight: Flight[R] = Flight(key)
        runway.flights[key] = flight
        with self._lock:
            self._by_name.setdefault(key[1], set()).add(flight)
        # In a context of its own: a load must not see, or keep alive, what belongs to the request that came first.
        runway.context.copy().run(runway.tasks.start_soon, self._run, runway, flight, load)
        return flight

    def overtake(self, name: str | None, forget: Callable[[], int]) -> int:
        """Mark the flights of a name, or all where it is None, and forget what is in memory, in one step.

        Args:
            name: the name that was invalidated.
            forget: drops it from memory; its result is returned.
        """
        with self._lock:
            names = list(self._by_name) if name is None else [name]
            for flight in [flight for each in names for flight in self._by_name.get(each, ())]:
                flight.overtaken = True
            return forget()

    def settle(self, flight: Flight[R], keep: Callable[[], None]) -> bool:
        """Carry out `keep` unless the flight was overtaken, in one step with the check; return whether it was kept."""
        with self._lock:
            if not flight.overtaken:
                keep()
            return not flight.overtaken

    async def _run(self, runway: _Runway[R], flight: Flight[R], load: Callable[[Flight[R]], Awaitable[R]]) -> None:
        try:
            flight.land(await load(flight))
        except Exception as error:  # noqa: BLE001 - whatever a source raises belongs to those who wait for it
            flight.fail(error)
        except (anyio.get_cancelled_exc_class(), KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - raised on, it would end every load of this event loop for good
            broken = SourceUnavailable(f"the load was broken off by {type(error).__name__}")
            broken.__cause__ = error
            flight.fail(broken)
        finally:
            if not flight.landed:
                why = "the application is shutting down" if runway.closing else "something cancelled it"
                flight.fail(SourceUnavailable(f"the load was cancelled: {why}"))
            self._forget(runway, flight)

    def _forget(self, runway: _Runway[R], flight: Flight[R]) -> None:
        if runway.flights.get(flight.key) is flight:
            del runway.flights[flight.key]
        with self._lock:
            flights = self._by_name[flight.key[1]]
            flights.discard(flight)
            if not flights:
                del self._by_name[flight.key[1]]

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[_Runway[R]]:
        async with anyio.create_task_group() as tasks:
            runway: _Runway[R] = _Runway(tasks, contextvars.copy_context(), anyio.CapacityLimiter(self._max_loads))
            try:
                yield runway
            finally:
                runway.closing = True
                with anyio.move_on_after(self._drain_seconds, shield=True):
                    for flight in list(runway.flights.values()):
                        await flight._landed.wait()
                tasks.cancel_scope.cancel()


def _own(error: Exception) -> Exception:
    """Return a copy of an error for one waiter: raised by all of them it would grow by the traceback of each."""
    try:
        mine = copy.copy(error)
    except Exception:  # noqa: BLE001 - an exception whose constructor asks for more is shared as it is
        return error
    mine.__cause__, mine.__context__ = error.__cause__, error.__context__
    mine.__suppress_context__ = error.__suppress_context__
    return mine.with_traceback(error.__traceback__)
