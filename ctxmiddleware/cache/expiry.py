"""Who is past every use, found without searching: keys by the time they die."""

from __future__ import annotations

import heapq

from .base import Entry, Key

GRAIN_SECONDS = 5


class Expiry:
    """Keys in buckets by the time their entries are of no use any more, the earliest first.

    A bucket is `GRAIN_SECONDS` wide and due when the last of it is dead, so nothing is ever searched or sorted whole.
    """

    def __init__(self) -> None:
        self._buckets: dict[int, dict[Key, None]] = {}
        self._order: list[int] = []

    def add(self, key: Key, entry: Entry[object]) -> None:
        """Note when a key dies."""
        place = _bucket(entry)
        bucket = self._buckets.get(place)
        if bucket is None:
            bucket = self._buckets[place] = {}
            heapq.heappush(self._order, place)
        bucket[key] = None

    def remove(self, key: Key, entry: Entry[object]) -> None:
        """Forget a key that was added with this entry."""
        self._buckets[_bucket(entry)].pop(key, None)

    def clear(self) -> list[dict[Key, None]]:
        """Forget all keys, and return what held them."""
        former = list(self._buckets.values())
        self._buckets, self._order = {}, []
        return former

    def dead(self, now: float) -> Key | None:
        """Return a key that is dead at a monotonic time in seconds, or None; it stays until it is removed."""
        while self._order and (self._order[0] + 1) * GRAIN_SECONDS <= now:
            bucket = self._buckets[self._order[0]]
            if bucket:
                return next(iter(bucket))
            del self._buckets[heapq.heappop(self._order)]
        return None


def _bucket(entry: Entry[object]) -> int:
    return int((entry.expires_at + entry.grace) // GRAIN_SECONDS)
