"""From an identity to its context: the cache, then the zones; and how contexts are warmed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import anyio

from .cache.base import Entry, Found
from .cache.tiered import TieredCache
from .clock import monotonic
from .errors import SourceUnavailable
from .failure_log import log_failure
from .instance import instance_name
from .invalidation import Invalidator
from .loading import Loading
from .principal import Identity
from .pseudonym import Pseudonyms
from .reports import Resolution, WarmReport
from .stats import MEMORY, Counters
from .zones.base import ZoneSnapshot

logger = logging.getLogger("ctxmiddleware.resolver")

T = TypeVar("T")


# Two full calls of the source.
WARM_AT_ONCE = 200
# A counter for each word of a source would grow without end where it writes an id into it.
MOST_ORIGINS = 32


def _as_it_is(context: T) -> T:
    return context


class Resolver(Generic[T]):
    """Answers who a user is and what they may see.

    Args:
        cache: the two tiers.
        loading: asks the source, and tells it of invalidations.
        zones: returns the snapshot in force, or None where zones are not joined.
        zones_for: joins a snapshot into a context.
        shared: whether there is a tier the fleet shares.
        own: gives a caller a context that it may change.
        counters: where answers are counted.
        pseudonyms: what stands for users in logs.
        clock: monotonic seconds.
        wall_clock: seconds since the epoch, compared with an identity's own expiry only.
        me: the name of this instance; None makes one up.
    """

    def __init__(
        self,
        cache: TieredCache[T],
        loading: Loading[T],
        *,
        zones: Callable[[], ZoneSnapshot] | None = None,
        zones_for: Callable[[T, ZoneSnapshot], T] | None = None,
        shared: bool = False,
        own: Callable[[T], T] = _as_it_is,
        counters: Counters,
        pseudonyms: Pseudonyms | None = None,
        clock: Callable[[], float] = monotonic,
        wall_clock: Callable[[], float] = time.time,
        me: Callable[[], str] | None = None,
    ) -> None:
        self._cache = cache
        self._loading = loading
        self._zones = zones
        self._zones_for = zones_for
        self._own = own
        self._counters = counters
        self._pseudonyms = pseudonyms or Pseudonyms()
        own_name = instance_name()
        self.invalidator = Invalidator(
            cache, loading.tell_source, self._pseudonyms, shared=shared, me=me or (lambda: own_name)
        )
        self._from_memory = counters.of("resolution", MEMORY)
        self._origins: set[str] = set()
        self._has_warned = False
        self._clock = clock
        self._wall_clock = wall_clock

    def peek(self, identity: Identity) -> Resolution[T] | None:
        """Return what memory may answer by itself, else None; without an await."""
        entry = self._cache.peek(identity.cache_key)
        if entry is None:
            return None
        self._from_memory.add()
        return Resolution(self.context_of(entry), MEMORY, self._clock() - entry.loaded_at)

    def peek_entry(self, identity: Identity) -> Entry[T] | None:
        """Return the entry that memory may answer with by itself, else None."""
        entry = self._cache.peek(identity.cache_key)
        if entry is not None:
            self._from_memory.add()
        return entry

    def context_of(self, entry: Entry[T]) -> T | None:
        """Return an entry's context, which its caller may change, with the zones of the snapshot in force."""
        return self.own(self.shared_context_of(entry))

    def own(self, context: T | None) -> T | None:
        """Return a context that its caller may change."""
        return None if context is None else self._own(context)

    def shared_context_of(self, entry: Entry[T]) -> T | None:
        """Return an entry's context with the zones of the snapshot in force, joined once per entry and snapshot."""
        value = entry.value
        if value is None or self._zones is None or self._zones_for is None:
            return value
        snapshot = self._zones()
        derived = entry.derived
        if derived is None or derived[0] is not snapshot:
            derived = entry.derived = (snapshot, self._zones_for(self._own(value), snapshot))
        return derived[1]

    async def resolve(self, identity: Identity) -> Resolution[T]:
        """Return what is known of a user.

        Raises:
            SourceUnavailable: nothing is known and the source cannot answer.
            SourceError: the source answered with something that is not a context.
        """
        found = await self.found(identity)
        return self.resolution_of(found, self.shared_context_of(found.entry))

    async def found(self, identity: Identity) -> Found[T]:
        """Return what is known of a user as the cache has it, zones apart.

        Raises:
            SourceError: as `resolve` does.
        """
        found = await self._cache.get(identity.cache_key)
        if found.stale:
            self._refuse_expired(identity)
            self._counters.add("stale")
        self._counters.add("resolution", self._origin_of(found))
        return found

    def _origin_of(self, found: Found[T]) -> str:
        """Return the label of an origin: a source's own words are counted up to `MOST_ORIGINS` different ones."""
        if found.origin in self._origins:
            return found.origin
        if len(self._origins) >= MOST_ORIGINS:
            if not self._has_warned:
                self._has_warned = True
                logger.warning(
                    "the source gave more than %s different origins: further ones are counted as 'other'", MOST_ORIGINS
                )
            return "other"
        self._origins.add(found.origin)
        return found.origin

    async def warm(self, identities: Iterable[Identity]) -> WarmReport:
        """Resolve many users, `WARM_AT_ONCE` at a time; a user that fails is counted and logged, never raised."""
        started = time.perf_counter()
        counts = {"warmed": 0, "unknown": 0, "failed": 0}
        waiting = iter(list(identities))
        reported: set[type[Exception]] = set()

        async def work() -> None:
            for identity in waiting:
                counts[await self._warm_one(identity, reported)] += 1

        async with anyio.create_task_group() as tasks:
            for _ in range(WARM_AT_ONCE):
                tasks.start_soon(work)
        return WarmReport(**counts, duration_ms=(time.perf_counter() - started) * 1000)

    async def _warm_one(self, identity: Identity, reported: set[type[Exception]]) -> str:
        try:
            resolution = await self.resolve(identity)
        except Exception as error:  # noqa: BLE001 - it is logged and counted
            # In an outage every user fails alike.
            level = logging.DEBUG if type(error) in reported else logging.WARNING
            reported.add(type(error))
            extra = {"user": self._pseudonyms.of(identity)}
            log_failure(logger, level, "a context could not be warmed", error=error, extra=extra)
            return "failed"
        return "unknown" if resolution.context is None else "warmed"

    def resolution_of(self, found: Found[T], context: T | None) -> Resolution[T]:
        """Return the resolution of what was found, with a copy of its context where that can be changed."""
        age = max(0.0, self._clock() - found.entry.loaded_at)
        return Resolution(self.own(context), found.origin, age, found.stale)

    def _refuse_expired(self, identity: Identity) -> None:
        if identity.expires_at is not None and self._wall_clock() >= identity.expires_at:
            raise SourceUnavailable("the source cannot answer, and the identity has expired meanwhile")
