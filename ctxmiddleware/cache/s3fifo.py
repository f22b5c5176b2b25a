"""Who leaves when there is no room: S3-FIFO, three queues that need no lock to be read past."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Generic, TypeVar

from .base import Entry, Key

V = TypeVar("V")

# Of all keys, how many may be newcomers that were not asked for again yet (the paper's 10 %).
NEWCOMERS = 0.1


class S3Fifo(Generic[V]):
    """Queues of keys by how they are used: newcomers, those asked for again, and ghosts of newcomers that left.

    Newcomers that nobody asks for again leave first, so that a flood of them does not drive out the rest; one that
    comes back soon after it left is taken for regular at once. After "FIFO queues are all you need for cache eviction"
    (Yang et al., SOSP 2023), with one bit an entry, `Entry.visited`, which readers set without a lock. There is as much
    room as there are keys when one has to leave, whether their number or their bytes set the limit.
    """

    def __init__(self) -> None:
        # Ordinary dicts would search ever further for their first key while the front is being emptied.
        self._newcomers: OrderedDict[Key, Entry[V]] = OrderedDict()
        self._regulars: OrderedDict[Key, Entry[V]] = OrderedDict()
        # Hashes, not keys: a ghost that is taken for another only comes in by the better door.
        self._ghosts: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._newcomers) + len(self._regulars)

    def add(self, key: Key, entry: Entry[V]) -> None:
        """Take in a key; one that is there keeps its place."""
        if key in self._newcomers:
            self._newcomers[key] = entry
        elif key in self._regulars or self._ghosts.pop(hash(key), self) is None:
            self._regulars[key] = entry
        else:
            self._newcomers[key] = entry

    def remove(self, key: Key) -> None:
        """Forget a key, if it is there."""
        if self._newcomers.pop(key, None) is None:
            self._regulars.pop(key, None)

    def clear(self) -> list[OrderedDict[Any, Any]]:
        """Forget all keys, and return what held them."""
        former: list[OrderedDict[Any, Any]] = [self._newcomers, self._regulars, self._ghosts]
        self._newcomers, self._regulars, self._ghosts = OrderedDict(), OrderedDict(), OrderedDict()
        return former

    def evict(self) -> Key:
        """Forget the key that is worth least, and return it.

        Raises:
            KeyError: there is none.
        """
        while True:
            if self._newcomers and len(self._newcomers) >= NEWCOMERS * len(self):
                key, entry = self._newcomers.popitem(last=False)
                if not entry.visited:
                    self._haunt(key)
                    return key
            else:
                key, entry = self._regulars.popitem(last=False)
                if not entry.visited:
                    return key
            entry.visited = False
            self._regulars[key] = entry

    def _haunt(self, key: Key) -> None:
        self._ghosts[hash(key)] = None
        while len(self._ghosts) > len(self) + 1:
            self._ghosts.popitem(last=False)
