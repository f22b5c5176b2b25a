"""The two tiers as one: memory, then Redis, then the load."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import anyio

from ..errors import ContextError, SourceUnavailable
from ..stats import MEMORY, REDIS, Counters
from .base import Entry, Fence, Found, Key, Stored
from .flight import DRAIN_SECONDS, Flight, Flights
from .memory import MemoryTier
from .policy import CachePolicy, Verdict, judge
from .weight import weigh

logger = logging.getLogger("ctxmiddleware.cache")

V = TypeVar("V")

MAX_ATTEMPTS = 10
PAUSE_SECONDS = 1.0
# What a load may take beside asking the source: the looks and the store before and after it.
GRACE_SECONDS = 2.0


class SharedTierFailed(ContextError):
    """An invalidation did not reach the tier the fleet shares; `dropped` is how many entries memory has forgotten."""

    dropped = 0


@dataclass(frozen=True, slots=True)
class Fetched(Generic[V]):
    """What a load brought: the value (None for an unknown name), its origin, and its own seconds to live if any."""

    value: V | None
    origin: str
    ttl: float | None = None


@dataclass(frozen=True, slots=True)
class Look(Generic[V]):
    """What the shared tier answered.

    Args:
        fence: the generations in force.
        stored: what it holds that was stored under them.
        moved_ago: seconds since the name was last invalidated by anybody; infinite where that is long ago.
    """

    fence: Fence
    stored: Stored[V] | None
    moved_ago: float = math.inf


class SharedTier(Protocol[V]):
    """The tier a fleet shares. Its faults are never exceptions, except where an invalidation did not reach it."""

    async def look(self, key: Key, keep_ms: int) -> Look[V] | None:
        """Return what it holds for a key, creating absent generations; None where it cannot answer."""
        ...

    async def store(self, key: Key, fence: Fence, stored: Stored[V], keep_ms: int) -> bool | None:
        """Keep a value, if there is time left to keep it for, and if the generations are still these.

        Returns:
            False where they have moved on, None where nobody knows.
        """
        ...

    async def invalidate(self, name: str | None, keep_ms: int) -> None:
        """Put a new generation in force for a name, or for everyone where it is None."""
        ...


Load = Callable[[float], Awaitable[Fetched[V]]]
"""Asks the source; called with the seconds since the name was last invalidated, as far as the shared tier knows."""


class TieredCache(Generic[V]):
    """Answers from memory, from Redis or from a load, and never with what was loaded before an invalidation.

    Args:
        policy: how long and how many.
        shared: the tier the fleet shares, or None for memory only.
        counters: where events are counted.
        clock: monotonic seconds.
        drain_seconds: seconds loads under way get at shut-down to land.
    """

    def __init__(
        self,
        policy: CachePolicy,
        *,
        shared: SharedTier[V] | None = None,
        counters: Counters,
        clock: Callable[[], float] = time.monotonic,
        drain_seconds: float = DRAIN_SECONDS,
    ) -> None:
        self.policy = policy
        self.memory: MemoryTier[V] = MemoryTier(policy.max_users, policy.max_bytes)
        self.flights: Flights[Found[V]] = Flights(policy.max_loads, drain_seconds)
        self._shared = shared
        self._counters = counters
        self._hits = counters.of("hit", MEMORY)
        self._clock = clock

    def peek(self, key: Key) -> Entry[V] | None:
        """Return the entry of a key where memory may answer by itself, else None. A hit costs no await."""
        entry = self._fresh(key)
        if entry is not None:
            self._hits.add()
        return entry

    def _fresh(self, key: Key) -> Entry[V] | None:
        entry = self.memory.get(key)
        return entry if entry is not None and judge(entry, self._clock()) is Verdict.FRESH else None

    async def get(self, key: Key, load: Load[V]) -> Found[V]:
        """Return what is known of a key, loading it where nothing is.

        Args:
            key: partition and name.
            load: asks the source; called in a task of the cache, at most once at a time for a key.

        Raises:
            SourceError: the load failed and nothing is known that may stand in.
        """
        entry = self.peek(key)
        if entry is not None:
            return Found(entry, MEMORY)
        self._counters.add("miss", MEMORY)
        entry = self.memory.get(key)
        if entry is not None and self._clock() < min(entry.stands_in_until, entry.stale_until):
            return Found(entry, MEMORY, stale=True)
        for _ in range(MAX_ATTEMPTS):
            flight = self.flights.join(key)
            if flight is None:
                flight = self.flights.start(key, lambda flight: self._fill(flight, load))
            else:
                self._counters.add("load", "shared")
            found = await self._landed(flight)
            if found is not None:
                return found
            # The load that followed the invalidation may have landed before this caller came to its turn.
            entry = self._fresh(key)
            if entry is not None:
                return Found(entry, MEMORY)
        raise SourceUnavailable(
            "the user was invalidated again and again while the context was loaded", retry_after=1.0
        )

    async def _landed(self, flight: Flight[Found[V]]) -> Found[V] | None:
        # A load in a thread that cannot be cancelled outlives its time: its callers must not.
        try:
            with anyio.fail_after(self.policy.load_timeout + GRACE_SECONDS):
                return await flight.wait()
        except TimeoutError:
            raise SourceUnavailable("the load goes on past its time, because it cannot be cancelled") from None

    async def invalidate(self, name: str | None) -> int:
        """Make everything loaded so far for a name, or for everyone where it is None, unservable.

        Returns:
            how many entries memory held.

        Raises:
            SharedTierFailed: Redis could not be told; this process has forgotten all the same.
        """
        dropped = self._forget(name)
        if self._shared is not None:
            try:
                await self._shared.invalidate(name, self._keep_ms(self.policy.ttl))
            except SharedTierFailed as error:
                error.dropped = dropped
                raise
            finally:
                # A flight that began in between may have read the former generation.
                dropped += self._forget(name)
        return dropped

    def _forget(self, name: str | None) -> int:
        memory = self.memory
        return self.flights.overtake(name, memory.clear if name is None else lambda: memory.drop(name))

    async def _fill(self, flight: Flight[Found[V]], load: Load[V]) -> Found[V]:
        held = self.memory.get(flight.key)
        known = None if held is None else Found(held, MEMORY, stale=True)
        asked_at = self._clock()
        look = await self._look(flight.key)
        if look is not None:
            if held is not None and held.fence is not None and held.fence != look.fence:
                # Known to be overtaken: it must not come back when Redis cannot be asked later.
                self.memory.discard(flight.key, held)
            known = self._under(look, held, asked_at)
            if known is not None and not known.stale:
                self._keep(flight, known.entry)
                return known
        try:
            with anyio.fail_after(self.policy.load_timeout):
                return await self._load(flight, load, look)
        except TimeoutError as error:
            late = SourceUnavailable(f"the source did not answer within {self.policy.load_timeout:g} s")
            late.__cause__ = error
            return await self._stand_in(flight, known, late)
        except SourceUnavailable as error:
            return await self._stand_in(flight, known, error)

    async def _look(self, key: Key) -> Look[V] | None:
        if self._shared is None:
            return None
        return await self._shared.look(key, self._keep_ms(self.policy.ttl))

    def _under(self, look: Look[V], held: Entry[V] | None, asked_at: float) -> Found[V] | None:
        """Return what is known under the generations in force; stale where it may only stand in for the source."""
        ours = None if held is None or held.fence != look.fence else self.policy.confirmed(held, asked_at)
        theirs = None if look.stored is None else self._entry_of(look.stored, look.fence, asked_at)
        for entry in (ours, theirs):
            if entry is not None and asked_at < entry.expires_at:
                self._counters.add("hit", REDIS)
                return Found(entry, REDIS)
        self._counters.add("miss", REDIS)
        if theirs is not None:
            return Found(theirs, REDIS, stale=True)
        return None if ours is None else Found(ours, MEMORY, stale=True)

    def _entry_of(self, stored: Stored[V], fence: Fence, asked_at: float) -> Entry[V]:
        return self.policy.entry(
            stored.value, stored.origin, asked_at, stored.lifetime, shared=True, fence=fence, age=stored.age
        )

    async def _load(self, flight: Flight[Found[V]], load: Load[V], look: Look[V] | None) -> Found[V]:
        self._counters.add("load", "started")
        asked_at = self._clock()
        try:
            async with self.flights.places:
                fetched = await load(math.inf if look is None else look.moved_ago)
        except BaseException:
            self._counters.add("load", "failed")
            raise
        lifetime = self.policy.lifetime(known=fetched.value is not None, ttl=fetched.ttl)
        fence = None if look is None else look.fence
        entry = self.policy.entry(
            fetched.value, fetched.origin, asked_at, lifetime, shared=self._shared is not None, fence=fence
        )
        if await self._store(flight.key, entry) is False:
            self._forget(flight.key[1])
        if not self._keep(flight, entry):
            self._counters.add("load", "overtaken")
        return Found(entry, fetched.origin)

    async def _store(self, key: Key, entry: Entry[V]) -> bool | None:
        """Keep an entry in the tier the fleet shares; False where it was invalidated while it was loaded."""
        if self._shared is None or entry.fence is None:
            return None
        lifetime = entry.expires_at - entry.loaded_at
        keep_ms = int((lifetime + self.policy.grace(known=entry.value is not None)) * 1000)
        stored = Stored(entry.value, entry.origin, lifetime, age=self._clock() - entry.loaded_at)
        return await self._shared.store(key, entry.fence, stored, keep_ms)

    def _keep(self, flight: Flight[Found[V]], entry: Entry[V]) -> bool:
        """Keep an entry in memory, unless its user was invalidated meanwhile; return whether it was kept."""
        if not entry.size:
            entry.size = weigh(flight.key) + weigh(entry)
        return self.flights.settle(flight, lambda: self.memory.put(flight.key, entry, self._clock()))

    async def _stand_in(self, flight: Flight[Found[V]], known: Found[V] | None, error: SourceUnavailable) -> Found[V]:
        """Return what is known in the place of a source that cannot answer, unless it was invalidated meanwhile."""
        now = self._clock()
        # The load may have taken long since the generations were read: a user invalidated meanwhile is not served.
        look = None if known is None else await self._look(flight.key)
        overtaken = look is not None and known is not None and known.entry.fence != look.fence
        if overtaken and known is not None:
            self.memory.discard(flight.key, known.entry)
        if known is None or known.entry.value is None or overtaken or judge(known.entry, now) is Verdict.GONE:
            raise error
        logger.warning("the source cannot answer: a context past its time is served", extra={"origin": known.origin})
        # Without a pause every request of this user would wait for the failing source before it is served; longer than
        # memory is trusted it must not be, since nobody asks Redis meanwhile.
        known.entry.stands_in_until = now + min(PAUSE_SECONDS, self.policy.untrusted_ttl)
        self._keep(flight, known.entry)
        return known

    def _keep_ms(self, lifetime: float) -> int:
        """Return the milliseconds a generation lives: longer than the policy's values and every load begun under it."""
        return int((lifetime + self.policy.stale_for + 2 * self.policy.load_timeout) * 1000)
