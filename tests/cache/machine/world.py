"""Two instances, a database and a shared tier, and what a simple model knows of them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from ctxmiddleware.cache.flight import Flight

from .fake_server import FakeServer
from .gates import Gates
from .instance import Instance
from .model import POLICY, Invalidation, Violation
from .scheduler import Scheduler


@dataclass
class World:
    """Everything the machine acts on."""

    loop: Scheduler = field(default_factory=Scheduler)
    gates: Gates = field(default_factory=Gates)
    counts: Counter[str] = field(default_factory=Counter)
    commits: list[tuple[float, int]] = field(default_factory=list)
    lost: list[float] = field(default_factory=list)
    unmarked: list[float] = field(default_factory=list)
    replaced: list[float] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)
    source: str = "well"
    invalidations: list[Invalidation] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    in_steps: bool = False
    faults: int = 0
    upheavals: int = 0
    bumped: dict[bytes, float] = field(default_factory=dict)
    tainted: set[Flight[str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.server = FakeServer(self.loop.time)
        self.older = self.server.snapshot()
        self.instances = [Instance(number, self) for number in range(2)]
        for each in self.instances:
            each.open()
        self.loop.settle(lambda count: 0)

    @property
    def version(self) -> int:
        """The version that was committed last."""
        return self.commits[-1][1] if self.commits else 0

    @version.setter
    def version(self, version: int) -> None:
        self.commits.append((self.loop.time(), version))

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

    def fault(self) -> None:
        """Take note of something that may end in an error for whoever asks now."""
        self.faults += 1
        for each in self.instances:
            self.tainted.update(*each.cache.flights._by_name.values())

    def pass_time(self, seconds: float) -> None:
        """Let the clock go on."""
        self.loop.now += seconds
        self.fault()

    def hear(self) -> None:
        """Let everybody hear what there is to hear, and of each other that they have."""
        for _ in range(2):
            for each in self.instances:
                each.ear.hear()

    def has_bumped(self, token: bytes) -> None:
        """Take note that an invalidation has put its generation in force."""
        self.bumped[token] = self.loop.now
        for each in self.instances:
            each.expects(token)

    def redis(self, *, down: bool) -> None:
        """Cut everybody off from Redis, or let them reach it again."""
        self.server.is_down = down
        if down:
            self.server.cut_off()
            for each in self.invalidations:
                each.redis_was_down = True

    def floor(self, instance: int, name: str, *, stale: bool, since: float, done: int) -> int:
        """Return the oldest version a get may answer with that began at a virtual second, after so many were done."""
        versions = [0]
        for each in self.invalidations[:done]:
            if each.name not in (None, name) or each.ended_at > since:
                continue
            # Memory alone is trusted for so long; while Redis cannot be asked it stands in for the source for as long
            # as the report has said.
            reported = each.stops_within(self.instances[instance].tier.me)
            allowed = reported if stale and each.redis_was_down else min(reported, POLICY.untrusted_ttl)
            if each.instance == instance or since >= each.ended_at + allowed:
                versions.append(each.version)
            if since >= self._settled_at(each, self.instances[instance], allowed):
                versions.append(self._settled(each))
        return max(versions)

    def _settled(self, each: Invalidation) -> int:
        """Return the version that was committed last within `settle` of an invalidation."""
        return max([0, *(version for at, version in self.commits if at < each.began_at + POLICY.settle)])

    def _settled_at(self, each: Invalidation, instance: Instance, allowed: float) -> float:
        """Return the virtual second from which an instance serves what was committed within `settle`."""
        until = each.ended_at + each.settles_within
        if each.was_heard_by(instance.tier.me):
            allowed = 0.0
        else:
            # Redis has lost the invalidation, and its announcement has not reached this instance.
            if any(each.began_at <= at <= until for at in self.unmarked):
                return math.inf
            lost = [at for at in self.lost if each.began_at <= at <= until]
            until = max([until, *(instance.noticed_after(at) + 2 * POLICY.settle for at in lost)])
        # A second invalidation, a renewal by a failover, and an emptied Redis begin a new window.
        moves = [*self.server.moves, *((at, None) for at in (*self.replaced, *instance.noticed))]
        for at, name in sorted(moves, key=lambda move: move[0]):
            if each.began_at <= at <= until and (name is None or each.name in (None, name)):
                until = max(until, at + POLICY.settle * (2 if name is None else 1))
        return until + allowed
