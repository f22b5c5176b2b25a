"""The tier in this process: bounded, synchronous, shared by threads."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from typing import Generic, TypeVar

from .base import Entry, Key

V = TypeVar("V")


class MemoryTier(Generic[V]):
    """Entries in memory, bounded by number and by bytes.

    Reads take no lock; inserts and evictions do. What leaves first is chosen by CLOCK (second chance): the oldest entry
    that was not read since the hand passed it last. An entry past every use leaves whether it was read or not.

    Args:
        max_entries: entries kept.
        max_bytes: bytes kept; an entry larger than that is not kept at all.
    """

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.bytes = 0
        self.evictions = 0
        self._lock = threading.Lock()
        # An ordinary dict would search ever further for its first key while the front is being emptied.
        self._entries: OrderedDict[Key, Entry[V]] = OrderedDict()
        self._partitions: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<MemoryTier: {len(self)} of {self.max_entries} entries, {self.bytes} of {self.max_bytes} bytes>"

    def get(self, key: Key) -> Entry[V] | None:
        """Return the entry of a key, fresh or not, or None."""
        entry = self._entries.get(key)
        if entry is not None:
            entry.visited = True
        return entry

    def put(self, key: Key, entry: Entry[V], now: float) -> None:
        """Keep an entry, in place of the key's former one, and evict what no longer fits.

        Args:
            key: its key.
            entry: what to keep; `entry.size` in bytes counts against the bound.
            now: monotonic seconds, to tell entries past every use.
        """
        with self._lock:
            self._remove(key)
            if entry.size > self.max_bytes:
                return
            # Room is made before the newcomer is in, or a full round of the hand would come to it first.
            while len(self._entries) >= self.max_entries or self.bytes + entry.size > self.max_bytes:
                self._evict(now)
            self._entries[key] = entry
            self._partitions[key[0]] += 1
            self.bytes += entry.size

    def discard(self, key: Key, entry: Entry[V]) -> None:
        """Forget an entry, unless another has taken its place."""
        with self._lock:
            if self._entries.get(key) is entry:
                self._remove(key)

    def drop(self, name: str) -> int:
        """Forget a name in every partition and return how many entries that were."""
        with self._lock:
            return sum([self._remove((partition, name)) for partition in list(self._partitions)])

    def clear(self) -> int:
        """Forget everything and return how many entries that were."""
        with self._lock:
            count = len(self._entries)
            self._entries.clear()
            self._partitions.clear()
            self.bytes = 0
            return count

    def _evict(self, now: float) -> None:
        key, entry = next(iter(self._entries.items()))
        if entry.visited and now < max(entry.expires_at, entry.stale_until):
            entry.visited = False
            self._entries.move_to_end(key)
        else:
            self._remove(key)
            self.evictions += 1

    def _remove(self, key: Key) -> bool:
        entry = self._entries.pop(key, None)
        if entry is None:
            return False
        self.bytes -= entry.size
        self._partitions[key[0]] -= 1
        if not self._partitions[key[0]]:
            del self._partitions[key[0]]
        return True
