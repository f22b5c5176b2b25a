"""How the database changes meanwhile, each change followed by an invalidation through any process that lives."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import psycopg

from . import company
from .client import connected
from .fleet import Fleet, Instance, invalidate
from .history import History, Invalidated
from .load import Load
from .tally import Tally

WORKERS: Final = 4
_RACED_SHARE: Final = 0.3
_UNTOLD_SHARE: Final = 0.1
_CLEARED_SHARE: Final = 0.04
_TRIES: Final = 4


class Changes:
    """Changes users and tells the fleet.

    Args:
        fleet: what is told.
        history: told of every change, and of every invalidation that reached Redis.
        tally: counts them.
        rng: decides who and when.
        load: asks for a user at the very moment of a change, now and then.
    """

    def __init__(self, fleet: Fleet, history: History, tally: Tally, rng: random.Random, load: Load) -> None:
        self._fleet = fleet
        self._history = history
        self._tally = tally
        self._rng = rng
        self._load = load
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
                user, lot = int(company.USERS * self._rng.random() ** 2), self._rng.random()
                if lot < _RACED_SHARE:
                    await self._raced(database, user)
                elif lot < _RACED_SHARE + _UNTOLD_SHARE:
                    await self.change(database, user)
                else:
                    await self.change(database, user)
                    await self._insist(self._any(), None if lot > 1 - _CLEARED_SHARE else user)

    async def _raced(self, database: psycopg.AsyncConnection, user: int) -> None:
        """Change a user while loads of it are under way: what they bring is of before, or of after."""
        told = self._any()
        await self.invalidate(told, user)
        async with asyncio.TaskGroup() as tasks:
            for instance in [told, self._any(), self._any()]:
                if instance is not None:
                    tasks.create_task(self._ask(instance, user))
            await asyncio.sleep(self._rng.uniform(0, 0.06))
            await self.change(database, user)
            await self._insist(self._rng.choice([told, self._any()]), user)

    async def _insist(self, instance: Instance | None, user: int | None) -> None:
        """Invalidate, and retry a few times through another instance after a failure."""
        for _ in range(_TRIES):
            if await self.invalidate(instance, user):
                return
            instance = self._any()

    async def _ask(self, instance: Instance, user: int) -> None:
        async with connected(instance.port) as connection:
            await self._load.ask(connection, instance.slot, user)

    async def change(self, database: psycopg.AsyncConnection, user: int) -> None:
        """Put a user's next version into the database."""
        async with self._locks[user]:
            await company.change(database, user, self._history.changing(user, time.monotonic()))
            self._history.changed(user)

    def _any(self) -> Instance | None:
        return self._rng.choice([each for each in self._fleet.instances if each.running] or [None])

    async def invalidate(self, instance: Instance | None, user: int | None) -> bool:
        """Invalidate a user, or everybody, and return whether Redis was told."""
        if instance is None:
            return False
        versions = self._history.committed(range(company.USERS) if user is None else [user])
        try:
            async with connected(instance.port) as connection:
                reply = await invalidate(connection, user)
        except (OSError, TimeoutError):
            self._tally.invalidations["no answer"] += 1
            return False
        self._tally.invalidations[f"{reply.status}"] += 1
        if reply.status == 200:
            each = reported(reply.json(), versions, time.monotonic())
            self._history.invalidated(each)
            silent, unlisted = "some silent" if each.silent else "all confirmed", each.unlisted
            self._tally.reports[f"{silent}, {'one may be missing' if unlisted else 'none missing'}"] += 1
        elif reply.status != 502:
            self._tally.unexpected(f"instance {instance.slot} answered an invalidation with {reply}")
        return reply.status == 200


def reported(report: Mapping[str, Any], versions: Mapping[int, int], returned_at: float) -> Invalidated:
    """Return an invalidation as its report describes it."""
    silent: dict[int, float] = {}
    for each in report["silent"]:
        # A name that is no process's of ours any more may be listed beside that of the one which has its number now.
        pid = process_of(each["instance"])
        silent[pid] = max(silent.get(pid, 0.0), each["stops_within"])
    unlisted = report["unlisted_stop_within"]
    return Invalidated(versions, returned_at, named(report["confirmed"]), silent, unlisted or 0.0)


def named(instances: Sequence[Mapping[str, Any]]) -> frozenset[int]:
    """Return the processes that a report of an invalidation names."""
    return frozenset(process_of(each["instance"]) for each in instances)


def process_of(instance: str) -> int:
    """Return the process id in the name of an instance."""
    return int(instance.split(":")[-2])
