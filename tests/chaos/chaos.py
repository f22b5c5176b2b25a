"""When which fault comes: from a shuffled deck, a few at a time, no two on the same part."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Final

from .faults import KINDS, Kind
from .fleet import Fleet
from .history import History
from .tally import Tally

LANES: Final = 3
_PAUSE: Final = 0.6


class Chaos:
    """Lets the fleet's parts fail.

    Args:
        fleet: whose.
        history: told of what fails, and of the processes that begin.
        tally: counts the faults.
        rng: decides what, where and how long.
        kinds: what may happen.
    """

    def __init__(
        self, fleet: Fleet, history: History, tally: Tally, rng: random.Random, kinds: Sequence[Kind] = KINDS
    ) -> None:
        self._fleet = fleet
        self._history = history
        self._tally = tally
        self._rng = rng
        self._kinds = kinds
        self._deck: list[Kind] = []
        self._touched: set[str] = set()

    async def run(self, until: float) -> None:
        """Let things fail until a time of the monotonic clock; all work again when this returns."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(LANES):
                tasks.create_task(self._lane(until))

    async def _lane(self, until: float) -> None:
        while (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, self._rng.uniform(0, 2 * _PAUSE)))
            kind, slot = self._drawn()
            if kind is not None and time.monotonic() < until:
                await self._fail(kind, slot, until)

    def _drawn(self) -> tuple[Kind | None, int]:
        """Return the next kind that can come now: all of them come before one comes again."""
        if not self._deck:
            self._deck = list(self._kinds)
            self._rng.shuffle(self._deck)
        slot = self._rng.randrange(len(self._fleet.instances))
        for kind in self._deck:
            if not kind.touched(slot) & self._touched:
                self._deck.remove(kind)
                return kind, slot
        return None, slot

    async def _fail(self, kind: Kind, slot: int, until: float) -> None:
        lasts = min(self._rng.uniform(0.1, 1.0) * kind.longest, max(0.0, until - time.monotonic()))
        touched, pid = kind.touched(slot), self._fleet.instances[slot].pid
        self._touched |= touched
        self._tally.faults[kind.name] += 1
        self._tally.happened(f"{kind.name} ({slot}) begins")
        stretches = [self._history.disturbed(part, kind.places(slot), time.monotonic()) for part in kind.felt]
        began_at = time.monotonic()
        fault = kind.act(self._fleet, slot, self._rng)
        await asyncio.to_thread(fault.__enter__)
        try:
            if not self._fleet.instances[slot].running:
                began_at = time.monotonic()
            await asyncio.sleep(lasts)
        finally:
            await asyncio.to_thread(fault.__exit__, None, None, None)
            self._touched -= touched
        if "process" in kind.felt and self._fleet.instances[slot].pid != pid:
            self._history.started(self._fleet.instances[slot].pid, began_at)
        for stretch in stretches:
            self._history.recovered(stretch, time.monotonic())
        self._tally.happened(f"{kind.name} ({slot}) ends")
