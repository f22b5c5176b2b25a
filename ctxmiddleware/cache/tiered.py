"""The two tiers as one: memory, then Redis, then the source."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Generic, TypeVar

import anyio

from ..clock import monotonic
from ..errors import SourceUnavailable
from ..stats import MEMORY, Counters
from .base import Entry, Found, Key
from .filling import Filling, Loader
from .flight import Flight
from .flights import DRAIN_SECONDS, Flights
from .hearing import Hearing
from .memory import MemoryTier
from .names import digest_of
from .policy import CachePolicy, Verdict, judge, stale_until
from .settling import Settling
from .shared import NOWHERE, Reach, SharedTier, SharedTierFailed
from .trust import NO_EPOCH, Trust
from .warming import Warming

V = TypeVar("V")

MAX_ATTEMPTS = 10
# An invalidation removes values of so many tenants at most; others are unreadable from then on, and end by themselves.
MOST_PARTITIONS = 100
# Overtaken so often, it may be that Redis keeps no generations: full, it evicts them while the load goes on.
ALONE_AFTER = 3
# What a load may take beside asking the source: the looks and the store before and after it.
GRACE_SECONDS = 2.0
# What is past its time, or has none, is not asked for again and again by those who watch it.
SHORTEST_HOLD = 1.0


class TieredCache(Generic[V]):
    """Answers from memory, from Redis or from a load, and never with what was loaded before an invalidation.

    Args:
        policy: how long and how many.
        load: asks the source, in tasks of the cache, for one key at most once at a time.
        shared: the tier the fleet shares, or None for memory only.
        counters: where events are counted.
        clock: monotonic seconds.
        rng: scatters times to live.
        drain_seconds: seconds loads under way get at shut-down to land.
        share: types of rows that many values have in common, kept once in memory.
        grace_seconds: seconds a load may take beside asking the source.
        sleep: waits until a call of the source is slow.
        source_lag: seconds the source may be behind where it does not learn of an invalidation.
    """

    def __init__(
        self,
        policy: CachePolicy,
        load: Loader[V],
        *,
        shared: SharedTier[V] | None = None,
        counters: Counters,
        clock: Callable[[], float] = monotonic,
        rng: random.Random | None = None,
        drain_seconds: float = DRAIN_SECONDS,
        share: tuple[type, ...] = (),
        grace_seconds: float = GRACE_SECONDS,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
        source_lag: float = 0.0,
    ) -> None:
        self.policy = policy
        self.memory: MemoryTier[V] = MemoryTier(
            policy.max_users,
            policy.max_bytes,
            max_unknown=policy.max_unknown,
            share=share,
            digest=None if shared is None else digest_of,
        )
        self.trust = Trust(policy.untrusted_ttl, policy.longest_untold + source_lag)
        self._filling: Filling[V] = Filling(
            policy,
            self.memory,
            shared,
            load,
            counters=counters,
            clock=clock,
            rng=rng or random.Random(),  # noqa: S311 - it scatters times to live
            drain_seconds=drain_seconds,
            trust=self.trust,
            sleep=sleep,
        )
        self.flights: Flights[V] = self._filling.flights
        self.watchers = self._filling.keeping.watchers
        self.hearing = Hearing(self.trust, self._filling.keeping, clock)
        self.warming: Warming[V] | None = None
        if shared is not None:
            shared.listen(self.hearing)
            self.warming = Warming(policy, self.memory, shared, self._filling.keeping, self.trust, counters, clock)
        self._shared = shared
        self._counters = counters
        self._hits = counters.of("hit", MEMORY)
        self._clock = clock
        self._grace_seconds = grace_seconds

    def peek(self, key: Key) -> Entry[V] | None:
        """Return the entry of a key where memory may answer by itself, else None. A hit costs no await.

        Args:
            key: partition and name.
        """
        entry = self._fresh(key)
        if entry is not None:
            self._hits.add()
        return entry

    def _fresh(self, key: Key) -> Entry[V] | None:
        entry = self.memory.get(key)
        if entry is None:
            return None
        verdict = judge(entry, self._clock(), self.trust)
        if verdict is Verdict.FRESH:
            return entry
        if verdict is not Verdict.AHEAD:
            return None
        if self.flights.refresh(key):
            self._counters.add("load", "behind")
        return entry

    async def get(self, key: Key) -> Found[V]:
        """Return what is known of a key, loading it where nothing is.

        Args:
            key: partition and name.

        Raises:
            SourceError: the load failed and nothing is known that may stand in.
        """
        entry = self.peek(key)
        if entry is not None:
            return Found(entry, MEMORY)
        self._counters.add("miss", MEMORY)
        entry = self.memory.get(key)
        if entry is not None and self._clock() < min(entry.stands_in_until, stale_until(entry, self.trust)):
            return Found(entry, MEMORY, stale=True)
        for attempt in range(MAX_ATTEMPTS):
            if attempt and self.flights.opened.peek() is None:
                raise SourceUnavailable("the application is shutting down")
            found = await self._landed(self._flight(key, alone=attempt >= ALONE_AFTER))
            if found is not None:
                return found
            # The load that followed the invalidation may have landed before this caller came to its turn.
            entry = self._fresh(key)
            if entry is not None:
                return Found(entry, MEMORY)
        raise SourceUnavailable(
            "the user was invalidated again and again while the context was loaded", retry_after=1.0
        )

    def _flight(self, key: Key, *, alone: bool) -> Flight[V]:
        flight = self.flights.join(key)
        if flight is None or self._clock() >= flight.closes_at:
            return self.flights.start(key, alone=alone)
        self._counters.add("load", "shared")
        return flight

    async def _landed(self, flight: Flight[V]) -> Found[V] | None:
        # A load in a thread that cannot be cancelled outlives its time: its callers must not.
        gives_up = flight.started_at + 2 * self.policy.load_timeout + self._grace_seconds
        until = flight.started_at + self.policy.soft_timeout
        while True:
            with anyio.move_on_after(max(0.0, min(until, gives_up) - anyio.current_time())):
                return await flight.wait()
            if flight.overtaken:
                # What it brings is for nobody: whoever waits for it would wait for two loads.
                return None
            standby = self._filling.fail_safe.standby(flight)
            if standby is not None:
                return standby
            if anyio.current_time() >= gives_up:
                raise SourceUnavailable("the load goes on past its time, because it cannot be cancelled")
            until = anyio.current_time() + self.policy.soft_timeout

    def holds_for(self, entry: Entry[V]) -> float:
        """Return the seconds after which what was found is to be asked for again, where no news of it come before.

        Args:
            entry: what was found, whether memory had room for it or not.
        """
        lifetime, now = self.policy.lifetime(known=entry.value is not None), self._clock()
        again, is_told = self.policy.untrusted_ttl, self._shared is None or now < self.trust.until
        until = entry.expires_at
        if entry.trusted_until < self.trust.told_from:
            # Somebody may have touched its generation before it was told of such.
            until = min(until, max(entry.renew_at, now))
        if not is_told or entry.epoch != self.trust.epoch:
            until = min(until, self.trust.of(entry))
        if now >= until:
            # Served past its time, no longer than it may be.
            until = min(now + again, stale_until(entry, self.trust))
        return max(until - now, min(SHORTEST_HOLD, lifetime, again))

    def is_doubted(self, key: Key) -> bool:
        """Return whether memory holds a key whose generation was touched since, without an invalidation."""
        entry = self.memory.get(key)
        return entry is not None and entry.epoch == NO_EPOCH

    async def keep_watchers_asking(self) -> None:
        """Let those who watch ask again where nobody tells them of invalidations, until it is cancelled."""
        await self.watchers.keep_asking(self.trust, self._clock)

    @property
    def settle(self) -> float:
        """Seconds after an invalidation in which its transaction may still commit."""
        return self.policy.settle

    @property
    def settling(self) -> Settling:
        """Invalidations and holds that this process knows of."""
        return self._filling.keeping.settling

    async def hold(self, names: Sequence[str], holder: bytes) -> list[bool]:
        """Let no instance keep what it loads of names; return for each whether this holder held it already.

        Raises:
            SharedTierFailed: Redis did not confirm it.
        """
        return [True] * len(names) if self._shared is None else await self._shared.hold(names, holder)

    async def let_go(self, names: Sequence[str], holder: bytes) -> None:
        """Take back what `hold` has begun.

        Raises:
            SharedTierFailed: Redis did not confirm it.
        """
        if self._shared is not None:
            await self._shared.let_go(names, holder)

    async def settle_from_now(self, names: Sequence[str] | None) -> bool:
        """Let the windows of names, or of everyone, begin now; return whether those of all instances are sure to."""
        if not self.policy.settle:
            return True
        for digest in [None] if names is None else [digest_of(name) for name in names]:
            self.settling.hear(digest)
        return self._shared is None or await self._shared.mark(names)

    async def renew(self, names: Sequence[str] | None, known_silent: Collection[str] = ()) -> Reach:
        """Make everything unservable that was loaded since names, or everyone, were invalidated.

        Raises:
            SharedTierFailed: Redis did not take the invalidation; this process has forgotten all the same.
        """
        reach = NOWHERE
        try:
            if self._shared is not None:
                reach = await self._shared.renew(names, self._filling.keeping.keep_ms, known_silent)
        except SharedTierFailed:
            self._forget(names)
            raise
        # Once only, after it: each time overtakes the loads under way.
        self._forget(names)
        return reach

    def _forget(self, names: Sequence[str] | None) -> None:
        for name in [None] if names is None else names:
            self._filling.keeping.forget(name)

    async def invalidate(self, name: str | None) -> tuple[int, Reach]:
        """Make everything loaded so far for a name, or for everyone where it is None, unservable.

        Returns:
            how many entries memory held, and what the other instances said.

        Raises:
            SharedTierFailed: Redis did not take the invalidation; this process has forgotten all the same.
        """
        keeping, is_collected = self._filling.keeping, False
        partitions = self.memory.partitions(MOST_PARTITIONS)
        dropped, reach = keeping.forget(name), NOWHERE
        if self._shared is not None:
            try:
                reach = await self._shared.invalidate(name, keeping.keep_ms, partitions)
            except SharedTierFailed as error:
                error.dropped = dropped
                raise
            except GeneratorExit:
                # By the garbage collector, whose thread may hold any lock: everything is looked up again instead.
                self.trust.end(self._clock())
                is_collected = True
                raise
            finally:
                # A flight that began in between may have read the former generation.
                if not is_collected:
                    dropped += keeping.forget(name)
        return dropped, reach
