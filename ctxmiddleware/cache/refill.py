"""What is taken into memory though nobody asked for it: kept only where no news of it came meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeAlias, TypeVar

from .base import Entry, Key
from .names import digest_of

V = TypeVar("V")

News: TypeAlias = set[bytes | None]
"""Digests of names of which there was news; None stands for all names."""


class Refill(Generic[V]):
    """A look-up of users whose names are known only from its answer, and the news that came since it began.

    One at a time: of two that overlap the first keeps nothing.

    Args:
        put: keeps an entry where nobody is in its place.
    """

    def __init__(self, put: Callable[[Key, Entry[V]], bool]) -> None:
        self._put = put
        self._lock = threading.Lock()
        self._news: News | None = None

    @contextmanager
    def begin(self) -> Iterator[News]:
        """Collect the news until the block ends."""
        news: News = set()
        self._news = news
        try:
            yield news
        finally:
            # Without the lock: the garbage collector may end the block in a thread that holds it.
            if self._news is news:
                self._news = None

    def hear(self, digest: bytes | None) -> None:
        """Take note of news of a name, or of everyone where it is None; before whatever is in memory is forgotten."""
        with self._lock:
            news = self._news
            if news is not None:
                news.add(digest)

    def keep(self, news: News, entries: Sequence[tuple[Key, Entry[V]]]) -> int:
        """Keep those of whom there was no news, and return how many; news that come meanwhile wait until it is done."""
        with self._lock:
            if news is not self._news or None in news:
                return 0
            return sum([self._put(key, entry) for key, entry in entries if digest_of(key[1]) not in news])
