"""What is kept where, and forgotten: memory and the shared tier, in step with the flights in the air."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from .base import Entry, Key
from .flight import Flight, Flights
from .memory import MemoryTier
from .policy import CachePolicy
from .shared import Look, SharedTier, Storing

V = TypeVar("V")


class Keeping(Generic[V]):
    """Reads and writes both tiers for flights, and never for one that an invalidation has overtaken.

    Args:
        policy: how long generations live.
        memory: the tier in this process.
        shared: the tier the fleet shares, or None.
        flights: what is in the air.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        policy: CachePolicy,
        memory: MemoryTier[V],
        shared: SharedTier[V] | None,
        flights: Flights[V],
        clock: Callable[[], float],
    ) -> None:
        # A load waits for its turn, asks, and looks and stores around that: generations outlive it.
        self.keep_ms = int((policy.ttl + policy.stale_for + 4 * policy.load_timeout) * 1000)
        self._memory = memory
        self._shared = shared
        self._flights = flights
        self._clock = clock

    @property
    def is_shared(self) -> bool:
        """Whether there is a tier the fleet shares."""
        return self._shared is not None

    def forget(self, name: str | None) -> int:
        """Drop a name, or everybody where it is None, from memory and from what is in the air; return how many."""
        memory = self._memory
        return self._flights.overtake(name, memory.clear if name is None else lambda: memory.drop(name))

    def held(self, flight: Flight[V]) -> Entry[V] | None:
        """Return what memory holds for a flight, whatever it is still good for."""
        return self._memory.get(flight.key)

    def keep(self, flight: Flight[V], entry: Entry[V]) -> bool:
        """Keep an entry in memory, unless its user was invalidated meanwhile; return whether it was kept."""
        return self._flights.settle(flight, lambda: self._memory.put(flight.key, entry, self._clock()))

    def discard(self, flight: Flight[V], entry: Entry[V]) -> None:
        """Forget an entry that is known to be overtaken: it must not come back when Redis cannot be asked later."""
        self._memory.discard(flight.key, entry)

    async def look(self, flights: Sequence[Flight[V]]) -> Sequence[Look[V] | None]:
        """Return what the shared tier says of each flight; None where it cannot say, or where there is none."""
        if self._shared is None or not flights:
            return [None] * len(flights)
        return await self._shared.look([flight.key for flight in flights], self.keep_ms)

    async def store(self, values: Sequence[Storing[V]]) -> set[Key]:
        """Keep values in the shared tier, and forget whoever was invalidated while they were loaded.

        Returns:
            the keys whose generations are still in force; of the others nobody knows, or they have moved on.
        """
        if self._shared is None or not values:
            return set()
        answers = await self._shared.store(values)
        for value, stored in zip(values, answers, strict=True):
            if stored is False:
                self.forget(value.key[1])
        return {value.key for value, stored in zip(values, answers, strict=True) if stored}
