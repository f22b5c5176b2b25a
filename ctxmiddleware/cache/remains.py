"""What was forgotten all at once, and is freed a little at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, MutableMapping
from typing import Any


class Remains:
    """Mappings nobody reads any more: freeing a hundred thousand contexts at once would hold up the event loop."""

    def __init__(self) -> None:
        self._mappings: deque[MutableMapping[Any, Any]] = deque()

    def __len__(self) -> int:
        return sum(map(len, self._mappings))

    def take(self, mappings: Iterable[MutableMapping[Any, Any]]) -> None:
        """Take over mappings."""
        self._mappings.extend(mappings)

    def free(self, count: int) -> None:
        """Free so many of their items."""
        for _ in range(count):
            while self._mappings and not self._mappings[0]:
                self._mappings.popleft()
            if not self._mappings:
                return
            self._mappings[0].popitem()
