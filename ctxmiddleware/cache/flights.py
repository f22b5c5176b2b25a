"""One load per key at a time: single flight, carried by tasks the cache owns."""

from __future__ import annotations

import contextvars
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Generic, TypeVar

import anyio
from anyio.abc import TaskGroup

from ..collectable import CollectableLock
from ..errors import SourceUnavailable
from ..perloop import PerLoop
from .base import Found, Key
from .flight import Carry, Flight, Queue, Runway
from .names import Names

V = TypeVar("V")

DRAIN_SECONDS = 5.0


class Flights(Generic[V]):
    """All loads under way in the process; each event loop runs its own.

    Flights that start in one turn of the event loop depart together, in one task. A load whose last caller has gone is
    carried to its end: the next request finds its result. At shut-down loads that do not land in time are cancelled,
    and whoever still waits is told that the source is unavailable.

    Args:
        depart: takes the flights of one turn on their way; those it leaves in the air are landed by others.
        queue: makes an event loop's queue at the source, whose calls run in the task group it is given.
        drain_seconds: seconds loads under way get at shut-down to land.
        digest: stands for a name in news of it; None where there are none.
    """

    def __init__(
        self,
        depart: Carry[V],
        queue: Callable[[TaskGroup], Queue[V]],
        drain_seconds: float = DRAIN_SECONDS,
        digest: Callable[[str], bytes] | None = None,
    ) -> None:
        self._depart = depart
        self._queue = queue
        self._drain_seconds = drain_seconds
        self._lock = CollectableLock()
        self._by_name: dict[str, set[Flight[V]]] = {}
        self.names = None if digest is None else Names(digest)
        self.opened: PerLoop[Runway[V]] = PerLoop("the cache", self._open)

    def __len__(self) -> int:
        return sum(len(flights) for flights in list(self._by_name.values()))

    def __repr__(self) -> str:
        return f"<Flights: {len(self)} in the air>"

    def join(self, key: Key) -> Flight[V] | None:
        """Return the flight to wait for, or None where there is none that may still answer."""
        flight = self.opened.current.flights.get(key)
        return None if flight is None or flight.overtaken or flight.landed else flight

    def start(self, key: Key, *, alone: bool = False) -> Flight[V]:
        """Start a load that departs at the end of this turn of the event loop, and return its flight.

        Args:
            key: what it is for.
            alone: whether it leaves the shared tier alone, as if that could not be asked.

        Raises:
            SourceUnavailable: the cache is being closed.
        """
        runway = self.opened.current
        if runway.closing:
            raise SourceUnavailable("the application is shutting down")
        flight = Flight(runway, key, behind=False)
        flight.alone = alone
        return self._take_off(flight)

    def refresh(self, key: Key) -> bool:
        """Start a load nobody waits for, unless one is under way; return whether it was started."""
        runway = self.opened.peek()
        if runway is None or runway.closing or self.join(key) is not None:
            return False
        self._take_off(Flight(runway, key, behind=True))
        return True

    def land(self, flight: Flight[V], result: Found[V]) -> None:
        """Hand a result to all who wait for a flight."""
        self._end(flight, result, None)

    def fail(self, flight: Flight[V], error: Exception) -> None:
        """Raise an error in all who wait for a flight."""
        self._end(flight, None, error)

    def still_wanted(self, flights: Sequence[Flight[V]]) -> list[Flight[V]]:
        """Return the flights somebody may still use, and end those that were overtaken."""
        for flight in flights:
            if flight.overtaken:
                # Its callers start anew as soon as it has landed; what it would bring is for nobody.
                self.fail(flight, SourceUnavailable("the load was overtaken by an invalidation"))
        return [flight for flight in flights if not flight.landed]

    def overtake(
        self, name: str | None, forget: Callable[[], int], spared: Callable[[Flight[V]], bool] | None = None
    ) -> int:
        """Mark the flights of a name, or all where it is None, and forget what is in memory, in one step.

        Args:
            name: the name that was invalidated.
            forget: drops it from memory; its result is returned.
            spared: says of a flight whether it may land all the same.
        """
        with self._lock:
            names = list(self._by_name) if name is None else [name]
            for flight in [flight for each in names for flight in self._by_name.get(each, ())]:
                flight.overtaken = flight.overtaken or spared is None or not spared(flight)
            return forget()

    def doubt(self, name: str, doubt: Callable[[], None]) -> None:
        """Mark the flights of a name as doubted, and carry out `doubt` in memory, in one step."""
        with self._lock:
            for flight in self._by_name.get(name, ()):
                flight.doubted = True
            doubt()

    def settle(self, flight: Flight[V], keep: Callable[[], None]) -> bool:
        """Carry out `keep` unless the flight was overtaken, in one step with the check; return whether it was kept."""
        with self._lock:
            if not flight.overtaken:
                keep()
            return not flight.overtaken

    @contextmanager
    def aboard(self, flights: Sequence[Flight[V]]) -> Iterator[None]:
        """Let nobody wait for ever: flights fail with whatever breaks off the block, which is the last of its task.

        A cancellation ends here too: raised on, one that slipped out of something a source awaited would end every load
        of this event loop for good. Where the task itself is cancelled it has nothing left to do.
        """
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever a source raises belongs to those who wait for it
            self._fail_all(flights, error)
        except (KeyboardInterrupt, SystemExit) as error:
            self._fail_all(flights, _broken_off(error))
            raise
        except BaseException as error:  # noqa: BLE001 - as above
            self._fail_all(flights, _broken_off(error))

    def _take_off(self, flight: Flight[V]) -> Flight[V]:
        runway = flight.runway
        runway.flights[flight.key] = flight
        runway.in_the_air.add(flight)
        with self._lock:
            self._by_name.setdefault(flight.key[1], set()).add(flight)
            if self.names is not None:
                self.names.hold(flight.key[1])
        runway.departing.append(flight)
        if len(runway.departing) == 1:
            # In a context of its own: a load must not see, or keep alive, what belongs to the request that came first.
            runway.context.copy().run(runway.tasks.start_soon, self._depart_together, runway)
        return flight

    def depart_again(self, flights: Sequence[Flight[V]]) -> None:
        """Send flights of one event loop on their way once more, in a task of their own."""
        if flights:
            flights[0].runway.tasks.start_soon(self._carry, flights)

    async def _depart_together(self, runway: Runway[V]) -> None:
        departing, runway.departing = runway.departing, []
        await self._carry(departing)

    async def _carry(self, flights: Sequence[Flight[V]]) -> None:
        with self.aboard(flights):
            await self._depart(flights)

    def _end(self, flight: Flight[V], result: Found[V] | None, error: Exception | None) -> None:
        if flight.landed:
            return
        flight.end(result, error)
        runway = flight.runway
        runway.in_the_air.discard(flight)
        if runway.flights.get(flight.key) is flight:
            del runway.flights[flight.key]
        self._lock.soon(partial(self._forget, flight))

    def _forget(self, flight: Flight[V]) -> None:
        if self.names is not None:
            self.names.release(flight.key[1])
        flights = self._by_name[flight.key[1]]
        flights.discard(flight)
        if not flights:
            del self._by_name[flight.key[1]]

    def _fail_all(self, flights: Sequence[Flight[V]], error: Exception) -> None:
        for flight in flights:
            self.fail(flight, error)

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Runway[V]]:
        async with anyio.create_task_group() as tasks:
            runway: Runway[V] = Runway(tasks, contextvars.copy_context(), self._queue(tasks))
            try:
                yield runway
            finally:
                runway.closing = True
                with anyio.move_on_after(self._drain_seconds, shield=True):
                    for flight in list(runway.in_the_air):
                        await flight._landed.wait()
                self._fail_all(
                    list(runway.in_the_air),
                    SourceUnavailable("the load was cancelled: the application is shutting down"),
                )
                tasks.cancel_scope.cancel()


def _broken_off(error: BaseException) -> SourceUnavailable:
    if isinstance(error, anyio.get_cancelled_exc_class()):
        return SourceUnavailable("the load was cancelled: something cancelled its task")
    broken = SourceUnavailable(f"the load was broken off by {type(error).__name__}")
    broken.__cause__ = error
    return broken
