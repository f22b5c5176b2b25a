"""What is served while the source cannot answer, or not soon: fail-safe, bounded by `stale_for`."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from ..errors import SourceUnavailable
from ..stats import Counters
from .base import Entry, Found
from .flight import Flight
from .flights import Flights
from .keeping import Keeping
from .policy import CachePolicy, Verdict, judge
from .shared import Look
from .trust import Trust

logger = logging.getLogger("ctxmiddleware.cache")

V = TypeVar("V")

PAUSE_SECONDS = 1.0
# While the source is down this is said once in so many seconds, and not once a request.
SAY_EVERY_SECONDS = 60.0


class FailSafe(Generic[V]):
    """Serves what is known past its time, marked stale: never past `stale_for`, never what was invalidated meanwhile.

    Args:
        policy: for how long.
        flights: what is in the air.
        keeping: the tiers.
        counters: where events are counted.
        clock: monotonic seconds.
        trust: how far memory is trusted.
    """

    def __init__(
        self,
        policy: CachePolicy,
        flights: Flights[V],
        keeping: Keeping[V],
        counters: Counters,
        clock: Callable[[], float],
        trust: Trust,
    ) -> None:
        self._pause = min(PAUSE_SECONDS, policy.untrusted_ttl)
        self._flights = flights
        self._keeping = keeping
        self._counters = counters
        self._clock = clock
        self._trust = trust
        self._say_at = -math.inf

    def standby(self, flight: Flight[V]) -> Found[V] | None:
        """Return what a caller may have that does not wait for a slow source any longer, or None."""
        now = self._clock()
        if flight.overtaken or not flight.has_looked or flight.known is None:
            return None
        # Landed, no invalidation overtakes it any more: what it stood for must not come back into memory.
        if flight.landed:
            return None
        # Whoever can ask Redis may serve what Redis has just confirmed, and not what it confirmed long ago.
        until = math.inf if flight.look is None else self._trust.of(flight.known.entry)
        if now >= until:
            return None
        found = self._servable(flight, now, until)
        if found is not None:
            self._counters.add("load", "slow")
        return found

    async def stand_in(self, flights: Sequence[Flight[V]], errors: Sequence[Exception]) -> None:
        """Land flights whose source cannot answer on what is known, and fail the rest with their errors."""
        pairs = list(zip(flights, errors, strict=True))
        saved = [flight for flight, error in pairs if isinstance(error, SourceUnavailable) and flight.known is not None]
        # The load may have taken long since the generations were read: a user invalidated meanwhile is not served.
        looks = dict(zip(saved, (await self._keeping.look(saved))[1], strict=True))
        now = self._clock()
        for flight, error in pairs:
            self._put_off(flight, now)
            may = flight in looks and not self._is_overtaken(flight, looks[flight])
            found = self._servable(flight, now) if may else None
            if found is None:
                self._flights.fail(flight, error)
            else:
                self._flights.land(flight, found)

    def _is_overtaken(self, flight: Flight[V], look: Look[V] | None) -> bool:
        if look is None or flight.known is None or flight.known.entry.fence == look.fence:
            return False
        self._keeping.drop_others(flight, look.fence)
        return True

    def _servable(self, flight: Flight[V], now: float, until: float = math.inf) -> Found[V] | None:
        """Return what is known of a flight's user as far as it may be served, marked stale where it is.

        Args:
            flight: that it is for.
            now: monotonic seconds.
            until: monotonic seconds after which Redis has to be asked before it is served again.
        """
        known = flight.known
        # That nobody was known does not stand in for what a new employee may have by now.
        if known is None or known.entry.value is None:
            return None
        verdict = judge(known.entry, now, self._trust)
        if verdict is Verdict.GONE:
            return None
        if verdict is Verdict.STALE:
            self._pause_after(flight, known.entry, now, until)
        return Found(known.entry, known.origin, stale=verdict is Verdict.STALE)

    def _put_off(self, flight: Flight[V], now: float) -> None:
        # A refresh that failed is tried again after a pause, and not by every hit.
        # What Redis has confirmed is held in the place of what was held before.
        known = None if flight.known is None else flight.known.entry
        for entry in (flight.held, known) if flight.behind else ():
            if entry is not None:
                entry.ahead_at = entry.renew_at = now + PAUSE_SECONDS

    def _pause_after(self, flight: Flight[V], entry: Entry[V], now: float, until: float) -> None:
        # Without a pause every request of this user would wait for the failing source before it is served; longer than
        # memory is trusted it must not be, since nobody asks Redis meanwhile.
        entry.stands_in_until = min(now + self._pause, until)
        self._keeping.keep(flight, entry)
        if now >= self._say_at:
            self._say_at = now + SAY_EVERY_SECONDS
            logger.warning("the source cannot answer, or not soon: contexts past their time are served, marked stale")
