"""What is taken into memory though nobody asked for it: kept only where no news of it came meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Generic, TypeVar

from ..collectable import CollectableLock
from .base import Entry, Key
from .names import digest_of

V = TypeVar("V")


class Refill(Generic[V]):
    """One look-up of users whose names are known only from its answer, and the news that came since it began.

    Args:
        lock: holds up news while entries are kept.
        put: keeps an entry where nobody is in its place.
    """

    def __init__(self, lock: AbstractContextManager[None], put: Callable[[Key, Entry[V]], bool]) -> None:
        self._lock = lock
        self._put = put
        self._news: set[bytes] = set()
        self._everyone = False

    def hear(self, digest: bytes | None) -> None:
        """Take note of news of a name, or of everyone."""
        if digest is None:
            self._everyone = True
        else:
            self._news.add(digest)

    def keep(self, entries: Sequence[tuple[Key, Entry[V]]]) -> int:
        """Keep those of whom there was no news, and return how many."""
        with self._lock:
            if self._everyone:
                return 0
            return sum([self._put(key, entry) for key, entry in entries if digest_of(key[1]) not in self._news])


class Refills(Generic[V]):
    """All refills under way.

    Args:
        put: keeps an entry where nobody is in its place.
    """

    def __init__(self, put: Callable[[Key, Entry[V]], bool]) -> None:
        self._put = put
        self._lock = CollectableLock()
        self._under_way: set[Refill[V]] = set()

    @contextmanager
    def begin(self) -> Iterator[Refill[V]]:
        """Note what is heard from now on."""
        refill: Refill[V] = Refill(self._lock, self._put)
        with self._lock:
            self._under_way.add(refill)
        try:
            yield refill
        finally:
            self._lock.soon(partial(self._under_way.discard, refill))

    def hear(self, digest: bytes | None) -> None:
        """Take note of news of a name, or of everyone where it is None; before whatever is in memory is forgotten."""
        with self._lock:
            for refill in list(self._under_way):
                refill.hear(digest)
