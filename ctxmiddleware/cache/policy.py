"""How long a value may be served: pure functions of a policy and the time."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TypeVar

from ..errors import ConfigurationError
from .base import Entry, Fence

V = TypeVar("V")

LONGEST = 365 * 86400.0


class Verdict(Enum):
    """What an entry is good for now."""

    FRESH = auto()  # serve it
    STALE = auto()  # past its time, or past the trust in it: serve it only where the source cannot answer
    GONE = auto()  # never serve it


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How long contexts live, and how many.

    Args:
        ttl: seconds a context is served before its source is asked again.
        negative_ttl: seconds an unknown user is remembered.
        stale_for: seconds past its time that a context is still served while the source is down; 0 for never.
        untrusted_ttl: seconds memory is trusted without having asked Redis whether there was an invalidation.
        load_timeout: seconds a load may take in all before its callers are told that the source is unavailable.
        max_loads: loads of one event loop that may ask the source at the same time.
        max_users: entries kept in memory.
        max_bytes: bytes kept in memory.

    Raises:
        ConfigurationError: a value is out of its range.
    """

    ttl: float = 900.0
    negative_ttl: float = 60.0
    stale_for: float = 300.0
    untrusted_ttl: float = 5.0
    load_timeout: float = 30.0
    max_loads: int = 64
    max_users: int = 100_000
    max_bytes: int = 256 * 1024 * 1024

    def __post_init__(self) -> None:
        faults = [
            f"CachePolicy.{name} was {value!r}, must be a number of seconds over 0 and at most {LONGEST:.0f}"
            for name in ("ttl", "negative_ttl", "untrusted_ttl", "load_timeout")
            if not 0 < (value := getattr(self, name)) <= LONGEST
        ]
        if not 0 <= self.stale_for <= LONGEST:
            faults.append(
                f"CachePolicy.stale_for was {self.stale_for!r}, must be a number of seconds from 0 to {LONGEST:.0f}"
            )
        faults += [
            f"CachePolicy.{name} was {value!r}, must be 1 or more"
            for name in ("max_loads", "max_users", "max_bytes")
            if (value := getattr(self, name)) < 1
        ]
        if faults:
            raise ConfigurationError(*faults)

    def lifetime(self, *, known: bool, ttl: float | None = None) -> float:
        """Return the seconds a value is served: the source's own `ttl` where it gave one, `LONGEST` at most."""
        if ttl is None:
            return self.ttl if known else self.negative_ttl
        # A source that counts down to a time of its own may be past it already, and NaN compares with nothing.
        return min(ttl, LONGEST) if ttl > 0 else 0.0

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
        fence: Fence | None = None,
        age: float = 0.0,
    ) -> Entry[V]:
        """Return the entry of a value.

        Args:
            value: what was loaded; None for an unknown name.
            origin: where it came from.
            asked_at: monotonic seconds before the tier or the source was asked: what happened since may be missed.
            lifetime: seconds it is served from the time its source was asked.
            shared: whether other processes can invalidate it, which ends trust in it after `untrusted_ttl`.
            fence: the generations it was loaded under.
            age: seconds between asking the source and `asked_at`.
        """
        loaded_at = asked_at - age
        expires_at = loaded_at + lifetime
        trusted_until = asked_at + self.untrusted_ttl if shared else math.inf
        stale_until = self._stale_until(value, expires_at, trusted_until)
        return Entry(value, origin, loaded_at, expires_at, trusted_until, stale_until, fence)

    def confirmed(self, entry: Entry[V], asked_at: float) -> Entry[V]:
        """Return an entry whose generations were found unchanged.

        Args:
            entry: what memory holds.
            asked_at: monotonic seconds before Redis was asked.
        """
        trusted_until = asked_at + self.untrusted_ttl
        stale_until = self._stale_until(entry.value, entry.expires_at, trusted_until)
        return replace(entry, trusted_until=trusted_until, stale_until=stale_until)

    def _stale_until(self, value: object, expires_at: float, trusted_until: float) -> float:
        return min(expires_at, trusted_until) + self.grace(known=value is not None)


def judge(entry: Entry[V], now: float) -> Verdict:
    """Return what an entry is good for at a monotonic time in seconds."""
    if now < entry.expires_at and now < entry.trusted_until:
        return Verdict.FRESH
    return Verdict.STALE if now < entry.stale_until else Verdict.GONE
