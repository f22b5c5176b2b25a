"""What the processes hold when nothing is asked: tasks and connections, which must not grow by what has failed."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from . import company
from .changes import Changes
from .fleet import RECYCLE, Fleet, Instance

# More than Redis connections there may be, each of them busy at the same time.
_AT_ONCE: Final = 40
_SLOW: Final = 0.04
_QUIET: Final = RECYCLE + 6.0


@dataclass(frozen=True)
class Level:
    """What one process holds.

    Args:
        tasks: its tasks by the coroutine they run.
        redis: connections to Valkey, and sockets that lead nowhere: a connection that was lost while it was idle stays
            in its pool, as one of those, until its next use.
        source: connections to Supabase.
        others: sockets that lead elsewhere.
    """

    tasks: Counter[str]
    redis: int
    source: int
    others: int


@dataclass(frozen=True)
class Leaks:
    """What there is more of than before.

    Args:
        tasks: how many tasks.
        connections: how many connections and other sockets.
        told: each kind, in a line.
    """

    tasks: int = 0
    connections: int = 0
    told: tuple[str, ...] = ()


async def levels(fleet: Fleet) -> list[Level]:
    """Return what each process holds now."""
    return [await _level(each) for each in fleet.instances]


async def _level(instance: Instance) -> Level:
    found = await instance.level()
    sockets: dict[str, int] = found["sockets"]
    redis, source = (sockets.pop(str(link.port), 0) for link in (instance.redis, instance.source))
    redis += sockets.pop("0", 0)
    return Level(Counter(found["tasks"]), redis, source, sum(sockets.values()))


async def filled(fleet: Fleet, changes: Changes) -> None:
    """Let every process open as many connections to Redis as it may: those it keeps are no leak."""
    for instance in fleet.instances:
        await asyncio.to_thread(instance.redis.delay, _SLOW)
        # Many who are looked up at the same time travel over a connection of their own.
        everybody = map(company.address, range(company.USERS))
        await asyncio.gather(*(instance.ask("/me", asks=each) for each in everybody))

    for instance in fleet.instances:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(_AT_ONCE):
                tasks.create_task(changes.invalidate(instance, None))
    for instance in fleet.instances:
        await asyncio.to_thread(instance.redis.pass_through)


async def settled(fleet: Fleet) -> list[Level]:
    """Return what each process holds once it holds no connection to the source any more, or still then."""
    return await _levels_once(fleet, lambda found: not any(each.source for each in found))


async def leaks_since(before: Sequence[Level], fleet: Fleet) -> Leaks:
    """Return what there is more of than before, and still is after a quiet time."""
    return leaks(before, await _levels_once(fleet, lambda found: leaks(before, found) == Leaks()))


async def _levels_once(fleet: Fleet, are_good: Callable[[Sequence[Level]], bool]) -> list[Level]:
    end = time.monotonic() + _QUIET
    while True:
        found = await levels(fleet)
        if time.monotonic() > end or are_good(found):
            return found
        await asyncio.sleep(0.1)


def leaks(before: Sequence[Level], after: Sequence[Level]) -> Leaks:
    """Return what there is more of: tasks than this place had, and sockets than any place had."""
    tasks = connections = 0
    told = []
    for slot, (earlier, later) in enumerate(zip(before, after, strict=True)):
        more = later.tasks - earlier.tasks
        tasks += more.total()
        told += [f"instance {slot}: {count} more tasks of {kind}" for kind, count in more.items()]
        for what in ("redis", "source", "others"):
            # Places are alike, but one may not have opened all that it may.
            grown = getattr(later, what) - max(getattr(each, what) for each in before)
            if grown > 0:
                connections += grown
                told.append(f"instance {slot}: {grown} more sockets ({what}), now {later}")
    return Leaks(tasks, connections, tuple(told))
