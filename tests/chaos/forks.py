"""Children that the fleet's processes fork now and then: what they were answered is judged like every other answer."""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from . import company
from .client import connected
from .fleet import Fleet, Instance
from .history import Asked, History
from .load import told_in
from .tally import Tally

FORKED: Final = "a process forked"
FORESEEN: Final = ("unavailable", "not in memory")
_AT_ONCE: Final = 2
_PAUSE: Final = 3.0
_LONGEST: Final = 8.0
_LATEST: Final = 30.0


class Forks:
    """Lets processes fork children that resolve users for some seconds.

    Args:
        fleet: whose processes.
        history: judges the answers.
        tally: counts them.
        rng: decides which process, when and for how long.
    """

    def __init__(self, fleet: Fleet, history: History, tally: Tally, rng: random.Random) -> None:
        self._fleet = fleet
        self._history = history
        self._tally = tally
        self._rng = rng

    async def run(self, until: float) -> None:
        """Let them fork until a time of the monotonic clock; all children have ended when this returns."""
        with tempfile.TemporaryDirectory() as folder:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(_AT_ONCE):
                    tasks.create_task(self._work(Path(folder), until))

    async def _work(self, folder: Path, until: float) -> None:
        while (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, self._rng.uniform(0, 2 * _PAUSE)))
            instance = self._rng.choice([each for each in self._fleet.instances if each.running] or [None])
            seconds = min(self._rng.uniform(0.5, _LONGEST), until - time.monotonic())
            if instance is not None and seconds > 0:
                await self.fork(instance, folder, seconds, closes=self._rng.random() < 0.5)

    async def fork(self, instance: Instance, folder: Path, seconds: float, *, closes: bool) -> None:
        """Let a process fork a child, and judge what that was answered.

        Args:
            instance: the process.
            folder: where the child writes its answers.
            seconds: how long it asks.
            closes: whether it opens its plugin at once and closes it, or asks what was copied first, and then dies.
        """
        answers = folder / f"{self._rng.randrange(10**12)}.json"
        users = ",".join(map(company.address, range(company.USERS)))
        target = f"/private/fork?answers={answers}&seconds={seconds}&closes={'yes' if closes else 'no'}&users={users}"
        began_at = time.monotonic()
        try:
            async with connected(instance.port) as connection:
                reply = await connection.ask("GET", target, {}, timeout=6.0)
        except (OSError, TimeoutError):
            return
        if reply.status != 200:
            self._tally.unexpected(f"instance {instance.slot} did not fork: {reply}")
            return
        pid = reply.json()["pid"]
        self._tally.began(FORKED)
        self._tally.happened(f"{FORKED} ({instance.slot}): {pid}")
        is_there = await _ended(answers, began_at + seconds + _LATEST)
        self._tally.ended(FORKED)
        if not is_there:
            self._tally.answers["of a child that was killed"] += 1
            # It is stopped, and killed, with its parent.
            if not self._history.was_disturbed(("process",), instance.slot, began_at, time.monotonic()):
                self._tally.unexpected(f"the child {pid} of instance {instance.slot} wrote no answers")
            return
        self._read(instance.slot, pid, json.loads(answers.read_text()))

    def _read(self, slot: int, pid: int, found: Any) -> None:
        self._history.started(pid, found["began_at"])
        for each in found["answers"]:
            if "failed" in each:
                self._tally.answers[f"{each['failed'][:40]} in a child"] += 1
                if each["failed"] not in FORESEEN:
                    self._tally.unexpected(f"the child {pid} of instance {slot} raised {each['failed']}")
                continue
            asked, told = Asked(each["user"], slot, each["asked_at"]), told_in(each, each["read_at"])
            self._tally.answers[f"{told.standing.value} in a child"] += 1
            self._tally.judged(self._history.judge(asked, told), asked, told, self._history.newest(asked.user))


async def _ended(answers: Path, until: float) -> bool:
    while not await asyncio.to_thread(answers.exists):
        if time.monotonic() > until:
            return False
        await asyncio.sleep(0.1)
    return True
