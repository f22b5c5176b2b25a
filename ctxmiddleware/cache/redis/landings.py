"""Who waits for loads of other instances, and is woken when they land."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import anyio

from ...bell import Bell
from ...collectable import CollectableLock
from ..base import Key


class Landing:
    """What one task waits for: some keys, whose loads by other instances land one after the other."""

    def __init__(self) -> None:
        self._landed: set[Key] = set()
        self._bell = Bell()

    def landed(self, key: Key) -> None:
        """Take note, in whichever thread, that a load has landed."""
        self._landed.add(key)
        self._bell.ring()

    async def next(self, seconds: float) -> set[Key]:
        """Wait so many seconds at most, and return the keys that have landed since the last call."""
        with anyio.move_on_after(max(0.0, seconds)):
            while not self._landed:
                await self._bell.wait()
        landed, self._landed = self._landed, set()
        return landed


class Landings:
    """All who wait in this process, by what the news call the keys they wait for.

    Args:
        called: returns what the news call a key.
    """

    def __init__(self, called: Callable[[Key], bytes]) -> None:
        self._called = called
        self._lock = CollectableLock()
        self._waiting: dict[bytes, list[tuple[Key, Landing]]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    @contextmanager
    def of(self, keys: Sequence[Key]) -> Iterator[Landing]:
        """Listen for loads of these keys; begun before somebody is known to load, so that no landing is missed."""
        landing = Landing()
        names = {self._called(key): key for key in keys}
        with self._lock:
            for name, key in names.items():
                self._waiting.setdefault(name, []).append((key, landing))
        try:
            yield landing
        finally:
            self._lock.soon(partial(self._leave, names, landing))

    def landed(self, names: Iterable[bytes]) -> None:
        """Wake whoever waits for these."""
        for name in names:
            for key, landing in self._waiting.get(name, ()):
                landing.landed(key)

    def _leave(self, names: Mapping[bytes, Key], landing: Landing) -> None:
        for name, key in names.items():
            self._forget(name, key, landing)

    def _forget(self, name: bytes, key: Key, landing: Landing) -> None:
        rest = [each for each in self._waiting[name] if each != (key, landing)]
        if rest:
            self._waiting[name] = rest
        else:
            del self._waiting[name]
