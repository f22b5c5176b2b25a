"""What flights find before the source is asked: what is known already, or that another instance asks."""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import anyio

from ..stats import MEMORY, REDIS, Counters
from .base import HELD, Entry, Fence, Found, Stored
from .flight import Flight
from .flights import Flights
from .keeping import Keeping
from .policy import CachePolicy
from .shared import Look
from .trust import Trust

V = TypeVar("V")

# So often a load looks again because another has landed, before it is made whatever others do.
MOST_AGAINS = 5


class Looking(Generic[V]):
    """Looks into both tiers for flights that depart, and claims the loads of those that found nothing.

    Args:
        policy: how long.
        flights: what is in the air.
        keeping: reads and writes both tiers.
        load: queues up loads that are to be made here.
        trust: how far memory is trusted.
        counters: where events are counted.
        clock: monotonic seconds.
        rng: spreads what would come at once.
    """

    def __init__(
        self,
        policy: CachePolicy,
        flights: Flights[V],
        keeping: Keeping[V],
        load: Callable[[Sequence[Flight[V]]], Awaitable[None]],
        *,
        trust: Trust,
        counters: Counters,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._policy = policy
        self._flights = flights
        self._keeping = keeping
        self._load = load
        self._trust = trust
        self._counters = counters
        self._clock = clock
        self._rng = rng

    async def depart(self, departing: Sequence[Flight[V]]) -> None:
        """Land what is known already, wait for what others load, and hand over the loads that are to be made here."""
        flights = self._flights.still_wanted(departing)
        # Before the look, too: this instance misses invalidations that return before it is listed again.
        is_listed = self._keeping.is_listed
        for flight in flights:
            flight.listed, flight.closes_at = is_listed, math.inf if is_listed else -math.inf
            flight.held = self._keeping.held(flight)
            flight.known = None if flight.held is None else Found(flight.held, MEMORY, stale=True)
            # Before the look, and doubts of before are settled by it: what is heard from now on counts.
            flight.epoch, flight.doubted = self._trust.epoch, False
        asked_at, looks = await self._keeping.look(flights)
        looked = asked_at, self._clock()
        for flight in flights:
            flight.has_looked, flight.looked = True, looked
        waiting = [
            flight
            for flight, look in zip(flights, looks, strict=True)
            if not (self._is_put_off(flight) if look is None else self._is_answered(flight, look, asked_at))
        ]
        for flight in waiting:
            flight.closes_at = math.inf
        await self._share(waiting)

    def _is_put_off(self, flight: Flight[V]) -> bool:
        """Land a refresh that only was to confirm, by a Redis that has no time now, on what the channel vouches for.

        The source has nothing to do with it: thousands may ask for that at once, where their connection was lost.
        """
        now, held = self._clock(), flight.held
        if not flight.behind or flight.doubted or held is None or self._policy.is_due(held, now):
            return False
        if now >= held.expires_at or not self._trust.vouches(held, now):
            return False
        held.renew_at = now + 1.0 + self._rng.random()
        self._flights.land(flight, Found(held, MEMORY))
        return True

    async def _share(self, flights: Sequence[Flight[V]]) -> None:
        """Queue up the loads that are to be made here, and wait for those that other instances make."""
        # Each is asked once: one that crosses its time in between would be in neither.
        now = anyio.current_time()
        # A load of a held user is stored nowhere: another instance's load would bring nothing to a waiting one.
        alone = {
            flight
            for flight in flights
            if flight.look is None or now >= self._waits_until(flight) or self._keeping.windows(flight) is HELD
        }
        await self._load([flight for flight in flights if flight in alone])
        shared = [flight for flight in flights if flight not in alone]
        if shared:
            await self._claim(shared)

    def _waits_until(self, flight: Flight[V]) -> float:
        return flight.started_at + self._policy.lease_wait

    async def _claim(self, flights: Sequence[Flight[V]]) -> None:
        with self._keeping.landings(flights) as landings:
            claims = await self._keeping.claim(flights)
            mine, again, until = [], [], dict[Flight[V], float]()
            for flight, claim in zip(flights, claims, strict=True):
                flight.lease = claim.lease
                if claim.again and flight.agains < MOST_AGAINS:
                    flight.agains += 1
                    again.append(flight)
                elif claim.wait:
                    until[flight] = min(anyio.current_time() + claim.wait, self._waits_until(flight))
                else:
                    mine.append(flight)
            self._flights.depart_again(again)
            await self._load(mine)
            self._counters.add("load", "leased", len(until))
            while until:
                landed = await landings.next(min(until.values()) - anyio.current_time())
                now = anyio.current_time()
                ready = [flight for flight in until if flight.key in landed or now >= until[flight]]
                for flight in ready:
                    del until[flight]
                self._flights.depart_again(ready)

    def _is_answered(self, flight: Flight[V], look: Look[V], asked_at: float) -> bool:
        held = flight.held
        if held is not None and held.fence != look.fence:
            self._keeping.drop_others(flight, look.fence)
        flight.look = look
        flight.known = known = self._under(flight, look, asked_at)
        if known is None or known.stale:
            return False
        self._keeping.keep(flight, known.entry)
        if flight.behind and self._policy.is_due(known.entry, asked_at):
            return False
        self._flights.land(flight, known)
        return True

    def _under(self, flight: Flight[V], look: Look[V], asked_at: float) -> Found[V] | None:
        """Return what is known under the generations in force; stale where it may only stand in for the source."""
        held, windows = flight.held, self._keeping.windows(flight)
        ours = None
        if held is not None and held.fence == look.fence:
            ours = self._policy.confirmed(held, asked_at, flight.epoch, listed=flight.listed, windows=windows)
        theirs = None if look.stored is None else self._entry_of(flight, look.stored, look.fence, asked_at)
        # Another instance may have loaded again what is due here.
        known = _newest(ours, theirs) if ours is None or self._policy.is_due(ours, asked_at) else ours
        if known is None or self._clock() >= known.expires_at:
            self._counters.add("miss", REDIS)
            return None if known is None else Found(known, MEMORY if known is ours else REDIS, stale=True)
        self._counters.add("hit", REDIS)
        return Found(known, REDIS)

    def _entry_of(self, flight: Flight[V], stored: Stored[V], fence: Fence, asked_at: float) -> Entry[V]:
        return self._policy.entry(
            stored.value,
            stored.origin,
            asked_at,
            stored.lifetime,
            shared=True,
            listed=flight.listed,
            fence=fence,
            age=stored.age,
            epoch=flight.epoch,
            windows=self._keeping.windows(flight),
        )


def _newest(ours: Entry[V] | None, theirs: Entry[V] | None) -> Entry[V] | None:
    if ours is None or theirs is None:
        return ours or theirs
    return theirs if theirs.loaded_at > ours.loaded_at else ours
