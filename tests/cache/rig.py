"""What the cache's tests hold in their hands: a database, and caches that read it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import anyio

from ctxmiddleware.cache.base import Found, Key
from ctxmiddleware.cache.codec import Codec
from ctxmiddleware.cache.driver import Client, RedisOptions
from ctxmiddleware.cache.policy import CachePolicy
from ctxmiddleware.cache.redis import RedisTier
from ctxmiddleware.cache.tiered import Fetched, SharedTier, TieredCache
from ctxmiddleware.stats import Counters
from ctxmiddleware.testing import FakeClock
from tests.waiting import eventually_async

ADA: Key = ("", "ada@example.org")
BOB: Key = ("", "bob@example.org")


@dataclass
class Database:
    """Where values come from: read when a load begins, handed over when the test lets it."""

    rows: dict[str, str | None] = field(default_factory=dict)
    error: Exception | None = None
    ttl: float | None = None
    calls: list[str] = field(default_factory=list)
    told: list[tuple[str, float]] = field(default_factory=list)
    ended: int = 0
    running: int = 0
    most_at_once: int = 0
    _gate: anyio.Event | None = None

    def hold(self) -> None:
        """Let loads wait before they hand over what they have read."""
        self._gate = anyio.Event()

    def release(self) -> None:
        """Let the loads that wait, and those to come, hand over."""
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.set()

    def load(self, name: str) -> Callable[[float], Awaitable[Fetched[str]]]:
        """Return what loads a name."""

        async def load(moved_ago: float) -> Fetched[str]:
            self.calls.append(name)
            self.told.append((name, moved_ago))
            self.running += 1
            self.most_at_once = max(self.most_at_once, self.running)
            value = self.rows.get(name, f"{name} 1")
            try:
                if self._gate is not None:
                    await self._gate.wait()
                if self.error is not None:
                    raise self.error
                return Fetched(value, "db", self.ttl)
            finally:
                self.running -= 1
                self.ended += 1

        return load

    async def started(self, count: int) -> None:
        """Wait until so many loads have begun in all."""
        await eventually_async(lambda: len(self.calls) >= count)


@dataclass
class Instance:
    """One process's cache, as far as it is concerned."""

    cache: TieredCache[str]
    database: Database
    counters: Counters
    clock: FakeClock
    redis: RedisTier[str] | None = None

    async def get(self, key: Key = ADA) -> Found[str]:
        """Look a key up."""
        return await self.cache.get(key, self.database.load(key[1]))

    async def value(self, key: Key = ADA) -> str | None:
        """Look a key up and return its value only."""
        return (await self.get(key)).entry.value


@asynccontextmanager
async def instance(
    database: Database | None = None,
    *,
    policy: CachePolicy | None = None,
    shared: SharedTier[str] | None = None,
    url: str | Client | None = None,
    options: RedisOptions | None = None,
    clock: FakeClock | None = None,
    drain_seconds: float = 5.0,
) -> AsyncIterator[Instance]:
    """Open a cache: memory only, or with a tier it shares with others."""
    counters, clock = Counters(), clock or FakeClock()
    redis = None if url is None else redis_tier(url, counters=counters, options=options)
    cache: TieredCache[str] = TieredCache(
        policy or CachePolicy(), shared=redis or shared, counters=counters, clock=clock, drain_seconds=drain_seconds
    )
    async with AsyncExitStack() as stack:
        if redis is not None:
            await stack.enter_async_context(redis.opened)
        await stack.enter_async_context(cache.flights.opened)
        yield Instance(cache, database or Database(), counters, clock, redis)


def redis_tier(
    url: str | Client,
    *,
    counters: Counters | None = None,
    options: RedisOptions | None = None,
    namespace: str = "test",
    label: str = "db",
) -> RedisTier[str]:
    """Return a tier for strings."""
    return RedisTier(
        url, codec=Codec(str, label), namespace=namespace, counters=counters or Counters(), options=options
    )
