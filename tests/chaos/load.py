"""Many users who ask any process at any time, some of whom do not wait for the answer; each answer is judged."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import AsyncExitStack
from typing import Any, Final

from . import company
from .app import CLOSED_REQUEST
from .client import Connection, Reply, connected
from .company import Facts, Standing
from .fleet import Fleet
from .history import Asked, History, Part, Told
from .tally import Tally

WORKERS: Final = 64
TIMEOUT: Final = 6.0
_CANCELLED_SHARE: Final = 0.04
# A process that is stopped finds its questions to Redis out of time when it goes on.
_REDIS: Final[tuple[Part, ...]] = ("redis", "process")


class Load:
    """Asks the fleet.

    Args:
        fleet: whom it asks.
        history: judges the answers.
        tally: counts them.
        rng: decides who asks whom.
    """

    def __init__(self, fleet: Fleet, history: History, tally: Tally, rng: random.Random) -> None:
        self._fleet = fleet
        self._history = history
        self._tally = tally
        self._rng = rng
        self._asked = 0
        self._unanswered: dict[int, tuple[int, float]] = {}

    async def run(self, until: float, *, per_second: float) -> None:
        """Ask until a time of the monotonic clock, so often at most."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(WORKERS):
                tasks.create_task(self._work(until, per_second / WORKERS))

    async def _work(self, until: float, per_second: float) -> None:
        async with AsyncExitStack() as exits:
            connections = [await exits.enter_async_context(connected(each.port)) for each in self._fleet.instances]
            while (left := until - time.monotonic()) > 0:
                await asyncio.sleep(min(left, self._rng.expovariate(per_second)))
                # Some are asked for far more often than others, as anywhere.
                user = int(company.USERS * self._rng.random() ** 2)
                slot = self._rng.randrange(len(connections))
                await self.ask(connections[slot], slot, user)

    async def ask(self, connection: Connection, slot: int, user: int, *, patient: bool = False) -> Told | None:
        """Ask one process as one user, and return what it told of the user, if it did."""
        self._asked += 1
        nonce, spelled = str(self._asked), self._spelled(user)
        headers, timeout = {"x-asks": spelled, "x-nonce": nonce}, TIMEOUT
        lot = 1.0 if patient else self._rng.random()
        if lot < _CANCELLED_SHARE:
            headers["x-patience"] = f"{self._rng.uniform(0, 0.02):.4f}"
        elif lot < 2 * _CANCELLED_SHARE:
            timeout = self._rng.uniform(0.0005, 0.02)
        asked = Asked(user, slot, time.monotonic())
        try:
            reply = await connection.ask("GET", "/me", headers, timeout=timeout)
        except TimeoutError:
            self._tally.answers["not waited for" if timeout < TIMEOUT else "no answer in time"] += 1
        except OSError as error:
            self._lost(asked, error)
        else:
            return self._read(asked, reply, (spelled, nonce))
        return None

    def _spelled(self, user: int) -> str:
        address = company.address(user)
        return self._rng.choice((address, address, address.upper(), address.title()))

    def _lost(self, asked: Asked, error: OSError) -> None:
        self._tally.answers["no connection"] += 1
        if not self._history.was_disturbed(("process",), asked.slot, asked.began_at, time.monotonic()):
            self._tally.unexpected(f"instance {asked.slot} lost a connection by itself: {error!r}")

    def _read(self, asked: Asked, reply: Reply, sent: tuple[str, str]) -> Told | None:
        read_at = time.monotonic()
        if (plain := self._untold(asked, reply, read_at)) is not None:
            self._tally.answers[plain] += 1
            return None
        body = reply.json() if reply.status in (200, 403) else None
        if body is None or (body["asked"], body["nonce"]) != sent or body["reason"] == "anonymous":
            self._tally.answers[f"{reply.status}, unexpected"] += 1
            self._tally.unexpected(f"instance {asked.slot} answered {sent} with {reply}")
            return None
        self._note(asked, body["pid"], body["unanswered"], read_at)
        told = told_in(body, read_at)
        self._tally.answers[f"{reply.status} {told.standing.value}"] += 1
        newest = self._history.newest(asked.user)
        self._tally.judged(self._history.judge(asked, told), asked, told, newest)
        return told

    def _note(self, asked: Asked, pid: int, unanswered: int, now: float) -> None:
        """Count look-ups that Redis did not answer though nothing was made to fail, as on a busy machine."""
        before, since = self._unanswered.get(pid, (0, asked.began_at))
        if unanswered > before and not self._history.was_disturbed(_REDIS, asked.slot, since, now):
            self._tally.unexplained += unanswered - before
        if unanswered >= before:
            self._unanswered[pid] = (unanswered, now)

    def _untold(self, asked: Asked, reply: Reply, read_at: float) -> str | None:
        """Return what to call an answer that may tell nothing of a user, or None for any other."""
        if reply.status == 503 and "retry-after" in reply.headers:
            has_reason = self._history.was_disturbed(("source",), asked.slot, asked.began_at, read_at)
            return "503" if has_reason else "503 with the source well"
        if reply.status == CLOSED_REQUEST:
            return "cancelled in the app"
        # A server that is told to end gives requests some time, and then this.
        is_servers_own = reply.status == 500 and reply.headers.get("content-type", "").startswith("text/plain")
        if is_servers_own and self._history.was_disturbed(("process",), asked.slot, asked.began_at, read_at):
            return "500 of a server that ends"
        return None


def told_in(body: Any, read_at: float) -> Told:
    """Return what an answer tells of its user."""
    standing = Standing.ACTIVE if body["reason"] is None else Standing(body["reason"])
    shown = body["context"]
    facts = version = None
    if shown is not None:
        facts = Facts(shown["email"], shown["employee"], shown["name"], tuple(shown["slots"]), tuple(shown["regions"]))
        version = company.version_in(shown["version"])
    return Told(read_at, body["pid"], standing, version, facts, stale=body["stale"])
