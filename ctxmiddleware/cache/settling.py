"""Which loads may have read what a transaction has not committed yet: those within `settle` of an invalidation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from ..collectable import CollectableLock
from .base import HELD, UNBOUNDED, Window, Windows
from .names import digest_of
from .shared import Look

MOST_REMEMBERED: Final = 100_000

# After an invalidation of all names the windows end at so many different times, each for its share of the users: spread
# evenly, their loads would find no others to travel with.
MOMENTS: Final = 4


class Settling:
    """Invalidations that this process knows of: by announcements, and by looks into Redis.

    Args:
        settle: seconds after an invalidation in which its transaction may still commit; 0 switches it off.
        remember: seconds for which what was loaded in that time, by another instance too, may be found.
        clock: monotonic seconds.
    """

    def __init__(self, settle: float, remember: float, clock: Callable[[], float]) -> None:
        self._settle = settle
        self._remember = remember
        self._clock = clock
        self._lock = CollectableLock()
        self._at: dict[bytes, float] = {}
        self._everyone_at = -math.inf
        self._held: dict[bytes, int] = {}

    def __repr__(self) -> str:
        return f"<Settling: {len(self._at)} names, {len(self._held)} held>"

    @property
    def _knows(self) -> bool:
        return bool(self._at) or self._everyone_at > -math.inf

    def hear(self, digest: bytes | None) -> None:
        """Record an invalidation of a name, or of all names where it is None."""
        if not self._settle:
            return
        now = self._clock()
        with self._lock:
            if digest is None:
                self._everyone_at = now
                self._at.clear()
                return
            # Taken out first: the oldest must stay in front.
            self._at.pop(digest, None)
            self._at[digest] = now
            self._forget(now)

    def _forget(self, now: float) -> None:
        while self._at:
            oldest = next(iter(self._at))
            at = self._at[oldest]
            if len(self._at) > MOST_REMEMBERED:
                # It stands for all names from now on: too many are loaded again, and none too few.
                self._everyone_at = max(self._everyone_at, at)
            elif now < at + self._remember:
                return
            del self._at[oldest]

    def hold(self, names: Iterable[str]) -> None:
        """Keep nothing of names until they are released as often."""
        with self._lock:
            for name in names:
                digest = digest_of(name)
                self._held[digest] = self._held.get(digest, 0) + 1

    def release(self, names: Iterable[str]) -> None:
        """Take back what `hold` has begun; the garbage collector may do so too."""
        self._lock.soon(partial(self._release, tuple(names)))

    def _release(self, names: Iterable[str]) -> None:
        for name in names:
            digest = digest_of(name)
            self._held[digest] -= 1
            if not self._held[digest]:
                del self._held[digest]

    def windows(self, name: str, look: Look[Any] | None, looked: tuple[float, float]) -> Windows:
        """Return the windows of a name.

        Args:
            name: the name.
            look: the reply of Redis; None where Redis was not reachable.
            looked: monotonic seconds at which the look began and ended.
        """
        if (look is not None and look.is_held) or (self._held and digest_of(name) in self._held):
            return HELD
        return self.settles(name, look, looked)

    def settles(self, name: str, look: Look[Any] | None, looked: tuple[float, float]) -> Windows:
        """Return the windows of all names and of a name as if it was not held; arguments as of `windows`."""
        if not self._settle or ((look is None or look.moved_ago == math.inf) and not self._knows):
            return UNBOUNDED
        digest = digest_of(name)
        ago = (math.inf, math.inf) if look is None else (look.everyone_moved_ago, look.name_moved_ago)
        heard_at = self._everyone_at, self._at.get(digest, -math.inf)
        lengths = self._of_all(digest), self._settle
        return tuple(
            _window(heard + length, length - each, looked)
            for heard, each, length in zip(heard_at, ago, lengths, strict=True)
        )

    def _of_all(self, digest: bytes) -> float:
        return self._settle * (1 + int(digest[-2:], 16) % MOMENTS / MOMENTS)

    def windows_ms(self, name: str, windows: Windows, loaded_at: float) -> tuple[int | None, int | None]:
        """Return how many milliseconds after an invalidation of all names, and of a name, a loaded value is not kept.

        Args:
            name: the name.
            windows: as of `settles`.
            loaded_at: monotonic second at which it was loaded; None stands for a window that it was not loaded in.
        """
        lengths = self._of_all(digest_of(name)), self._settle
        found = [int(1000 * each) if loaded_at < w.latest else None for each, w in zip(lengths, windows, strict=False)]
        return (found[0], found[1]) if len(found) == len(lengths) else (None, None)

    def moved_ago(self, name: str, look: Look[Any] | None) -> float:
        """Return the seconds since a name, or all names, were invalidated, as far as is known; infinite if long ago."""
        ago = math.inf if look is None else look.moved_ago
        if self._knows:
            heard = max(self._at.get(digest_of(name), -math.inf), self._everyone_at)
            ago = min(ago, self._clock() - heard)
        return ago


def _window(heard: float, left: float, looked: tuple[float, float]) -> Window:
    if left == -math.inf:
        return Window(heard, heard)
    # An announcement that arrives late, or twice, defers no end that Redis knows.
    return Window(looked[0] + left, max(heard, looked[1] + left))
