"""One run from its beginning to its end: the load, the changes and the faults, and what is left afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from . import company
from .changes import Changes
from .chaos import Chaos
from .client import Connection, connected
from .faults import PARTITIONS, begin, heal
from .fleet import UNTRUSTED_TTL, Fleet
from .forks import Forks
from .history import History
from .leaks import filled, leaks_since, settled
from .load import Load
from .logs import unhandled
from .report import Report
from .tally import Tally

_RECOVERS_WITHIN: Final = 60.0
_STRETCHES: Final = 10
_LONG: Final = 120.0


@dataclass(frozen=True)
class Options:
    """How a run goes.

    Args:
        seconds: for how long things fail; from 120 on instances are also cut off for more than a minute.
        seed: decides who is asked, what fails and when; the same seed gives the same draws, not the same moments.
        per_second: requests at most.
        changes_per_second: changes of the database at most.
        is_enough: whether what happened proves anything; where it does not, things fail for as long again.
    """

    seconds: float = 60.0
    seed: int = 0
    per_second: float = 200.0
    changes_per_second: float = 12.0
    is_enough: Callable[[Tally], bool] = lambda tally: True


def run(options: Options) -> Report:
    """Start a fleet, let it fail, and return what was found."""
    with Fleet.start() as fleet:
        return asyncio.run(Run(fleet, options).run())


class Run:
    """One run on a fleet.

    Args:
        fleet: the fleet, as it was started.
        options: how it goes.
    """

    def __init__(self, fleet: Fleet, options: Options) -> None:
        seeds = random.Random(options.seed)
        self._fleet = fleet
        self._options = options
        self._history = History(UNTRUSTED_TTL)
        self._tally = Tally()
        self._load = Load(fleet, self._history, self._tally, random.Random(seeds.random()))
        self._changes = Changes(fleet, self._history, self._tally, random.Random(seeds.random()), self._load)
        partitions = PARTITIONS if options.seconds >= _LONG else ()
        self._chaos = Chaos(fleet, self._history, self._tally, random.Random(seeds.random()), partitions=partitions)
        self._forks = Forks(fleet, self._history, self._tally, random.Random(seeds.random()))

    async def run(self) -> Report:
        """Return what was found."""
        await filled(self._fleet, self._changes)
        before = await settled(self._fleet)
        await asyncio.to_thread(begin, self._fleet)
        try:
            for _ in range(_STRETCHES):
                await self._stretch()
                if self._options.is_enough(self._tally):
                    break
        except BaseException:
            # What ended the run is to be seen, and not what it has left behind.
            with contextlib.suppress(Exception):
                await asyncio.to_thread(heal, self._fleet)
            raise
        await asyncio.to_thread(heal, self._fleet)
        not_recovered = await self._not_recovered()
        found = await leaks_since(before, self._fleet)
        logs = [text for each in self._fleet.instances for text in unhandled(each.log.read_text(errors="replace"))]
        return Report(self._options.seed, self._options.seconds, self._tally, tuple(logs), found, tuple(not_recovered))

    async def _stretch(self) -> None:
        """Ask, change and let things fail for the seconds of the options."""
        until = time.monotonic() + self._options.seconds
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._load.run(until, per_second=self._options.per_second))
            tasks.create_task(self._changes.run(until, per_second=self._options.changes_per_second))
            tasks.create_task(self._chaos.run(until))
            tasks.create_task(self._forks.run(until))

    async def _not_recovered(self) -> list[str]:
        """Return which processes do not serve everybody's newest version soon after all works again."""
        end = time.monotonic() + _RECOVERS_WITHIN
        while not await self._changes.invalidate(self._fleet.instances[0], None):
            if time.monotonic() > end:
                return ["no invalidation reaches Redis again"]
            await asyncio.sleep(0.1)
        found = []
        for instance in self._fleet.instances:
            async with connected(instance.port) as connection:
                for user in range(company.USERS):
                    while not await self._serves_newest(connection, instance.slot, user):
                        if time.monotonic() > end:
                            found.append(f"instance {instance.slot} does not serve the newest of user {user}")
                            break
                        await asyncio.sleep(0.1)
        return found

    async def _serves_newest(self, connection: Connection, slot: int, user: int) -> bool:
        told = await self._load.ask(connection, slot, user, patient=True)
        newest = self._history.newest(user)
        if told is None or told.stale:
            return False
        return told.standing is company.standing(newest) and told.version in (newest, None)
