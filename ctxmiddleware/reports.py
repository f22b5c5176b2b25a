"""What users are told of what was resolved, invalidated and warmed."""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

import msgspec

T = TypeVar("T")


class Resolution(msgspec.Struct, Generic[T], frozen=True):
    """What is known of a user.

    Args:
        context: the context, or None for an unknown user.
        origin: `"memory"`, `"redis"`, `"rpc"`, `"legacy"`, or the source's own word.
        age: seconds since the source was asked.
        stale: whether it is past its time, served because the source cannot answer.
    """

    context: T | None
    origin: str
    age: float
    stale: bool = False


class Confirmed(msgspec.Struct, frozen=True):
    """An instance that has confirmed an invalidation: its name, and after how many milliseconds."""

    instance: str
    ms: float


class Silent(msgspec.Struct, frozen=True):
    """An instance that has not confirmed an invalidation: its name, and in how many seconds it stops at the latest."""

    instance: str
    stops_within: float


class InvalidationReport(msgspec.Struct, frozen=True, kw_only=True):
    """What an invalidation did.

    Args:
        reach: `"fleet"`, or `"this process only"` where there is no Redis.
        memory: entries this process has forgotten.
        redis: `"done"`, `"failed"`, or `"absent"` where there is no Redis.
        was_known: whether there was something to forget: an entry in this memory, or a generation in Redis, which a
            recent look-up by any instance leaves; None where all were invalidated, or Redis did not take it.
        confirmed: the instances that have confirmed it, this one first.
        silent: the instances in the list of Redis that have not, each with an upper bound that holds whatever it is cut
            off from.
        unlisted_stop_within: seconds after which an instance stops that Redis has lost from its list; None where none
            can be missing.
        unlisted_because: why one can be missing.
        others_stop_within: seconds after which no other instance serves what was invalidated, an upper bound: 0 where
            all have confirmed it and none can be missing, or None where no other instance can be reached.
        settles_within: seconds after which what is loaded is kept as usual: until then its transaction may commit. For
            a COMMIT that came after the invalidation they add to the times of instances that have not confirmed.
        duration_ms: milliseconds it took.
    """

    reach: Literal["fleet", "this process only"]
    memory: int
    redis: Literal["done", "failed", "absent"]
    was_known: bool | None = None
    confirmed: tuple[Confirmed, ...]
    silent: tuple[Silent, ...] = ()
    unlisted_stop_within: float | None = None
    unlisted_because: str | None = None
    others_stop_within: float | None
    settles_within: float = 0.0
    duration_ms: float


class WarmReport(msgspec.Struct, frozen=True, kw_only=True):
    """What warming did: how many contexts are now in memory, are of unknown users, or could not be loaded."""

    warmed: int
    unknown: int
    failed: int
    duration_ms: float
