"""What the bench session runs of the fleet: the chaos, and four processes that miss together."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from rich.console import Console

from . import run as runs
from .fleet import PLACES, Fleet, together

COUNT = 250
SOURCE_MS = 100.0


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


def _row(fleet: Fleet, user: int, count: int) -> dict[str, object]:
    before = fleet.front.counts().requests
    answers = asyncio.run(together(fleet, user, count))
    return {
        "misses": f"{PLACES} x {count}",
        "calls of the source": fleet.front.counts().requests - before,
        "slowest ms": round(1000 * max(each["slowest"] for each in answers)),
        "of which the source's ms": SOURCE_MS,
        "origins": _sum(each["origins"] for each in answers),
    }


def _sum(origins: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for each in origins:
        for origin, count in each.items():
            found[origin] = found.get(origin, 0) + count
    return found
