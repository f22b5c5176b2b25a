"""From counters and tiers to the frozen snapshot that users read."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from .refusals import REFUSAL
from .stats import CHANNEL, MEMORY, REDIS, LoadStats, MemoryStats, RedisStats, Stats, ZonesStats, rate
from .wiring import Assembly

_HITS = (MEMORY, REDIS)
_LOAD_EVENTS = ("calls", "started", "failed", "shared", "overtaken", "behind", "slow", "refused", "leased", "warmed")


def snapshot(name: str, started_at: datetime, assembly: Assembly[object]) -> Stats:
    """Return what this process has counted so far.

    Args:
        name: the plugin's.
        started_at: when it was built.
        assembly: its working parts.
    """
    counters = assembly.counters
    resolutions = counters.by_label("resolution")
    hits = sum(count for origin, count in resolutions.items() if origin in _HITS)
    return Stats(
        name=name,
        pid=os.getpid(),
        started_at=started_at.astimezone(UTC).isoformat(timespec="seconds"),
        hit_rate=rate(hits, sum(resolutions.values()) - hits),
        resolutions=resolutions,
        stale=counters.get("stale"),
        requests=counters.by_label("request"),
        refusals=counters.by_label(REFUSAL),
        memory=_memory(assembly),
        redis=_redis(assembly),
        loads=_loads(assembly),
        zones=_zones(assembly),
    )


def _memory(assembly: Assembly[object]) -> MemoryStats:
    counters, memory = assembly.counters, assembly.cache.memory
    hits, misses = counters.get("hit", MEMORY), counters.get("miss", MEMORY)
    return MemoryStats(
        hits=hits,
        misses=misses,
        hit_rate=rate(hits, misses),
        entries=len(memory),
        bytes=memory.bytes,
        max_users=memory.max_entries,
        max_bytes=memory.max_bytes,
        evictions=memory.evictions,
    )


def _redis(assembly: Assembly[object]) -> RedisStats | None:
    counters, tier = assembly.counters, assembly.redis
    if tier is None:
        return None
    hits, misses = counters.get("hit", REDIS), counters.get("miss", REDIS)
    return RedisStats(
        hits=hits,
        misses=misses,
        hit_rate=rate(hits, misses),
        faults=counters.get("fault", REDIS),
        busy=counters.get("busy", REDIS),
        overtaken=counters.get("overtaken", REDIS),
        rejected=counters.get("rejected", REDIS),
        unstorable=counters.get("unstorable", REDIS),
        renewed=counters.get("renewed", REDIS),
        state=tier.health(),
        instance=tier.instance,
        channel="heard" if tier.is_heard() else "not heard",
        heard=counters.get("heard", CHANNEL),
        missed=counters.get("missed", CHANNEL),
    )


def _loads(assembly: Assembly[object]) -> LoadStats:
    counts = {event: assembly.counters.get("load", event) for event in _LOAD_EVENTS}
    return LoadStats(**counts, paths=assembly.loading.path_health())


def _zones(assembly: Assembly[object]) -> ZonesStats | None:
    if assembly.zones is None:
        return None
    state = assembly.zones.state()
    return ZonesStats(
        state=state.state, count=state.count, age=state.age, refreshes=state.refreshes, failures=state.failures
    )
