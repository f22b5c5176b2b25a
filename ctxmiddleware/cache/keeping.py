"""What is kept where, and forgotten: memory and the shared tier, in step with the flights in the air."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Generic, TypeVar

from .base import HELD, Entry, Fence, Key, Windows
from .expecting import Expected
from .flight import Flight
from .flights import Flights
from .memory import MemoryTier
from .names import digest_of
from .policy import CachePolicy
from .refill import Refill
from .settling import Settling
from .shared import ASK, Claim, Claiming, Look, SharedTier, Storing, Waiting
from .trust import NO_EPOCH, Trust
from .watchers import Watchers

logger = logging.getLogger("ctxmiddleware.cache")

V = TypeVar("V")

# So often is asked whose answers come too late, before none is waited for any more.
LOOKS = 2


class Keeping(Generic[V]):
    """Reads and writes both tiers for flights, and never for one that an invalidation has overtaken.

    `expected` are the invalidations under way elsewhere.

    Args:
        policy: how long generations live.
        memory: the tier in this process.
        shared: the tier the fleet shares, or None.
        flights: what is in the air.
        clock: monotonic seconds.
        trust: how far memory is trusted.
    """

    def __init__(
        self,
        policy: CachePolicy,
        memory: MemoryTier[V],
        shared: SharedTier[V] | None,
        flights: Flights[V],
        clock: Callable[[], float],
        trust: Trust,
    ) -> None:
        # A load waits for its turn, asks, and looks and stores around that: generations outlive it.
        self.keep_ms = int((policy.ttl + policy.stale_for + 4 * policy.load_timeout) * 1000)
        self._lasts = policy.untrusted_ttl
        self._memory = memory
        self._shared = shared
        self._flights = flights
        self._clock = clock
        self._trust = trust
        self.expected = Expected()
        self.settling = Settling(policy.settle, self.keep_ms / 1000 + 2 * policy.settle, clock)
        self._has_warned = False
        self.watchers = Watchers(None if shared is None else digest_of)
        self.refill: Refill[V] = Refill(self._add)

    @property
    def is_shared(self) -> bool:
        """Whether there is a tier the fleet shares."""
        return self._shared is not None

    @property
    def is_listed(self) -> bool:
        """Whether the reports of other instances count this one in; where there are none, nothing is missing."""
        return self._shared is None or self._shared.is_listed

    def forget(self, name: str | None, generation: bytes | None = None, *, heard: bool = True) -> int:
        """Drop a name, or everybody where it is None, from memory and from what is in the air; return how many.

        Args:
            name: the name.
            generation: the name's new one, under which nothing has to be forgotten; None where it is not known.
            heard: whether the name is known to be invalidated.
        """
        digest = None if name is None else digest_of(name)
        if heard:
            self.settling.hear(digest)
        if self._shared is not None:
            self.refill.hear(digest)
        try:
            return self._forget(name, generation)
        finally:
            # Not before: whoever is woken looks at once.
            self.watchers.ring(name)

    def _forget(self, name: str | None, generation: bytes | None) -> int:
        memory = self._memory
        if name is None:
            return self._flights.overtake(None, memory.clear)
        if generation is None:
            return self._flights.overtake(name, lambda: memory.drop(name))

        def is_new(fence: Fence | None) -> bool:
            return fence is not None and fence.name == generation

        return self._flights.overtake(
            name,
            lambda: memory.drop(name, lambda entry: is_new(entry.fence)),
            lambda flight: flight.look is not None and is_new(flight.look.fence),
        )

    def named(self, digest: bytes) -> str | None:
        """Return the name a digest stands for, where it is in memory, in the air or watched."""
        for names in (self._flights.names, self._memory.names, self.watchers.names):
            name = None if names is None else names.of(digest)
            if name is not None:
                return name
        return None

    def missed(self) -> None:
        """Keep nothing that was looked up without a flight: news were missed."""
        self.refill.hear(None)

    def forget_digest(self, digest: bytes, generation: bytes | None) -> None:
        """Forget a name by its digest, where this process has to do with it."""
        self.settling.hear(digest)
        self.refill.hear(digest)
        name = self.named(digest)
        if name is not None:
            self.forget(name, generation)

    def doubt(self, digest: bytes) -> None:
        """Trust what is held, or on its way, of a name only once it was looked up again."""
        self.refill.hear(digest)
        name = self.named(digest)
        if name is not None:
            self._flights.doubt(name, lambda: self._memory.change(name, self._doubt))
            self.watchers.ring(name)

    def _doubt(self, entry: Entry[V]) -> None:
        # What it was trusted for ends now; for how long it may stand in for the source counts from here.
        entry.trusted_until = min(self._trust.of(entry), self._clock())
        entry.epoch = NO_EPOCH

    def windows(self, flight: Flight[V]) -> Windows:
        """Return the times after invalidations past whose ends nothing is kept that was loaded in them."""
        # A load without a look into Redis does not show whether another instance holds the user.
        if flight.alone and self._shared is not None:
            return HELD
        return self.settling.windows(flight.key[1], flight.look, flight.looked)

    def settles(self, flight: Flight[V]) -> Windows:
        """Return those times as if no `changing` block was open."""
        return self.settling.settles(flight.key[1], flight.look, flight.looked)

    def moved_ago(self, flight: Flight[V]) -> float:
        """Return the seconds since a flight's user was invalidated; infinite where that is long ago."""
        # A load that goes alone was overtaken just now; and no report counts in one of an instance that is unlisted.
        is_unknown = flight.alone or not flight.listed
        return 0.0 if is_unknown else self.settling.moved_ago(flight.key[1], flight.look)

    def held(self, flight: Flight[V]) -> Entry[V] | None:
        """Return what memory holds for a flight, whatever it is still good for."""
        return self._memory.get(flight.key)

    def keep(self, flight: Flight[V], entry: Entry[V]) -> bool:
        """Keep an entry in memory, unless its user was invalidated meanwhile; return whether it was kept."""

        def keep() -> None:
            if flight.doubted or self.expected.holds(flight.key[1], self._clock()):
                self._doubt(entry)
            self._put(flight.key, entry)

        is_kept = self._flights.settle(flight, keep)
        if is_kept and flight.behind and flight.held is not None and flight.held.value is not entry.value:
            self.watchers.ring(flight.key[1])
        return is_kept

    def _put(self, key: Key, entry: Entry[V]) -> None:
        now = self._clock()
        if entry.is_settling and now >= entry.expires_at:
            self._memory.drop(key[1], lambda former: not former.is_settling)
            return
        try:
            self._memory.put(key, entry, now)
        except Exception as error:
            former = self._memory.get(key)
            if former is not None:
                self._memory.discard(key, former)
            if not self._has_warned:
                self._has_warned = True
                logger.warning("a context cannot be kept in memory: it cannot be weighed", exc_info=error)

    def _add(self, key: Key, entry: Entry[V]) -> bool:
        now = self._clock()
        return not self.expected.holds(key[1], now) and self._memory.add(key, entry, now)

    def drop_others(self, flight: Flight[V], fence: Fence) -> None:
        """Forget all that is held of a name under other generations: it must not come back when Redis cannot be asked.

        Args:
            flight: that it is for.
            fence: the generations in force.
        """
        self._memory.drop(flight.key[1], lambda entry: entry.fence == fence)

    async def look(self, flights: Sequence[Flight[V]]) -> tuple[float, Sequence[Look[V] | None]]:
        """Return what the shared tier says of each flight; None where it cannot say, or where there is none.

        Returns:
            the monotonic second at which it was asked, and its answers.
        """
        asked_at = self._clock()
        asking = [flight for flight in flights if not flight.alone]
        if self._shared is not None and asking:
            for _ in range(LOOKS):
                answers = await self._shared.look([flight.key for flight in asking], self.keep_ms)
                if not self.is_late(asked_at):
                    looks = iter(answers)
                    return asked_at, [None if flight.alone else next(looks) for flight in flights]
                asked_at = self._clock()
        return asked_at, [None] * len(flights)

    def is_late(self, asked_at: float) -> bool:
        """Return whether an answer of the shared tier is too old to be trusted when it arrives.

        A process that was stopped may find one, and callers who came after it, when it resumes.
        """
        return self._clock() >= asked_at + self._lasts

    async def claim(self, flights: Sequence[Flight[V]]) -> Sequence[Claim]:
        """Return of each load whether it may be made here, or for how long to wait for another instance's."""
        wanted = [
            Claiming(flight.key, flight.look.fence, flight.look.left_ms, partial(_landed, flight))
            for flight in flights
            if flight.look
        ]
        if self._shared is None or len(wanted) < len(flights):
            return [ASK] * len(flights)
        return await self._shared.claim(wanted)

    async def release(self, flights: Sequence[Flight[V]]) -> None:
        """Let other instances load what these did not bring."""
        leases = [flight.lease for flight in flights if flight.lease]
        if self._shared is not None and leases:
            await self._shared.release(leases)

    def landings(self, flights: Sequence[Flight[V]]) -> AbstractContextManager[Waiting]:
        """Listen for loads of the same users by other instances."""
        if self._shared is None:
            return nullcontext(_Nobody())
        return self._shared.landings([flight.key for flight in flights])

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
                # Redis may have evicted its generation: the next look decides whether the name was invalidated.
                self.forget(value.key[1], heard=False)
        return {value.key for value, stored in zip(values, answers, strict=True) if stored}


def _landed(flight: Flight[V]) -> bool:
    return flight.landed


class _Nobody:
    async def next(self, seconds: float) -> set[Key]:  # noqa: ARG002 - the shape of Waiting
        return set()
