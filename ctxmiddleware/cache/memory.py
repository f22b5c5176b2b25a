"""The tier in this process: bounded, synchronous, shared by threads."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from .base import Entry, Key
from .expiry import Expiry
from .names import Names
from .remains import Remains
from .s3fifo import S3Fifo
from .sharing import Sharing
from .weight import weigh

V = TypeVar("V")

# Dead entries that leave at each put: more than come in, so that none waits for ever, and never a sweep of all.
BURIALS = 4
# Of what was cleared, items that are freed at each put.
FREED_AT_ONCE = 100
MAX_RECENT = 50_000
# Of the bytes, what unknown names may take from those who are known: with nothing, an unknown user who keeps asking
# would cost a load each time once memory is full.
UNKNOWN_SHARE = 1 / 16


class MemoryTier(Generic[V]):
    """Entries in memory, bounded by number and by bytes.

    Reads take no lock; inserts and evictions do. What is past every use leaves first, then unknown names, then whom
    S3-FIFO chooses. Unknown names have bounds of their own: a flood of them takes a sixteenth of the bytes at most from
    those who are known, and nothing while there is room.

    Args:
        max_entries: entries of known names kept.
        max_bytes: bytes kept; an entry that is larger, with the rows it shares, is not kept at all.
        max_unknown: names kept that the source does not know.
        share: types of rows that many values have in common, kept and counted once.
        digest: stands for a name in news of it; None where there are none.
    """

    def __init__(
        self,
        max_entries: int,
        max_bytes: int,
        *,
        max_unknown: int = 10_000,
        share: tuple[type, ...] = (),
        digest: Callable[[str], bytes] | None = None,
    ) -> None:
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.max_unknown = max_unknown
        self.evictions = 0
        self._recent: list[Key] = []
        self._bytes = 0
        self._unknown_bytes = 0
        self._lock = threading.Lock()
        self._entries: dict[Key, Entry[V]] = {}
        self._known: S3Fifo[V] = S3Fifo()
        self._unknown: OrderedDict[Key, None] = OrderedDict()
        self._expiry = Expiry()
        self._remains = Remains()
        self._sharing = Sharing(share)
        self._partitions: Counter[str] = Counter()
        self.names = None if digest is None else Names(digest)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<MemoryTier: {len(self)} of {self.max_entries} entries, {self.bytes} of {self.max_bytes} bytes>"

    @property
    def bytes(self) -> int:
        """Bytes it holds, rows that are shared counted once."""
        return self._bytes + self._sharing.bytes

    def partitions(self, limit: int) -> list[str]:
        """Return the partitions that entries are in, the empty one among them, and no more of them than a limit."""
        with self._lock:
            return list(dict.fromkeys(["", *self._partitions]))[:limit]

    def get(self, key: Key) -> Entry[V] | None:
        """Return the entry of a key, fresh or not, or None."""
        entry = self._entries.get(key)
        if entry is not None:
            entry.visited = True
            if not entry.recent:
                entry.recent = True
                self._note(key)
        return entry

    def _note(self, key: Key) -> None:
        # Where nobody is told, or not for long, it must not grow for ever.
        if self.names is not None and len(self._recent) < MAX_RECENT:
            self._recent.append(key)

    def take_recent(self, limit: int) -> list[Key]:
        """Return who was asked for since the last call, the last first, and no more of them than a limit."""
        recent, self._recent = self._recent, []
        keys = list(dict.fromkeys(reversed(recent)))
        for key in keys:
            entry = self._entries.get(key)
            if entry is not None:
                entry.recent = False
        return keys[:limit]

    def add(self, key: Key, entry: Entry[V], now: float) -> bool:
        """Keep an entry where there is none of its key, and room for it; return whether it was kept."""
        if key in self._entries or len(self._known) >= self.max_entries:
            return False
        self.put(key, entry, now)
        return True

    def put(self, key: Key, entry: Entry[V], now: float) -> None:
        """Keep an entry, in place of the key's former one, and evict what no longer fits.

        Args:
            key: its key.
            entry: what to keep; its times do not change while it is kept.
            now: monotonic seconds, to tell entries past every use.
        """
        if not entry.size:
            entry.size = weigh(key, entry, but=self._sharing.rows(entry.value))
        with self._lock:
            self._remains.free(FREED_AT_ONCE)
            for _ in range(BURIALS):
                self._bury(now)
            # Before anything has changed, because it may fail.
            value = self._sharing.take(entry.value)
            if entry.size + self._sharing.weight(value) > self.max_bytes:
                self._sharing.release(value)
                self._remove(key)
                return
            entry.value = value
            former = self._entries.get(key)
            if former is not None:
                entry.visited, entry.recent = former.visited, former.recent
            if former is not None and self._keeps_place(former, entry):
                self._replace(key, former, entry)
            else:
                self._remove(key)
                self._let_in(key, entry, now)

    def discard(self, key: Key, entry: Entry[V]) -> None:
        """Forget an entry, unless another has taken its place."""
        with self._lock:
            if self._entries.get(key) is entry:
                self._remove(key)

    def drop(self, name: str, spared: Callable[[Entry[V]], bool] | None = None) -> int:
        """Forget a name in every partition and return how many entries that were.

        Args:
            name: the name.
            spared: says of an entry whether it stays.
        """
        with self._lock:
            held = [entry for entry in self._of(name) if spared is None or not spared(entry[1])]
            return sum([self._remove(key) for key, _ in held])

    def change(self, name: str, change: Callable[[Entry[V]], None]) -> None:
        """Change the entries of a name, in every partition, where they are."""
        with self._lock:
            for _, entry in self._of(name):
                change(entry)

    def clear(self) -> int:
        """Forget everything and return how many entries that were; they are freed by and by, with later puts."""
        with self._lock:
            count = len(self._entries)
            self._remains.take([self._entries, self._unknown, *self._known.clear(), *self._expiry.clear()])
            self._entries, self._unknown = {}, OrderedDict()
            if self.names is not None:
                self._remains.take(self.names.clear())
            self._sharing.clear()
            self._partitions.clear()
            self._bytes = self._unknown_bytes = 0
            return count

    def _of(self, name: str) -> list[tuple[Key, Entry[V]]]:
        keys = [(partition, name) for partition in self._partitions]
        return [(key, self._entries[key]) for key in keys if key in self._entries]

    def _keeps_place(self, former: Entry[V], entry: Entry[V]) -> bool:
        # Who becomes known, or unknown, changes sides; and where room has to be made, that is before it is in.
        is_on_its_side = (former.value is None) is (entry.value is None)
        return is_on_its_side and self.bytes - former.size + entry.size <= self.max_bytes

    def _replace(self, key: Key, former: Entry[V], entry: Entry[V]) -> None:
        self._let_go(key, former)
        self._hold(key, entry)
        if entry.value is not None:
            self._known.add(key, entry)

    def _let_in(self, key: Key, entry: Entry[V], now: float) -> None:
        is_full = self.bytes + entry.size > self.max_bytes
        if is_full and entry.value is None and entry.size > UNKNOWN_SHARE * self.max_bytes:
            return
        # Room is made before the newcomer is in, or it would be the first to be asked to leave.
        self._make_room(entry, now)
        self._hold(key, entry)
        self._partitions[key[0]] += 1
        if self.names is not None:
            self.names.hold(key[1])
        if entry.value is None:
            self._unknown[key] = None
        else:
            self._known.add(key, entry)

    def _hold(self, key: Key, entry: Entry[V]) -> None:
        self._expiry.add(key, entry)  # type: ignore[arg-type]  # it reads times only
        self._bytes += entry.size
        self._unknown_bytes += entry.size if entry.value is None else 0
        # Where there is no fleet nobody is told whom it was asked for, and nothing would empty the list.
        entry.recent = entry.recent or self.names is None
        self._entries[key] = entry

    def _let_go(self, key: Key, entry: Entry[V]) -> None:
        self._sharing.release(entry.value)
        self._expiry.remove(key, entry)  # type: ignore[arg-type]  # it reads times only
        self._bytes -= entry.size
        self._unknown_bytes -= entry.size if entry.value is None else 0

    def _make_room(self, entry: Entry[V], now: float) -> None:
        is_unknown = entry.value is None
        while len(self._unknown) >= self.max_unknown if is_unknown else len(self._known) >= self.max_entries:
            self._evict(now, unknown=is_unknown)
        while self._entries and self.bytes + entry.size > self.max_bytes:
            is_over = self._unknown_bytes + entry.size > UNKNOWN_SHARE * self.max_bytes
            self._evict(now, unknown=bool(self._unknown) and (is_over or not is_unknown))

    def _evict(self, now: float, *, unknown: bool) -> None:
        if self._bury(now):
            return
        self._remove(next(iter(self._unknown)) if unknown else self._known.evict())
        self.evictions += 1

    def _bury(self, now: float) -> bool:
        dead = self._expiry.dead(now)
        return dead is not None and self._remove(dead)

    def _remove(self, key: Key) -> bool:
        entry = self._entries.pop(key, None)
        if entry is None:
            return False
        self._let_go(key, entry)
        if entry.value is None:
            self._unknown.pop(key, None)
        else:
            self._known.remove(key)
        if self.names is not None:
            self.names.release(key[1])
        self._partitions[key[0]] -= 1
        if not self._partitions[key[0]]:
            del self._partitions[key[0]]
        return True
