"""Who was invalidated a short while ago, and must not be read from a replica that may not know it yet."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Final

from .. import forking

_MOST_INVALIDATED: Final = 10_000


class FreshlyInvalidated:
    """Whose context was invalidated within the lag of the replica; bounded, and rather for too many than too few.

    Args:
        lag: seconds a replica may be behind.
        clock: monotonic seconds.
    """

    def __init__(self, lag: float, clock: Callable[[], float]) -> None:
        self.behind = lag
        self._settle = 0.0
        self._clock = clock
        self._until: dict[str, float] = {}
        self._everybody_until = 0.0
        self.begin_anew()
        forking.register(self)

    def begin_anew(self) -> None:
        """Keep in a forked process what is known: the replica lags for it, too."""
        self._lock = threading.Lock()

    @property
    def _lag(self) -> float:
        return self.behind + self._settle if self.behind else 0.0

    def settle(self, seconds: float) -> None:
        """Add the time after an invalidation in which its transaction may still commit."""
        self._settle = max(self._settle, seconds)

    def note(self, email: str | None, ago: float) -> None:
        """Record that a normalised address, or every one where it is None, was invalidated so many seconds ago."""
        now = self._clock()
        until = now + self._lag - max(ago, 0.0)
        if until <= now:
            return
        with self._lock:
            self._forget(now)
            if email is None:
                self._everybody_until = max(self._everybody_until, until)
            elif len(self._until) < _MOST_INVALIDATED:
                self._extend(email, until)
            else:
                # Later than any that is noted, all of which it stands for.
                self._everybody_until = now + self._lag
                self._until.clear()

    def _extend(self, email: str, until: float) -> None:
        if until > self._until.get(email, -math.inf):
            # Taken out first: the oldest must stay in front.
            self._until.pop(email, None)
            self._until[email] = until

    def is_noted(self, email: str) -> bool:
        """Return whether a normalised address was invalidated within the lag."""
        now = self._clock()
        return now < self._everybody_until or now < self._until.get(email, now)

    def _forget(self, now: float) -> None:
        while self._until:
            oldest = next(iter(self._until))
            if self._until[oldest] > now:
                return
            del self._until[oldest]
