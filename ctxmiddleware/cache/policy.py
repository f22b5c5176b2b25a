"""How long a value may be served: pure functions of a policy and the time."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TypeVar

from ..option import Count, Seconds, Share, check_options, documented
from .base import UNBOUNDED, Entry, Fence, Windows, end_of
from .trust import Trust, own_epoch

V = TypeVar("V")

LONGEST = 365 * 86400.0
# Redis remembers for an hour when a user was invalidated, of which the lag of a replica is a part.
LONGEST_SETTLE = 900.0


class Verdict(Enum):
    """What an entry is good for now."""

    FRESH = auto()  # serve it
    AHEAD = auto()  # serve it, and refresh it behind the answer
    STALE = auto()  # past its time, or past the trust in it: serve it only where the source cannot answer, or not soon
    GONE = auto()  # never serve it


@documented
@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How long contexts live, how many are kept, and how the source is queried."""

    ttl: float = Seconds(
        "Seconds a context is served before its source is queried again.", over=0, most=LONGEST
    ).default(900.0)
    negative_ttl: float = Seconds("Seconds an unknown user is remembered.", over=0, most=LONGEST).default(60.0)
    jitter: float = Share(
        "Share by which each of these times is shortened at random, so that contexts loaded together do not expire "
        "together; `Loaded.ttl` of a source is not shortened.",
        least=0,
        below=1,
    ).default(0.1)
    refresh_ahead: float = Share(
        "Share of its time after which a hit refreshes a context in the background; 1 for never.", over=0, most=1
    ).default(0.8)
    stale_for: float = Seconds(
        "Seconds past its time that a context is served while the source is down; 0 for never.", least=0, most=LONGEST
    ).default(300.0)
    untrusted_ttl: float = Seconds(
        "Seconds memory is trusted without a look for invalidations in Redis.", over=0, most=LONGEST
    ).default(5.0)
    stale_untrusted_for: float | None = Seconds(
        "Seconds past that trust that a context is served while Redis and the source are both down, by default as "
        "CTX_STALE_FOR; with 0 a revoked right ends with that trust.",
        least=0,
        most=LONGEST,
    ).default(None)
    settle: float = Seconds(
        "Seconds after an invalidation in which its transaction may still commit: contexts loaded in them are served, "
        "and loaded again at their end; 0 for never.",
        least=0,
        most=LONGEST_SETTLE,
        way_out="longer transactions need plugin.changing()",
    ).default(5.0)
    soft_timeout: float = Seconds(
        "Seconds a request waits for a slow source where a context past its time may stand in.", over=0, most=LONGEST
    ).default(0.5)
    load_timeout: float = Seconds(
        "Seconds after which a load is given up and its source counts as unavailable.", over=0, most=LONGEST
    ).default(30.0)
    lease_wait: float = Seconds(
        "Seconds a load waits for another instance's load of the same user before it queries the source itself.",
        over=0,
        most=LONGEST,
        variable=None,
    ).default(10.0)
    max_loads: int = Count("Calls of the source in progress at a time, per event loop.", least=1).default(64)
    max_batches: int = Count(
        "Calls in progress, while none is slow, of a source that loads many users at once: with few, later misses "
        "gather.",
        least=1,
        variable=None,
    ).default(2)
    max_waiting: int = Count(
        "Loads that wait for their turn, per event loop; more are refused at once.", least=1, variable=None
    ).default(10_000)
    max_users: int = Count("Contexts kept in memory.", least=1).default(100_000)
    max_unknown: int = Count("Unknown users remembered in memory, besides those.", least=1).default(10_000)
    max_bytes: int = Count("Bytes of contexts kept in memory.", least=1).default(256 * 1024 * 1024)
    warm_users: int = Count(
        "Contexts copied from Redis into memory at the start, the most recently requested ones.", least=0
    ).default(10_000)

    def __post_init__(self) -> None:
        check_options(self)

    def lifetime(self, *, known: bool, ttl: float | None = None, scatter: float = 0.0) -> float:
        """Return the seconds a value is served: the source's own `ttl` where it gave one, `LONGEST` at most.

        Args:
            known: whether the source knows the user.
            ttl: what the source said.
            scatter: a random number from 0 to 1, of which `jitter` makes the share that is taken away.
        """
        if ttl is None:
            return (self.ttl if known else self.negative_ttl) * (1 - self.jitter * scatter)
        # A source that counts down to a time of its own may be past it already, and NaN compares with nothing.
        return min(ttl, LONGEST) if ttl > 0 else 0.0

    @property
    def longest_untold(self) -> float:
        """Seconds after an invalidation within which an instance that missed it stops serving older values."""
        return self.untrusted_ttl + self._untrusted_grace

    @property
    def _untrusted_grace(self) -> float:
        return self.stale_for if self.stale_untrusted_for is None else self.stale_untrusted_for

    def grace(self, *, known: bool) -> float:
        """Return the seconds past its time that a value may be served while the source is down."""
        return self.stale_for if known else 0.0

    def entry(
        self,
        value: V | None,
        origin: str,
        asked_at: float,
        lifetime: float,
        *,
        shared: bool,
        listed: bool = True,
        fence: Fence | None = None,
        age: float = 0.0,
        epoch: int = 0,
        windows: Windows = UNBOUNDED,
    ) -> Entry[V]:
        """Return the entry of a value.

        Args:
            value: what was loaded; None for an unknown name.
            origin: where it came from.
            asked_at: monotonic seconds before the tier or the source was asked: what happened since may be missed.
            lifetime: seconds it is served from the time its source was asked.
            shared: whether other processes can invalidate it, which ends trust in it after `untrusted_ttl`.
            listed: whether the reports of other processes count this one in; an entry of one that they do not know of
                answers the callers of its load and no later ones.
            fence: the generations it was loaded under.
            age: seconds between asking the source and `asked_at`.
            epoch: the epoch of trust at `asked_at` or before.
            windows: the times after invalidations past whose ends nothing is kept that was loaded in them.
        """
        loaded_at = asked_at - age
        trusted_until = asked_at + (self.untrusted_ttl if listed else 0.0) if shared else math.inf
        grace = self.grace(known=value is not None)
        entry = Entry(value, origin, loaded_at, loaded_at + lifetime, trusted_until, grace, fence, epoch=epoch)
        if value is not None and listed:
            entry.untrusted_grace = self._untrusted_grace
        return self._dated(_settled(entry, windows), asked_at)

    def confirmed(
        self,
        entry: Entry[V],
        asked_at: float,
        epoch: int = 0,
        *,
        listed: bool = True,
        windows: Windows = UNBOUNDED,
    ) -> Entry[V]:
        """Return an entry whose generations were found unchanged.

        Args:
            entry: what memory holds.
            asked_at: monotonic seconds before Redis was asked.
            epoch: the epoch of trust at `asked_at` or before.
            listed: whether the reports of other processes count this one in.
            windows: as for `entry`.
        """
        found = replace(entry, trusted_until=asked_at + (self.untrusted_ttl if listed else 0.0), epoch=epoch)
        if not listed:
            found.untrusted_grace = 0.0
        return self._dated(_settled(found, windows), asked_at)

    def is_due(self, entry: Entry[V], now: float) -> bool:
        """Return whether an entry is old enough to be loaded again behind the answers it still gives."""
        return entry.value is not None and now >= self._due_at(entry)

    def _due_at(self, entry: Entry[V]) -> float:
        if entry.is_settling:
            return entry.expires_at
        return entry.loaded_at + self.refresh_ahead * (entry.expires_at - entry.loaded_at)

    def _dated(self, entry: Entry[V], asked_at: float) -> Entry[V]:
        # Unknown users are not refreshed: whoever floods us with names must not keep the source busy behind them.
        entry.ahead_at, entry.renew_at = entry.expires_at, entry.trusted_until
        if entry.value is not None:
            entry.ahead_at = self._due_at(entry)
            entry.renew_at = asked_at + self.refresh_ahead * (entry.trusted_until - asked_at)
        return entry


def _settled(entry: Entry[V], windows: Windows) -> Entry[V]:
    """End an entry with the first window that it was loaded in, without any grace."""
    end = end_of(windows, entry.loaded_at)
    if end < math.inf:
        entry.expires_at = min(entry.expires_at, max(entry.loaded_at, end))
        entry.grace = entry.untrusted_grace = 0.0
        entry.is_settling = True
    return entry


def judge(entry: Entry[V], now: float, trust: Trust) -> Verdict:
    """Return what an entry is good for at a monotonic time in seconds.

    Args:
        entry: what memory holds.
        now: monotonic seconds.
        trust: what is known of the channel.
    """
    # Before the epoch: a thread that ends trust begins with the deadline, and a proof of the next epoch is no proof of
    # this one.
    until = trust.until
    if now < entry.expires_at and entry.epoch == trust.epoch:
        if now < until:
            is_due = now >= entry.ahead_at or (now >= entry.renew_at and entry.trusted_until < trust.told_from)
            return Verdict.AHEAD if is_due else Verdict.FRESH
        if now < entry.trusted_until:
            return Verdict.FRESH if now < entry.ahead_at and now < entry.renew_at else Verdict.AHEAD
    elif now < entry.expires_at and entry.epoch == own_epoch(trust.epoch) and now < entry.trusted_until:
        return Verdict.FRESH if now < entry.ahead_at and now < entry.renew_at else Verdict.AHEAD
    return Verdict.STALE if now < stale_until(entry, trust) else Verdict.GONE


def stale_until(entry: Entry[V], trust: Trust) -> float:
    """Return the monotonic second after which an entry is not served even while the source is down."""
    return min(entry.expires_at + entry.grace, trust.of(entry) + entry.untrusted_grace)
