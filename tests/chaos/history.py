"""Whether an answer may be: what was changed and invalidated, and what reports of that said, by one monotonic clock."""

from __future__ import annotations

import bisect
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal, TypeAlias

from .company import Facts, Standing, facts, standing

Part: TypeAlias = Literal["redis", "source", "process"]

# A fault is felt for a while after its end: breakers probe, and what waited goes on.
AFTERMATH: Final = 5.0


class Verdict(Enum):
    """What an answer is."""

    RIGHT = "right"
    LAGGING = "older than the last invalidation, as its report had said"
    STALE = "the same for longer than untrusted_ttl, marked stale"
    TOO_OLD = "older than the report of an invalidation had said"
    MIX_UP = "another's, or what never stood in the database"


@dataclass(frozen=True)
class Asked:
    """A request.

    Args:
        user: who asks.
        slot: which of the fleet's places was asked.
        began_at: when the client sent it.
    """

    user: int
    slot: int
    began_at: float


@dataclass(frozen=True)
class Told:
    """An answer.

    Args:
        read_at: when the client had read it.
        pid: the process that gave it.
        standing: what it makes of the user.
        version: the version it shows; None for an unknown user.
        facts: what it says of the user; None for an unknown user.
        stale: whether it is marked stale.
    """

    read_at: float
    pid: int
    standing: Standing
    version: int | None
    facts: Facts | None
    stale: bool = False


@dataclass(frozen=True)
class Invalidated:
    """An invalidation that has returned, and said that it reached Redis.

    Args:
        versions: by user, the version that was committed before it began.
        returned_at: when the client had read its answer.
        confirmed: the processes that have confirmed it.
        silent: by process, the seconds within which it stops that has not confirmed.
        unlisted: the seconds within which a process stops that is neither of these; 0 where none can be missing.
    """

    versions: Mapping[int, int]
    returned_at: float
    confirmed: frozenset[int] = frozenset()
    silent: Mapping[int, float] = field(default_factory=dict)
    unlisted: float = 0.0

    def bound(self, pid: int) -> float:
        """Return the seconds for which, by its report, a process that began before may lag."""
        return 0.0 if pid in self.confirmed else self.silent.get(pid, self.unlisted)


@dataclass
class _Step:
    invalidation: Invalidated
    version: int
    floor: int = 0  # the highest version of all that returned no later


@dataclass
class Stretch:
    """Some time in which something failed for some places of the fleet."""

    part: Part
    slots: frozenset[int]
    began_at: float
    ended_at: float = math.inf


@dataclass
class History:
    """Everything that decides what an answer may be, in the order in which it happened.

    What failed excuses no answer: an instance may lag for as long as the report of the invalidation had said.

    Args:
        untrusted_ttl: seconds memory is trusted without proof: past them an answer that lags is marked stale.
    """

    untrusted_ttl: float
    _begun: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    _committed: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    _invalidated: dict[int, list[_Step]] = field(default_factory=lambda: defaultdict(list))
    _started: dict[int, float] = field(default_factory=dict)
    _stretches: list[Stretch] = field(default_factory=list)
    _longest: float = 0.0

    def started(self, pid: int, at: float) -> None:
        """Note that a process began, with nothing in its memory."""
        self._started[pid] = at

    def changing(self, user: int, at: float = -math.inf) -> int:
        """Return the version that a change to come makes of a user: from that time on it may be seen."""
        self._begun[user].append(at)
        return len(self._begun[user])

    def changed(self, user: int) -> None:
        """Note that the change under way is committed."""
        self._committed[user] = len(self._begun[user])

    def committed(self, users: Iterable[int]) -> dict[int, int]:
        """Return the versions that an invalidation which begins now makes final."""
        return {user: self._committed[user] for user in users}

    def newest(self, user: int) -> int:
        """Return a user's last committed version."""
        return self._committed[user]

    def invalidated(self, invalidation: Invalidated) -> None:
        """Note an invalidation; one that failed is none."""
        self._longest = max(self._longest, invalidation.unlisted, *invalidation.silent.values())
        for user, version in invalidation.versions.items():
            line = self._invalidated[user]
            bisect.insort(line, _Step(invalidation, version), key=_returned_at)
            floor = 0
            for step in line:
                floor = step.floor = max(floor, step.version)

    def disturbed(self, part: Part, slots: Iterable[int], at: float) -> Stretch:
        """Note that something begins to fail for some places of the fleet; close it with `recovered`."""
        stretch = Stretch(part, frozenset(slots), at)
        self._stretches.append(stretch)
        return stretch

    def recovered(self, stretch: Stretch, at: float) -> None:
        """Note that it works again."""
        stretch.ended_at = at

    def was_disturbed(self, parts: Iterable[Part], slot: int, since: float, until: float) -> bool:
        """Answer whether one of the parts failed, or recovered from that, between two times."""
        wanted = frozenset(parts)
        return any(
            each.part in wanted and slot in each.slots and each.began_at <= until and each.ended_at + AFTERMATH >= since
            for each in self._stretches
        )

    def judge(self, asked: Asked, told: Told) -> Verdict:
        """Return what an answer is, which may have been given some time ago."""
        version = self._version(asked.user, told)
        if version is None:
            return Verdict.MIX_UP
        if version >= self._floor(asked, told, 0.0):
            return Verdict.RIGHT
        if version >= self._floor(asked, told, self.untrusted_ttl):
            return Verdict.LAGGING
        if told.stale and version >= self._floor(asked, told, math.inf):
            return Verdict.STALE
        return Verdict.TOO_OLD

    def _version(self, user: int, told: Told) -> int | None:
        """Return the newest version an answer can be of, or None where it can be of none of this user."""
        newest = bisect.bisect_right(self._begun[user], told.read_at)
        if told.standing is Standing.ABSENT:
            # It shows no version: judged as the newest that it can be.
            return next((n for n in range(newest, -1, -1) if standing(n) is Standing.ABSENT), None)
        if told.facts != facts(user) or told.version is None or told.version > newest:
            return None
        return told.version if standing(told.version) is told.standing else None

    def _floor(self, asked: Asked, told: Told, most: float) -> int:
        """Return the oldest version that may be shown by a process that may lag for so many seconds at most."""
        line = self._invalidated[asked.user]
        longest = max(min(most, self._longest), 0.0)
        final = bisect.bisect_right(line, asked.began_at - longest, key=_returned_at)
        returned = bisect.bisect_right(line, asked.began_at, key=_returned_at)
        floor = line[final - 1].floor if final else 0
        for each in line[final:returned]:
            if each.version > floor and not self._may_lag(each.invalidation, asked, told):
                floor = each.version
        return floor

    def _may_lag(self, each: Invalidated, asked: Asked, told: Told) -> bool:
        # A process that began afterwards had nothing that could be older.
        if self._started.get(told.pid, -math.inf) >= each.returned_at:
            return False
        return asked.began_at < each.returned_at + each.bound(told.pid)


def _returned_at(step: _Step) -> float:
    return step.invalidation.returned_at
