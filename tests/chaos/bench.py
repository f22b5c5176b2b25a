"""What the bench session runs of the fleet: the chaos, four processes that miss together, and how soon all are told."""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
from typing import Any

from rich.console import Console

from . import company
from . import run as runs
from .client import connected
from .fleet import PLACES, Fleet, invalidate, together

COUNT = 250
SOURCE_MS = 100.0
INVALIDATIONS = 500


def run(seconds: float) -> list[dict[str, object]]:
    """Print what a run finds, and return its row."""
    report = runs.run(runs.Options(seconds=seconds, seed=random.SystemRandom().randrange(1_000_000)))
    report.show(Console(width=140))
    return report.rows()


def misses(count: int = COUNT) -> list[dict[str, object]]:
    """Return what it costs when every process misses one user so many times at the same moment."""
    with Fleet.start() as fleet:
        fleet.front.delay(SOURCE_MS)
        # Each user once, and the first only to let the processes open their connections.
        return [_row(fleet, user, count) for user in range(4)][1:]


def told(count: int = INVALIDATIONS) -> list[dict[str, object]]:
    """Return after how many milliseconds the last of the other processes had confirmed an invalidation by the first."""
    with Fleet.start(redis_seconds=10.0) as fleet:
        last = asyncio.run(_confirmed_last(fleet, count))
    cuts = statistics.quantiles(last, n=100)
    return [
        {
            "invalidations": len(last),
            "p50 ms": round(statistics.median(last), 2),
            "p99 ms": round(cuts[98], 2),
            "slowest ms": round(max(last), 2),
        }
    ]


async def _confirmed_last(fleet: Fleet, count: int) -> list[float]:
    """Invalidate users whom every process has in memory, one after the other."""
    others = {instance.pid for instance in fleet.instances[1:]}
    found: list[float] = []
    async with connected(fleet.instances[0].port) as connection:
        for number in itertools.count():
            user = number % company.USERS
            for instance in fleet.instances:
                await instance.ask("/me", asks=company.address(user))
            report = (await invalidate(connection, user, timeout=60.0)).json()
            _, *confirmed = report["confirmed"]
            is_heard = {int(each["instance"].split(":")[1]) for each in confirmed} == others
            # From the first on that reached every process, which is when all of them hear the channel.
            assert is_heard or not found, report
            if is_heard:
                found.append(max(each["ms"] for each in confirmed))
            if len(found) == count:
                break
    return found


def _row(fleet: Fleet, user: int, count: int) -> dict[str, object]:
    before = fleet.front.counts().requests
    answers = asyncio.run(together(fleet, user, count))
    calls = fleet.front.counts().requests - before
    # What the source takes, as one caller sees it, whom nobody else asks beside.
    (alone,) = asyncio.run(together(fleet, company.USERS - 1 - user, 1, instances=fleet.instances[:1]))
    return {
        "misses": f"{PLACES} x {count}",
        "calls of the source": calls,
        "slowest ms": round(1000 * max(each["slowest"] for each in answers)),
        "of one miss alone ms": round(1000 * alone["slowest"]),
        "origins": _sum(each["origins"] for each in answers),
    }


def _sum(origins: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for each in origins:
        for origin, count in each.items():
            found[origin] = found.get(origin, 0) + count
    return found
