"""What the tiers hold and hand to one another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

V = TypeVar("V")

Key: TypeAlias = tuple[str, str]
"""(partition, name): entries belong to both; a generation belongs to the name, so that it reaches every partition."""


class Fence(NamedTuple):
    """The generations a value was loaded under: of all names together, and of its own name."""

    everyone: bytes
    name: bytes


class Window(NamedTuple):
    """The time after one invalidation in which what is loaded is not kept for longer.

    The age of an invalidation in Redis is known but for the time that the look took: what was loaded is inside where it
    may be, and is not kept past the earliest end.

    Args:
        earliest: monotonic second at which it may end; minus infinity where nothing is to be kept.
        latest: monotonic second at which it has ended; infinite while a `changing` block is open.
    """

    earliest: float
    latest: float


Windows: TypeAlias = tuple[Window, ...]
"""Of all names, and of one name; a value loaded in both ends with the first, and is loaded again in the other."""

UNBOUNDED: Final[Windows] = ()
HELD: Final[Windows] = (Window(-math.inf, math.inf),)


def end_of(windows: Windows, loaded_at: float) -> float:
    """Return the monotonic second at which what was loaded at another is not kept any more; infinite where for long."""
    return min((each.earliest for each in windows if loaded_at < each.latest), default=math.inf)


@dataclass(slots=True, eq=False)
class Entry(Generic[V]):
    """One value in memory and until when it may be served.

    Args:
        value: what the source gave; None for a name the source does not know.
        origin: where the value came from.
        loaded_at: monotonic seconds at which the source was asked.
        expires_at: monotonic seconds at which its time to live ends.
        trusted_until: monotonic seconds until which its own look proves that no news of an invalidation can have been
            missed; the channel may prove it for longer.
        grace: seconds past its time that it may be served while the source is down.
        fence: the generations it was loaded under, or None where Redis had no part in it.
        untrusted_grace: seconds past the trust in it that it may be served while the source is down.
        size: bytes it holds in memory.
        visited: whether it was read since eviction passed it last.
        recent: whether it was read since it was last told who is asked for.
        ahead_at: monotonic seconds from which a hit starts a refresh behind it.
        renew_at: monotonic seconds from which a hit does so where only its own look vouches for it.
        epoch: the epoch of trust in which it was looked up.
        stands_in_until: monotonic seconds until which it is served stale without asking a source that just failed.
        is_settling: whether it was loaded before the transaction of an invalidation is sure to have committed.
        derived: a form of the value that was made once, and what it was made for.
    """

    value: V | None
    origin: str
    loaded_at: float
    expires_at: float
    trusted_until: float
    grace: float
    fence: Fence | None = None
    untrusted_grace: float = 0.0
    size: int = 0
    visited: bool = False
    recent: bool = False
    ahead_at: float = math.inf
    renew_at: float = math.inf
    epoch: int = 0
    stands_in_until: float = 0.0
    is_settling: bool = False
    derived: tuple[object, V] | None = None


@dataclass(frozen=True, slots=True)
class Found(Generic[V]):
    """The answer to a look-up.

    Args:
        entry: what was found.
        origin: the tier that had it, or the source's own word.
        stale: whether it is past its time, served because the source cannot answer.
    """

    entry: Entry[V]
    origin: str
    stale: bool = False


@dataclass(frozen=True, slots=True)
class Stored(Generic[V]):
    """A value as the shared tier holds it.

    Args:
        value: the value; None for a name its source does not know.
        origin: where it was loaded from.
        lifetime: seconds it may be served from the time its source was asked.
        age: seconds since then.
    """

    value: V | None
    origin: str
    lifetime: float
    age: float = 0.0


class Ask(NamedTuple):
    """One key a load is for.

    Args:
        key: the key.
        moved_ago: seconds since its name was last invalidated, as far as the shared tier knows; infinite where long
            ago.
    """

    key: Key
    moved_ago: float


@dataclass(frozen=True, slots=True)
class Fetched(Generic[V]):
    """What a load brought: the value (None for an unknown name), its origin, and its own seconds to live if any."""

    value: V | None
    origin: str
    ttl: float | None = None
