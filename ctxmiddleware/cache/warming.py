"""How the users who are asked for most come back into memory after a start, without asking the source."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

import anyio

from ..failure_log import log_failure
from ..stats import Counters
from .base import Entry
from .keeping import Keeping
from .memory import MemoryTier
from .policy import CachePolicy
from .shared import Recalled, SharedTier
from .trust import Trust

logger = logging.getLogger("ctxmiddleware.cache")

V = TypeVar("V")

# One command's worth: each holds up the event loop for about a millisecond.
CHUNK: Final = 100
REMEMBERED_EVERY_SECONDS: Final = 10.0
REMEMBERED_AT_ONCE: Final = 5_000


class Warming(Generic[V]):
    """Tells the shared tier whom this instance is asked for, and takes from it, at the start, whom the fleet was.

    What is taken is checked like every look-up: bound to its user, under the generations in force, and not kept where
    news of the user came meanwhile. It takes nobody's place in memory.

    Args:
        policy: how many.
        memory: the tier in this process.
        shared: the tier the fleet shares.
        keeping: keeps what is taken.
        trust: how far memory is trusted.
        counters: where events are counted.
        clock: monotonic seconds.
        every: seconds between two times that it tells whom it was asked for.
    """

    def __init__(
        self,
        policy: CachePolicy,
        memory: MemoryTier[V],
        shared: SharedTier[V],
        keeping: Keeping[V],
        trust: Trust,
        counters: Counters,
        clock: Callable[[], float],
        every: float = REMEMBERED_EVERY_SECONDS,
    ) -> None:
        self._policy = policy
        self._memory = memory
        self._shared = shared
        self._keeping = keeping
        self._trust = trust
        self._counters = counters
        self._clock = clock
        self._every = every
        self._has_begun = False

    async def run(self) -> None:
        """Warm memory, once in the life of the process, and then tell of its users until it is cancelled."""
        if not self._has_begun:
            self._has_begun = True
            try:
                await self.recall()
            except Exception as error:  # noqa: BLE001 - it is logged
                log_failure(logger, logging.ERROR, "memory was not warmed", error=error)
        while True:
            await anyio.sleep(self._every)
            await self.remember()

    async def remember(self) -> None:
        """Tell the shared tier who was asked for since the last time."""
        recent = self._memory.take_recent(REMEMBERED_AT_ONCE)
        if recent:
            await self._shared.remember(recent)

    async def recall(self) -> int:
        """Take into memory whom the fleet was asked for last, and return how many those are."""
        hottest = await self._shared.hottest(min(self._policy.warm_users, self._policy.max_users))
        taken = 0
        for start in range(0, len(hottest), CHUNK):
            taken += await self._recall(hottest[start : start + CHUNK])
        self._counters.add("load", "warmed", taken)
        if taken:
            logger.info("memory was warmed from Redis", extra={"users": taken})
        return taken

    async def _recall(self, names: Sequence[bytes]) -> int:
        epoch, asked_at, is_listed = self._trust.epoch, self._clock(), self._keeping.is_listed
        with self._keeping.refill.begin() as news:
            found = await self._shared.recall(names, self._keeping.keep_ms)
            looked = asked_at, self._clock()
            entries = [
                (each.key, self._entry(each, looked, epoch, listed=is_listed)) for each in found if each is not None
            ]
            timely = [(key, entry) for key, entry in entries if asked_at < entry.expires_at]
            return self._keeping.refill.keep(news, timely)

    def _entry(self, found: Recalled[V], looked: tuple[float, float], epoch: int, *, listed: bool) -> Entry[V]:
        stored = found.stored
        return self._policy.entry(
            stored.value,
            stored.origin,
            looked[0],
            stored.lifetime,
            shared=True,
            listed=listed,
            fence=found.look.fence,
            age=stored.age,
            epoch=epoch,
            windows=self._keeping.settling.windows(found.key[1], found.look, looked),
        )
