"""What the processes hold when nothing is asked: tasks and connections, which must not grow by what has failed."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import redis

from . import company
from .changes import Changes
from .fleet import RECYCLE, Fleet, Instance

# More than Redis connections there may be, each of them busy at the same time.
_AT_ONCE: Final = 40
_SLOW: Final = 0.04
_QUIET: Final = RECYCLE + 30.0


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
class Held:
    """What is held in all.

    Args:
        levels: by each process.
        valkey: clients that Valkey counts.
        front: connections of clients that the front counts.
    """

    levels: tuple[Level, ...]
    valkey: int
    front: int


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


async def settled(fleet: Fleet) -> Held:
    """Return what is held once no process holds a connection to the source any more, or still then."""
    return await _held_once(fleet, lambda found: not any(each.source for each in found.levels))


async def leaks_since(before: Held, fleet: Fleet) -> Leaks:
    """Return what there is more of than before, and still is after a quiet time."""
    return leaks(before, await _held_once(fleet, lambda found: leaks(before, found) == Leaks()))


async def _held_once(fleet: Fleet, are_good: Callable[[Held], bool]) -> Held:
    end = time.monotonic() + _QUIET
    while True:
        found = Held(tuple([await _level(each) for each in fleet.instances]), *await asyncio.to_thread(_served, fleet))
        if time.monotonic() > end or are_good(found):
            return found
        await asyncio.sleep(0.1)


def _served(fleet: Fleet) -> tuple[int, int]:
    with redis.Redis.from_url(fleet.valkey.url, socket_timeout=30) as client:
        # All but the one that asks.
        clients = len(client.client_list()) - 1
    return clients, fleet.front.counts().connections


def leaks(before: Held, after: Held) -> Leaks:
    """Return what there is more of: tasks than the place had, sockets than any place had, and what servers hold."""
    tasks = 0
    told: list[str] = []
    grown: dict[str, int] = {
        "Valkey: clients": after.valkey - before.valkey,
        "the front: connections": after.front - before.front,
    }
    for slot, (earlier, later) in enumerate(zip(before.levels, after.levels, strict=True)):
        more = later.tasks - earlier.tasks
        tasks += more.total()
        told += [f"instance {slot}: {count} more tasks of {kind}" for kind, count in more.items()]
        for what in ("redis", "source", "others"):
            # Places are alike, but one may not have opened all that it may.
            most = max(getattr(each, what) for each in before.levels)
            grown[f"instance {slot}: sockets ({what})"] = getattr(later, what) - most
    leaked = {what: count for what, count in grown.items() if count > 0}
    told += [f"{what}: {count} more" for what, count in leaked.items()]
    return Leaks(tasks, sum(leaked.values()), tuple(told))
