"""Two instances, a database and a shared tier, and what a simple model knows of them."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ctxmiddleware.cache.base import Ask, Fetched, Found, Key
from ctxmiddleware.cache.policy import CachePolicy
from ctxmiddleware.cache.shared import SharedTierFailed
from ctxmiddleware.cache.tiered import TieredCache
from ctxmiddleware.errors import NotOpen, SourceError, SourceUnavailable
from ctxmiddleware.stats import Counters

from .fake_tier import FakeServer, FakeTier
from .gates import Gates
from .scheduler import Scheduler

KEYS: tuple[Key, ...] = tuple((partition, name) for partition in ("", "acme") for name in ("ada", "bob", "cy"))
POLICY = CachePolicy(
    ttl=10, negative_ttl=3, jitter=0.1, refresh_ahead=0.8, stale_for=6, untrusted_ttl=2, soft_timeout=0.5,
    load_timeout=5, max_loads=3, max_batches=1, max_users=4, max_unknown=2,
)  # fmt: skip


class Violation(AssertionError):
    """A promise was broken."""


@dataclass
class Invalidation:
    """One that returned well: nothing older than `version` may be served afterwards."""

    instance: int
    name: str | None
    version: int
    ended_at: float
    redis_was_down: bool = False


@dataclass
class World:
    """Everything the machine acts on."""

    loop: Scheduler = field(default_factory=Scheduler)
    gates: Gates = field(default_factory=Gates)
    counts: Counter[str] = field(default_factory=Counter)
    version: int = 0
    unknown: set[str] = field(default_factory=set)
    source: str = "well"
    invalidations: list[Invalidation] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.server = FakeServer(self.loop.time)
        self.older = self.server.snapshot()
        self.instances = [Instance(number, self) for number in range(2)]
        for each in self.instances:
            each.open()
        self.loop.settle(lambda count: 0)

    def check(self) -> None:
        """Raise what was broken since.

        Raises:
            Violation: a promise was broken.
        """
        faults = [*self.broken, *self.loop.failures]
        for each in self.instances:
            known = [key for key, entry in each.cache.memory._entries.items() if entry.value is not None]
            if len(known) > POLICY.max_users or len(each.cache.memory) - len(known) > POLICY.max_unknown:
                faults.append("memory holds more than it may")
        if faults:
            raise Violation("; ".join(faults))

    def redis(self, *, down: bool) -> None:
        """Cut everybody off from Redis, or let them reach it again."""
        self.server.is_down = down
        if down:
            for each in self.invalidations:
                each.redis_was_down = True

    def floor(self, instance: int, name: str, *, stale: bool, since: float, done: int) -> int:
        """Return the oldest version a get may answer with that began at a virtual second, after so many were done."""
        versions = [0]
        for each in self.invalidations[:done]:
            if each.name not in (None, name) or each.ended_at > since:
                continue
            is_told = since >= each.ended_at + POLICY.untrusted_ttl
            # Cut off from Redis an instance may serve what it knows while the source is down too.
            excused = stale and each.redis_was_down and each.instance != instance
            if (each.instance == instance or is_told) and not excused:
                versions.append(each.version)
        return max(versions)


class Instance:
    """One process: a cache, its loader, and the callers it has."""

    def __init__(self, number: int, world: World) -> None:
        self.number = number
        self.world = world
        self.callers: list[asyncio.Task[None]] = []
        self.known: Counter[Key] = Counter()
        self._calls = 0
        # What was read before an invalidation that had returned when it came may answer nobody, whenever he asked.
        self._dead: dict[int, list[Invalidation]] = {}
        self._life: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Start it with an empty memory."""
        world = self.world
        self.counters, self._standbys = Counters(), 0
        self.cache: TieredCache[str] = TieredCache(
            POLICY,
            self,
            shared=FakeTier(world.server, world.gates.wait, self._told, lambda: len(world.invalidations)),
            counters=self.counters,
            clock=world.loop.time,
            rng=random.Random(1),
            drain_seconds=1.0,
        )
        self._stop = asyncio.Event()
        self._life = world.loop.create_task(self._live(self.cache, self._stop))

    async def _live(self, cache: TieredCache[str], stop: asyncio.Event) -> None:
        async with cache.flights.opened:
            await stop.wait()

    def _told(self, key: Key, moment: int) -> None:
        # Redis has said so: from now on it is no excuse that Redis cannot be asked.
        told = [each.version for each in self.world.invalidations[:moment] if each.name in (None, key[1])]
        self.known[key] = max([self.known[key], *told])

    def close(self) -> asyncio.Task[None] | None:
        """Shut it down; whoever still waits is told."""
        self._stop.set()
        return self._life

    @property
    def batch_size(self) -> int:
        """How many one call may be for: one instance asks for each alone."""
        return 1 if self.number else 3

    async def __call__(self, asks: Sequence[Ask]) -> list[Fetched[str] | Exception]:
        """Read the database as it is when the call begins, and answer when the machine lets it."""
        world = self.world
        for ask in asks:
            self._check_alone(ask.asked)
        try:
            self._calls += 1
            call, version = self._calls, world.version
            answers = [self._read(ask.asked, call) for ask in asks]
            await world.gates.wait()
            self._dead[call] = [each for each in world.invalidations if each.version > version]
            world.counts[f"source {world.source}"] += 1
            if world.source == "down":
                raise SourceUnavailable("down")
            if world.source == "odd":
                return [SourceError("bad row") if place % 2 == 0 else each for place, each in enumerate(answers)]
            return answers
        finally:
            world.counts["calls of the source"] += 1

    def _check_alone(self, asked: str) -> None:
        partition, _, name = asked.partition("/")
        flights = self.cache.flights._by_name.get(name, set())
        live = [each for each in flights if each.key == (partition, name) and not each.overtaken and not each.landed]
        if len(live) > 1:
            self.world.broken.append(f"two loads of one key at a time ({asked})")

    def _read(self, asked: str, call: int) -> Fetched[str] | Exception:
        world = self.world
        if asked in world.unknown:
            return Fetched(None, "db")
        return Fetched(f"{asked}/{world.version}/{self.number}.{call}", "db", 4.0 if asked == "acme/cy" else None)

    def ask(self, key: Key) -> asyncio.Task[None]:
        """Let a caller come."""
        self.callers.append(self.world.loop.create_task(self._get(key)))
        return self.callers[-1]

    async def _get(self, key: Key) -> None:
        began, cache = self.world.loop.time(), self.cache
        done, learned = len(self.world.invalidations), self.known[key]
        try:
            found = await cache.get(key, f"{key[0]}/{key[1]}")
        except SourceError:
            self.world.counts["answered with an error"] += 1
            return
        except NotOpen:
            self.world.counts["came after the end"] += 1
            return
        if self._is_standby():
            began, done = self.world.loop.time(), len(self.world.invalidations)
        self.judge(key, found, began, done, learned)

    def peek(self, key: Key) -> None:
        """Let a hit be a hit."""
        entry = self.cache.peek(key, f"{key[0]}/{key[1]}")
        if entry is not None:
            done = len(self.world.invalidations)
            self.judge(key, Found(entry, "memory"), self.world.loop.time(), done, self.known[key])

    def judge(self, key: Key, found: Found[str], began: float, done: int, learned: int) -> None:
        """Compare an answer with what the model allows.

        Args:
            key: who was asked for.
            found: the answer.
            began: the virtual second of the question.
            done: how many invalidations had returned by then.
            learned: the version this instance had heard of from Redis by then.
        """
        world, entry = self.world, found.entry
        world.counts["served stale" if found.stale else f"served by {found.origin}"] += 1
        age = began - entry.loaded_at
        if age > POLICY.ttl + (POLICY.stale_for if found.stale else 0):
            world.broken.append(f"an answer {age} s old")
        if entry.value is None:
            return
        partition, name, version, call = entry.value.split("/")
        if (partition, name) != key:
            world.broken.append(f"{key} got the value of {(partition, name)}")
        floor = max(
            learned if found.stale else 0, world.floor(self.number, name, stale=found.stale, since=began, done=done)
        )
        dead = self._dead[int(call.split(".")[1])] if found.origin == "db" else []
        if any(each.name in (None, name) and self._must_know(each, found) for each in dead):
            world.broken.append(f"instance {self.number} answered {key} with what was loaded before an invalidation")
        if int(version) < floor:
            world.broken.append(
                f"instance {self.number} served version {version} of {key} by {found.origin} (stale={found.stale}) "
                f"after an invalidation at version {floor} had returned; learned {learned}, asked at {began:g}, "
                f"trusted until {entry.trusted_until:g}, loaded at {entry.loaded_at:g}, fence {entry.fence}"
            )

    def _is_standby(self) -> bool:
        # Served in this very step, because the source is slow: whatever has returned by now has returned before.
        served = self.counters.get("load", "slow")
        is_new, self._standbys = served > self._standbys, served
        return is_new

    def _must_know(self, each: Invalidation, found: Found[str]) -> bool:
        # What was loaded while Redis could not be asked has no generation that anybody could have moved.
        return each.instance == self.number or (found.entry.fence is not None and not each.redis_was_down)

    def invalidate(self, name: str | None) -> None:
        """Let an invalidation begin."""
        self.callers.append(self.world.loop.create_task(self._invalidate(name)))

    async def _invalidate(self, name: str | None) -> None:
        world = self.world
        version = world.version
        try:
            await self.cache.invalidate(name)
        except SharedTierFailed:
            world.counts["invalidations that failed loud"] += 1
            return
        world.counts["invalidations"] += 1
        world.invalidations.append(Invalidation(self.number, name, version, world.loop.time(), world.server.is_down))
