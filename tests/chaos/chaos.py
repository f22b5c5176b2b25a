"""When which fault comes: from a shuffled deck, a few at a time, in one place or two, no two on the same part."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

from .faults import KINDS, Kind
from .fleet import Fleet
from .history import History
from .tally import Tally

LANES: Final = 3
_PAUSE: Final = 1.0
_TWICE_SHARE: Final = 0.5
# Else the list of instances would always be so young that one may be missing, which would excuse those that are.
_LIST_LOST_EVERY: Final = 3


class Chaos:
    """Lets the fleet's parts fail.

    Args:
        fleet: whose.
        history: told of what fails, and of the processes that begin.
        tally: counts the faults.
        rng: decides what, where and how long.
        kinds: what may happen.
        partitions: what happens beside that, each as often as there is time for it.
    """

    def __init__(
        self,
        fleet: Fleet,
        history: History,
        tally: Tally,
        rng: random.Random,
        *,
        kinds: Sequence[Kind] = KINDS,
        partitions: Sequence[Kind] = (),
    ) -> None:
        self._fleet = fleet
        self._history = history
        self._tally = tally
        self._rng = rng
        self._kinds = kinds
        self._partitions = partitions
        self._deck: list[Kind] = []
        # An instance that is cut off leaves a list that is old before that is lost.
        self._rounds = 1 if partitions else 0
        self._touched: set[str] = set()

    async def run(self, until: float) -> None:
        """Let things fail until a time of the monotonic clock; all work again when this returns."""
        async with asyncio.TaskGroup() as tasks:
            for kind in self._partitions:
                tasks.create_task(self._part(kind, until))
            for _ in range(LANES):
                tasks.create_task(self._lane(until))

    async def _part(self, kind: Kind, until: float) -> None:
        while (left := until - time.monotonic()) > kind.longest:
            await asyncio.sleep(self._rng.uniform(0, min(left - kind.longest, 10.0)))
            slots = self._free(kind, 1)
            while not slots and until - time.monotonic() > kind.longest:
                await asyncio.sleep(0.1)
                slots = self._free(kind, 1)
            if slots:
                await self._fail(kind, slots, until)

    async def _lane(self, until: float) -> None:
        while (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, self._rng.uniform(0, 2 * _PAUSE)))
            kind, slots = self._drawn()
            if kind is not None and time.monotonic() < until:
                await self._fail(kind, slots, until)

    def _drawn(self) -> tuple[Kind | None, Sequence[int]]:
        """Return the next kind that can come now, and where: all of them come before one comes again.

        Kinds by which the list of instances is lost are left out of two rounds in three.
        """
        if not self._deck:
            may_lose_it = self._rounds % _LIST_LOST_EVERY == 0
            self._deck = [kind for kind in self._kinds if may_lose_it or not kind.loses_the_list]
            self._rounds += 1
            self._rng.shuffle(self._deck)
        count = 2 if self._rng.random() < _TWICE_SHARE else 1
        for kind in self._deck:
            slots = self._free(kind, count if kind.is_of_one_place else 1)
            if slots:
                self._deck.remove(kind)
                return kind, slots
        return None, ()

    def _free(self, kind: Kind, count: int) -> Sequence[int]:
        """Return so many places, or fewer, in which nothing fails that a kind works on."""
        slots = list(range(len(self._fleet.instances)))
        self._rng.shuffle(slots)
        return [slot for slot in slots if not kind.touched(slot) & self._touched][:count]

    async def _fail(self, kind: Kind, slots: Sequence[int], until: float) -> None:
        lasts = min(kind.lasts(self._rng), max(0.0, until - time.monotonic()))
        touched = frozenset[str]().union(*map(kind.touched, slots))
        instances = [self._fleet.instances[slot] for slot in slots]
        pids = [each.pid for each in instances]
        self._touched |= touched
        self._tally.began(kind.name, len(slots))
        self._tally.happened(f"{kind.name} {slots} begins")
        places = {place for slot in slots for place in kind.places(slot)}
        stretches = [self._history.disturbed(part, places, time.monotonic()) for part in kind.felt]
        began_at = time.monotonic()
        faults = ExitStack()
        try:
            for slot in slots:
                await asyncio.to_thread(faults.enter_context, kind.act(self._fleet, slot, self._rng))
            if not any(each.running for each in instances):
                began_at = time.monotonic()
            await asyncio.sleep(lasts)
        finally:
            await asyncio.to_thread(faults.close)
            self._touched -= touched
            self._tally.ended(kind.name)
        for instance, pid in zip(instances, pids, strict=True):
            if instance.pid != pid:
                self._history.started(instance.pid, began_at)
        for stretch in stretches:
            self._history.recovered(stretch, time.monotonic())
        self._tally.happened(f"{kind.name} {slots} ends")
