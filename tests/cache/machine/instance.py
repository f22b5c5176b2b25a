"""One instance of the machine: its cache, its loader, its callers, and what its answers are compared with."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ctxmiddleware.cache.base import Ask, Fetched, Found, Key
from ctxmiddleware.cache.expecting import EXPECTED_SECONDS
from ctxmiddleware.cache.flight import Flight
from ctxmiddleware.cache.shared import SharedTierFailed
from ctxmiddleware.cache.tiered import TieredCache
from ctxmiddleware.errors import NotOpen, SourceError, SourceUnavailable
from ctxmiddleware.stats import Counters

from .fake_channel import Announced
from .fake_ear import FakeEar
from .fake_tier import FakeTier
from .model import NAMED, POLICY, SHORT_LIVED, Asked, Bound, Invalidation

if TYPE_CHECKING:
    from .world import World


class Instance:
    """One process: a cache, its loader, and the callers it has."""

    def __init__(self, number: int, world: World) -> None:
        self.number = number
        self.world = world
        self.callers: list[asyncio.Task[None]] = []
        self.known: Counter[Key] = Counter()
        self._calls = self._running = self._lives = 0
        # What was read before an invalidation that had returned when it came may answer nobody, whenever he asked.
        self._dead: dict[int, list[Invalidation]] = {}
        self._deaf: dict[int, list[Bound]] = {}
        # Loads that a later caller could not join: another one was begun beside them.
        self._passed: set[Flight[str]] = set()
        self._life: asyncio.Task[None] | None = None

    @property
    def ear(self) -> FakeEar:
        """How it hears the others."""
        assert self.tier.ear is not None
        return self.tier.ear

    def open(self, *, hears: bool = True) -> None:
        """Start it with an empty memory, listening to the channel or not yet."""
        world = self.world
        self._lives += 1
        self.counters, self._standbys = Counters(), 0
        self.bound: list[Bound] = []
        self.noticed: list[float] = []
        self._intents: dict[bytes, tuple[Announced, float]] = {}
        self.telling: list[asyncio.Task[None]] = []
        self.tier = FakeTier(
            world.server, world.gates.wait, self._told, lambda: len(world.invalidations),
            me=f"{self.number}.{self._lives}", version=lambda: world.version, bumped=world.has_bumped,
            heard=self._heard, doubted=self._doubted, lost=lambda: self.noticed.append(world.loop.now),
        )  # fmt: skip
        self.tier.in_steps = world.in_steps
        self.cache: TieredCache[str] = TieredCache(
            POLICY,
            self,
            shared=self.tier,
            counters=self.counters,
            clock=world.loop.time,
            rng=random.Random(1),
            drain_seconds=1.0,
        )
        self._stop = asyncio.Event()
        self._life = world.loop.create_task(self._live(self.cache, self._stop))
        if hears:
            self.ear.hear()

    async def _live(self, cache: TieredCache[str], stop: asyncio.Event) -> None:
        async with cache.flights.opened:
            await stop.wait()

    def _told(self, key: Key, moment: int) -> None:
        # Redis has said so: from now on it is no excuse that Redis cannot be asked.
        told = [each.version for each in self.world.invalidations[:moment] if each.name in (None, key[1])]
        self.known[key] = max([self.known[key], *told])

    def _heard(self, announced: Announced, taken: bool) -> None:  # noqa: FBT001 - the shape of a callback
        name = NAMED.get(announced.digest)
        self.world.upheavals += 1
        if announced.kind == "done":
            self.world.counts["announcements heard"] += 1
            self.bound.append(Bound(name, announced.version, everywhere=taken))
        elif taken and announced.token in self.world.bumped:
            self.bound.append(Bound(name, announced.version, everywhere=True))
        elif taken:
            self._intents[announced.token] = announced, self.world.loop.now

    def expects(self, token: bytes) -> None:
        """Take note that what it was told to expect has happened."""
        announced, at = self._intents.pop(token, (None, 0.0))
        if announced is not None and self.world.loop.now < at + EXPECTED_SECONDS:
            self.bound.append(Bound(NAMED.get(announced.digest), announced.version, everywhere=False))

    def noticed_after(self, lost_at: float) -> float:
        """Return when it first noticed that Redis may have lost everything at a virtual second, or later."""
        return min((at for at in self.noticed if at >= lost_at), default=math.inf)

    def _doubted(self, digest: bytes, version: int | None) -> None:
        if version:
            self.bound.append(Bound(NAMED[digest], version, everywhere=False))

    def close(self) -> asyncio.Task[None] | None:
        """Shut it down; whoever still waits is told."""
        self._lives += 1
        self.ear.leave()
        self.world.fault()
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
            self._check_alone(ask.key)
        self._running += 1
        if self._running > POLICY.max_loads:
            world.broken.append(f"{self._running} calls of the source at a time")
        try:
            self._calls += 1
            call, version = self._calls, world.version
            answers = [self._read("/".join(ask.key), call) for ask in asks]
            await world.gates.wait()
            self._dead[call] = [each for each in world.invalidations if each.version > version]
            self._deaf[call] = [each for each in self.bound if each.version > version and each.everywhere]
            world.counts[f"source {world.source}"] += 1
            if world.source != "well":
                world.fault()
            if world.source == "down":
                raise SourceUnavailable("down")
            if world.source == "odd":
                return [SourceError("bad row") if place % 2 == 0 else each for place, each in enumerate(answers)]
            return answers
        finally:
            self._running -= 1
            world.counts["calls of the source"] += 1

    def _check_alone(self, key: Key) -> None:
        flights = [each for each in self.cache.flights._by_name.get(key[1], ()) if each.key == key]
        for each in flights:
            self._pass(each)
        live = [each for each in flights if not each.overtaken and not each.landed and each not in self._passed]
        if len(live) > 1:
            self.world.broken.append(f"two loads of one key at a time ({key})")

    def _pass(self, flight: Flight[str] | None) -> None:
        if flight is not None and self.world.loop.time() >= flight.closes_at:
            self._passed.add(flight)

    def _read(self, asked: str, call: int) -> Fetched[str] | Exception:
        world = self.world
        if asked in world.unknown:
            return Fetched(None, "db")
        return Fetched(
            f"{asked}/{world.version}/{self.number}.{call}", "db", 4.0 if asked == "/".join(SHORT_LIVED) else None
        )

    def ask(self, key: Key) -> asyncio.Task[None]:
        """Let a caller come."""
        self.callers.append(self.world.loop.create_task(self._get(key)))
        return self.callers[-1]

    async def _get(self, key: Key) -> None:
        world, cache, asked = self.world, self.cache, self._asked(key)
        calm = world.faults, world.upheavals, self._lives
        flight = cache.flights.join(key) if cache.flights.opened.peek() else None
        self._pass(flight)
        is_calm = flight not in world.tainted and self._lives % 2 == 1
        try:
            found = await cache.get(key)
        except NotOpen:
            world.counts["came after the end"] += 1
            if is_calm and self._lives == calm[2]:
                world.broken.append("the cache was not open any more")
        except SourceError as error:
            world.counts["answered with an error"] += 1
            excused = "again and again" in str(error) and world.upheavals > calm[1] + 3
            if is_calm and (world.faults, self._lives) == (calm[0], calm[2]) and not excused:
                world.broken.append(f"an error out of nothing: {error}")
        else:
            if self._is_standby():
                asked = asked._replace(at=world.loop.time(), done=len(world.invalidations))
            self.judge(key, found, asked)

    def _asked(self, key: Key) -> Asked:
        return Asked(self.world.loop.time(), len(self.world.invalidations), self.known[key], len(self.bound))

    def peek(self, key: Key) -> None:
        """Let a hit be a hit."""
        entry = self.cache.peek(key)
        if entry is not None:
            self.judge(key, Found(entry, "memory"), self._asked(key))

    def judge(self, key: Key, found: Found[str], asked: Asked) -> None:
        """Compare an answer with what the model allows."""
        world, entry = self.world, found.entry
        world.counts["served stale" if found.stale else f"served by {found.origin}"] += 1
        age = asked.at - entry.loaded_at
        if age > POLICY.ttl + (POLICY.stale_for if found.stale else 0):
            world.broken.append(
                f"an answer {age} s old by {found.origin} (stale={found.stale}, asked {asked}, {entry})"
            )
        if entry.value is None:
            return
        partition, name, version, call = entry.value.split("/")
        if (partition, name) != key:
            world.broken.append(f"{key} got the value of {(partition, name)}")
        if found.origin == "db" and self._was_told(name, int(call.split(".")[1]), found):
            world.broken.append(f"instance {self.number} answered {key} with what was loaded before an invalidation")
        floor = world.floor(self.number, name, stale=found.stale, since=asked.at, done=asked.done)
        told = self._told_of(name, found, asked)
        if int(version) < max(floor, told):
            event = "had returned" if floor >= told else "was heard of"
            world.broken.append(
                f"instance {self.number} served version {version} of {key} by {found.origin} (stale={found.stale}) "
                f"after an invalidation at version {max(floor, told)} {event}; asked {asked}, trusted until "
                f"{entry.trusted_until:g} and {self.cache.trust!r}, loaded at {entry.loaded_at:g}, fence {entry.fence}"
            )

    def _told_of(self, name: str, found: Found[str], asked: Asked) -> int:
        by_memory = found.origin == "memory" and not found.stale
        bound = [each for each in self.bound[: asked.told] if each.name in (None, name)]
        told = [each.version for each in bound if each.everywhere or by_memory]
        return max([asked.learned if found.stale else 0, *told])

    def _was_told(self, name: str, call: int, found: Found[str]) -> bool:
        if any(each.name in (None, name) for each in self._deaf[call]):
            return True
        return any(each.name in (None, name) and self._must_know(each, found) for each in self._dead[call])

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
        self.telling.append(self.world.loop.create_task(self._invalidate(name)))
        self.callers.append(self.telling[-1])

    async def _invalidate(self, name: str | None) -> None:
        world = self.world
        version, began_at = world.version, world.loop.time()
        world.upheavals += 1
        try:
            _, reach = await self.cache.invalidate(name)
        except SharedTierFailed:
            world.counts["invalidations that failed loud"] += 1
            return
        world.counts["invalidations"] += 1
        world.invalidations.append(
            Invalidation(self.number, name, version, began_at, world.loop.time(), reach, world.server.is_down)
        )
        for each in world.instances:
            if each.tier.me in dict(reach.confirmed):
                world.counts["confirmed"] += 1
                if Bound(name, version, everywhere=True) not in each.bound:
                    world.broken.append(f"instance {each.number} confirmed what it has not heard")
