"""Who waits for news of which name, and is woken when what is known of it may have changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import anyio

from ..bell import Bell, ring_all
from ..collectable import CollectableLock
from .names import Names
from .trust import Trust

# Where there was a gap, and nothing is known to have happened in it: ten thousand watchers look again in five seconds.
SHARE = 100
SHARE_SECONDS = 0.05


class Watchers:
    """The bells of a process by name, rung from any thread.

    Args:
        digest: stands for a name in news of it; None where there are none.
    """

    def __init__(self, digest: Callable[[str], bytes] | None = None) -> None:
        self._lock = CollectableLock()
        self._bells: dict[str, set[Bell]] = {}
        self.names = None if digest is None else Names(digest)

    def __len__(self) -> int:
        with self._lock:
            return sum(map(len, self._bells.values()))

    def __repr__(self) -> str:
        return f"<Watchers: {len(self)} of {len(self._bells)} names>"

    @contextmanager
    def watching(self, name: str) -> Iterator[Bell]:
        """Wait for news of a name in the running event loop; begun before a look, so that none is missed after it."""
        bell = Bell()
        with self._lock:
            self._bells.setdefault(name, set()).add(bell)
            if self.names is not None:
                self.names.hold(name)
        try:
            yield bell
        finally:
            self._lock.soon(partial(self._leave, name, bell))

    def ring(self, name: str | None) -> None:
        """Wake those who wait for a name, or everybody where it is None; what they will see is in force already."""
        ring_all(self._of(name))

    def _of(self, name: str | None) -> list[Bell]:
        with self._lock:
            names = list(self._bells) if name is None else [name]
            return [bell for each in names for bell in self._bells.get(each, ())]

    def _leave(self, name: str, bell: Bell) -> None:
        if self.names is not None:
            self.names.release(name)
        self._bells[name].discard(bell)
        if not self._bells[name]:
            del self._bells[name]

    async def keep_asking(self, trust: Trust, clock: Callable[[], float]) -> None:
        """Wake everybody whenever trust in memory ends, until it is cancelled.

        While the channel is heard that never comes; once it is not, nobody tells them of what others invalidate. And by
        and by where there was a gap in which nobody told of generations that were touched by hand.

        Args:
            trust: how far memory is trusted.
            clock: monotonic seconds.
        """
        told: float | None = None
        told_from = trust.told_from
        while True:
            until = trust.until
            left = until - clock()
            if left <= 0 and until != told:
                told = until
                self.ring(None)
            if trust.told_from != told_from:
                told_from = trust.told_from
                await self._ring_slowly()
                continue
            await anyio.sleep(left if left > 0 else trust.lasts)

    async def _ring_slowly(self) -> None:
        """Wake everybody within some seconds: each of them looks into Redis."""
        bells = self._of(None)
        for start in range(0, len(bells), SHARE):
            ring_all(bells[start : start + SHARE])
            await anyio.sleep(SHARE_SECONDS)
