"""What the cache's tests hold in their hands: a database, and caches that read it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import anyio
import redis

from ctxmiddleware.cache.base import Ask, Fence, Fetched, Found, Key, Stored
from ctxmiddleware.cache.policy import CachePolicy
from ctxmiddleware.cache.redis.codec import Codec
from ctxmiddleware.cache.redis.options import RedisOptions
from ctxmiddleware.cache.redis.seal import Seal
from ctxmiddleware.cache.redis.servers.driver import Client
from ctxmiddleware.cache.redis.tier import RedisTier
from ctxmiddleware.cache.shared import Listener, Look, SharedTier, Storing
from ctxmiddleware.cache.tiered import GRACE_SECONDS, TieredCache
from ctxmiddleware.stats import Counters
from ctxmiddleware.testing import FakeClock
from tests.waiting import eventually_async

ADA: Key = ("", "ada@example.org")
BOB: Key = ("", "bob@example.org")

# Exactly as long as it says, and nothing behind the answers: what scatters, refreshes and settles has tests of its own.
STEADY = CachePolicy(jitter=0, refresh_ahead=1, settle=0)

# Longer than a busy machine takes for anything: whatever has to end in time says in how much.
PATIENT = RedisOptions(timeout=10.0, pool_wait=10.0, invalidation_wait=10.0, confirm_timeout=10.0, lease=60.0)

Load = Callable[[float], Awaitable[Fetched[str]]]


@dataclass
class Database:
    """Where values come from: read when a load begins, handed over when the test lets it.

    `batches` are the names of each call, `calls` those of all; `bad` are errors in the place of single rows; `own` are
    loads of a test's own making for single names.
    """

    rows: dict[str, str | None] = field(default_factory=dict)
    error: Exception | None = None
    ttl: float | None = None
    batch_size: int = 1
    bad: dict[str, Exception] = field(default_factory=dict)
    own: dict[str, Load] = field(default_factory=dict)
    batches: list[tuple[str, ...]] = field(default_factory=list)
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

    async def __call__(self, asks: Sequence[Ask]) -> list[Fetched[str] | Exception]:
        """Answer as many names as are asked for."""
        own = self.own.get(asks[0].key[1])
        if own is not None:
            return [await own(asks[0].moved_ago)]
        return await self.load(asks)

    async def load(self, asks: Sequence[Ask]) -> list[Fetched[str] | Exception]:
        """Answer from the rows as they are now."""
        self.batches.append(tuple(ask.key[1] for ask in asks))
        self.calls.extend(ask.key[1] for ask in asks)
        self.told.extend((ask.key[1], ask.moved_ago) for ask in asks)
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        answers = [self._answer(ask.key[1]) for ask in asks]
        try:
            if self._gate is not None:
                await self._gate.wait()
            if self.error is not None:
                raise self.error
            return answers
        finally:
            self.running -= 1
            self.ended += 1

    def _answer(self, name: str) -> Fetched[str] | Exception:
        return self.bad.get(name) or Fetched(self.rows.get(name, f"{name} 1"), "db", self.ttl)

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

    async def get(self, key: Key = ADA, load: Load | None = None) -> Found[str]:
        """Look a key up; from now on it is loaded by `load`, or from the rows where there is none."""
        self.database.own.pop(key[1], None)
        if load is not None:
            self.database.own[key[1]] = load
        return await self.cache.get(key)

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
    options: RedisOptions = PATIENT,
    seal: Seal | None = None,
    clock: FakeClock | None = None,
    drain_seconds: float = 5.0,
    grace_seconds: float = GRACE_SECONDS,
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    deaf: bool = False,
) -> AsyncIterator[Instance]:
    """Open a cache: memory only, or with a tier it shares with others, whose news it hears unless it is deaf."""
    counters, clock, database = Counters(), clock or FakeClock(), database or Database()
    redis = None if url is None else redis_tier(url, counters=counters, options=options, seal=seal, deaf=deaf)
    cache: TieredCache[str] = TieredCache(
        policy or STEADY,
        database,
        shared=redis or shared,
        counters=counters,
        clock=clock,
        rng=random.Random(1),
        drain_seconds=drain_seconds,
        grace_seconds=grace_seconds,
        sleep=sleep,
    )
    async with AsyncExitStack() as stack:
        if redis is not None:
            await stack.enter_async_context(redis.opened)
        await stack.enter_async_context(cache.flights.opened)
        yield Instance(cache, database, counters, clock, redis)


class Deaf(RedisTier[str]):
    """A tier that cannot hear the channel, as where Redis forbids it."""

    def listen(self, listener: Listener) -> None:
        """Hear nothing."""


def redis_tier(
    url: str | Client,
    *,
    counters: Counters | None = None,
    options: RedisOptions = PATIENT,
    namespace: str = "test",
    label: str = "db",
    seal: Seal | None = None,
    deaf: bool = False,
) -> RedisTier[str]:
    """Return a tier for strings."""
    kind: type[RedisTier[str]] = Deaf if deaf else RedisTier
    return kind(
        url, codec=Codec(str, label, seal=seal), namespace=namespace, counters=counters or Counters(), options=options
    )


def outlast_marks(url: str) -> None:
    """Let marks end, as after an hour: a namespace that has just begun takes everyone for invalidated."""
    with redis.Redis.from_url(url) as client:
        keys = list(client.scan_iter("ctx:*}:m*"))
        if keys:
            client.delete(*keys)


async def look_one(tier: SharedTier[str], key: Key, keep_ms: int) -> Look[str] | None:
    """Look one key up."""
    (found,) = await tier.look([key], keep_ms)
    return found


async def store_one(tier: SharedTier[str], key: Key, fence: Fence, stored: Stored[str], keep_ms: int) -> bool | None:
    """Store one value."""
    (kept,) = await tier.store([Storing(key, fence, stored, keep_ms)])
    return kept
