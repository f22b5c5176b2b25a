"""What this process has counted: exact counters, and the frozen snapshot users read."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Final, Literal

import msgspec

MEMORY: Final = "memory"
REDIS: Final = "redis"
CHANNEL: Final = "channel"


class Count:
    """One exact count that threads share."""

    __slots__ = ("_lock", "value")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.value = 0

    def add(self, amount: int = 1) -> None:
        """Count so many more."""
        # `+=` is three steps, between which another thread may write.
        with self._lock:
            self.value += amount


class Counters:
    """Exact counts by event and label, which threads share. Labels are words of ours, never a user's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], Count] = {}

    def of(self, event: str, label: str = "") -> Count:
        """Return the count of an event, apart for each label; to be kept where it is counted on every request."""
        count = self._counts.get((event, label))
        if count is None:
            with self._lock:
                count = self._counts.setdefault((event, label), Count())
        return count

    def add(self, event: str, label: str = "", amount: int = 1) -> None:
        """Count an event, apart for each label."""
        self.of(event, label).add(amount)

    def get(self, event: str, label: str = "") -> int:
        """Return how often an event was counted under a label."""
        count = self._counts.get((event, label))
        return 0 if count is None else count.value

    def by_label(self, event: str) -> dict[str, int]:
        """Return an event's counts by label, in the labels' order; what was never counted is not there."""
        with self._lock:
            counts = sorted(self._counts.items(), key=lambda item: item[0])
        return {label: count.value for (name, label), count in counts if name == event and count.value}


class TierStats(msgspec.Struct, frozen=True, kw_only=True):
    """Look-ups in one tier."""

    hits: int
    misses: int
    hit_rate: float | None


class MemoryStats(TierStats, frozen=True, kw_only=True):
    """The tier in this process, with what it holds now and may hold at most."""

    entries: int
    bytes: int
    max_users: int
    max_bytes: int
    evictions: int


class RedisStats(TierStats, frozen=True, kw_only=True):
    """The tier the fleet shares, as this process sees it.

    `faults` counts commands that failed or timed out, a channel that could not be opened at the start included, `busy`
    look-ups given up for want of a free connection,
    `overtaken` values found that were stored before an invalidation, `rejected` values that were not ours, `unstorable`
    contexts that msgpack cannot hold, `renewed` how often all that it held was forgotten because the server
    was not the one it had been, and `state` is `"unknown"` before Redis has answered or failed, `"ok"` after a command
    that was answered, and `"failing"` after one that was not, or while only a background probe asks it.
    `instance` is this process's name among those that share it; `channel` is `"heard"` while it hears what they
    invalidate, `heard` counts what it heard, and `missed` how often it knew that it had missed something.
    """

    faults: int
    busy: int
    overtaken: int
    rejected: int
    unstorable: int
    renewed: int
    state: Literal["unknown", "ok", "failing", "not open"]
    instance: str
    channel: Literal["heard", "not heard"]
    heard: int
    missed: int


class LoadStats(msgspec.Struct, frozen=True, kw_only=True):
    """Loads of users from the source.

    `calls` counts calls of the source, each for one user or for many; `started`, `failed` and `overtaken` count users
    loaded, loaded in vain, and invalidated meanwhile; `shared` counts callers that joined a load under way, `behind`
    refreshes behind an answer, `slow` callers served stale because the source was slow, `refused` loads for which the
    queue was full, `leased` users who were being loaded by another instance, `warmed` contexts taken from Redis at the
    start. `paths` is the state of each path to the source: `"unknown"` before the first call, `"ok"` or
    `"failing"` as the last one ended, `"failing"` while none is made, and `"probing"` while one tries whether it
    answers again.
    """

    calls: int
    started: int
    failed: int
    shared: int
    overtaken: int
    behind: int
    slow: int
    refused: int
    leased: int
    warmed: int
    paths: Mapping[str, str]


class ZonesStats(msgspec.Struct, frozen=True, kw_only=True):
    """The zones snapshot: its state, how many zones it holds, and its age in seconds."""

    state: Literal["loading", "ready", "failing"]
    count: int
    age: float | None
    refreshes: int
    failures: int


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of this process's counters.

    `resolutions` counts answers by origin, `hit_rate` is the share of them out of memory or Redis, stale ones included,
    `requests` counts what the middleware did with each request, `refusals` those without a context by reason, whether
    they were refused or went on without one; requests that reached the admin are in neither. `started_at` is ISO 8601
    in UTC.
    """

    name: str
    pid: int
    started_at: str
    hit_rate: float | None
    resolutions: Mapping[str, int]
    stale: int
    requests: Mapping[str, int]
    refusals: Mapping[str, int]
    memory: MemoryStats
    redis: RedisStats | None
    loads: LoadStats
    zones: ZonesStats | None


def rate(hits: int, misses: int) -> float | None:
    """Return the share of hits among all look-ups, or None before the first."""
    total = hits + misses
    return hits / total if total else None
