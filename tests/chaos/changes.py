"""How the database changes meanwhile, each change followed by an invalidation through any process that lives."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

import psycopg

from . import company
from .client import connected
from .fleet import Fleet, Instance, invalidate
from .history import History, Invalidated
from .tally import Tally

WORKERS: Final = 4
_CLEARED_SHARE: Final = 0.04
_SILENT_SHARE: Final = 0.1


class Changes:
    """Changes users and tells the fleet.

    Args:
        fleet: what is told.
        history: told of every change, and of every invalidation that reached Redis.
        tally: counts them.
        rng: decides who and when.
    """

    def __init__(self, fleet: Fleet, history: History, tally: Tally, rng: random.Random) -> None:
        self._fleet = fleet
        self._history = history
        self._tally = tally
        self._rng = rng
        self._locks: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def run(self, until: float, *, per_second: float) -> None:
        """Change users until a time of the monotonic clock, so often at most."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(WORKERS):
                tasks.create_task(self._work(until, per_second / WORKERS))

    async def _work(self, until: float, per_second: float) -> None:
        async with await psycopg.AsyncConnection.connect(self._fleet.project.dsn, autocommit=True) as database:
            while (left := until - time.monotonic()) > 0:
                await asyncio.sleep(min(left, self._rng.expovariate(per_second)))
                user = int(company.USERS * self._rng.random() ** 2)
                async with self._locks[user]:
                    await company.change(database, user, self._history.changing(user))
                    self._history.changed(user)
                lot = self._rng.random()
                if lot > _SILENT_SHARE:
                    instance = self._rng.choice([each for each in self._fleet.instances if each.running] or [None])
                    await self.invalidate(instance, None if lot > 1 - _CLEARED_SHARE else user)

    async def invalidate(self, instance: Instance | None, user: int | None) -> bool:
        """Invalidate a user, or everybody, and return whether Redis was told."""
        if instance is None:
            return False
        versions = self._history.committed(range(company.USERS) if user is None else [user])
        began_at = time.monotonic()
        try:
            async with connected(instance.port) as connection:
                reply = await invalidate(connection, user)
        except (OSError, TimeoutError):
            self._tally.invalidations["no answer"] += 1
            return False
        self._tally.invalidations[f"{reply.status}"] += 1
        if reply.status == 200:
            confirmed = confirmed_by(reply.json())
            self._history.invalidated(Invalidated(versions, began_at, time.monotonic(), confirmed))
        elif reply.status != 502:
            self._tally.unexpected(f"instance {instance.slot} answered an invalidation with {reply}")
        return reply.status == 200


def confirmed_by(report: Mapping[str, Any]) -> frozenset[int]:
    """Return the processes that a report of an invalidation says have confirmed it."""
    return frozenset(int(pid) for each in report["confirmed"] for pid in re.findall(r"\bpid (\d+)", str(each)))
