"""When zones are loaded, and which snapshot readers see meanwhile."""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import anyio

from ..errors import ConfigurationError, ContextError, SourceUnavailable
from ..failure_log import log_failure
from ..model import Zone
from .base import EMPTY, ZoneSnapshot, ZoneSource
from .threads import Bells

logger = logging.getLogger("ctxmiddleware.zones")


@dataclass(frozen=True)
class Backoff:
    """How long to wait after a failed load: twice as long each time, less up to half by chance.

    Args:
        first: seconds after the first failure.
        most: seconds it grows to; an empty result is looked at again after this time, too.
    """

    first: float = 1.0
    most: float = 300.0

    def __post_init__(self) -> None:
        if not 0 < self.first <= self.most < math.inf:
            raise ConfigurationError(f"a backoff from {self.first!r} s to {self.most!r} s: needs 0 < first <= most")

    def delay(self, failures: int, chance: float) -> float:
        """Return the seconds to wait after so many failures in a row, for a chance between 0 and 1."""
        # The exponent is bounded, or a week of failures overflows a float.
        return min(self.most, self.first * 2.0 ** min(failures - 1, 60)) * (1 - chance / 2)


@dataclass(frozen=True)
class ZonesState:
    """The service at one moment.

    Args:
        state: "loading" before the first load ended, "failing" while the last one failed, else "ready".
        count: zones in the snapshot.
        age: seconds since the snapshot's load began, or None where there is none.
        refreshes: loads that succeeded.
        failures: loads that failed.
        error: what the last load failed with, or None where it succeeded.
    """

    state: Literal["loading", "ready", "failing"]
    count: int
    age: float | None
    refreshes: int
    failures: int
    error: str | None


class ZonesService:
    """Keeps one snapshot for the whole process: loaded at once, again after its TTL, and kept when a load fails.

    Args:
        source: where zones come from.
        ttl: seconds after which a snapshot is replaced.
        load_timeout: seconds after which a load is given up, whatever the source itself does about time.
        backoff: how long to wait after a failed load.
        clock: seconds that never go back.
        sleep: waits for so many seconds of that clock.
        rng: chance between 0 and 1, so that the processes of a fleet do not ask all at once.
        changed: called, in whichever thread has loaded, when another snapshot is in force.
    """

    def __init__(
        self,
        source: ZoneSource,
        *,
        ttl: float = 86_400.0,
        load_timeout: float = 300.0,
        backoff: Backoff = Backoff(),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = anyio.sleep,
        rng: Callable[[], float] = random.random,
        changed: Callable[[], object] = lambda: None,
    ) -> None:
        faults = [
            f"zones {name} is {value!r}: must be more than 0 s"
            for name, value in (("ttl", ttl), ("load_timeout", load_timeout))
            if not value > 0
        ]
        if faults:
            raise ConfigurationError(*faults)
        self.snapshot: ZoneSnapshot = EMPTY
        self._source = source
        self._ttl = ttl
        self._load_timeout = load_timeout
        self._backoff = backoff
        self._clock = clock
        self._sleep = sleep
        self._rng = rng
        self._changed = changed
        self._loading = threading.Lock()
        self._ended = Bells()
        self._due = -math.inf
        self._begun = 0
        self._newest = 0
        self._refreshes = 0
        self._failures = 0
        self._in_a_row = 0
        self._error: str | None = None
        self._lost_at = logging.WARNING
        self._told = "loading"

    def __repr__(self) -> str:
        now = self.state()
        return f"<ZonesService {now.state}, {now.count} zones from {self._source!r}>"

    def state(self) -> ZonesState:
        """Return counters and the age of the snapshot."""
        snapshot, error = self.snapshot, self._error
        working: Literal["loading", "ready"] = "loading" if snapshot.loaded_at is None else "ready"
        return ZonesState(
            state=working if error is None else "failing",
            count=snapshot.count,
            age=None if snapshot.loaded_at is None else self._clock() - snapshot.loaded_at,
            refreshes=self._refreshes,
            failures=self._failures,
            error=error,
        )

    async def run(self) -> None:
        """Keep the snapshot loaded until cancelled; a task of each event loop may run it, and one of them loads."""
        while True:
            wait = self._due - self._clock()
            if wait > 0:
                await self._sleep(wait)
            elif not self._loading.acquire(blocking=False):
                await self._ended.until(self._idle)
            else:
                await self._load_if_due()

    async def refresh(self) -> ZoneSnapshot:
        """Load now and return the new snapshot, which holds all that was in the source when this was called.

        Raises:
            SourceUnavailable: the source cannot answer now; the snapshot stays.
            SourceError: the source answered with something that is not zones; the snapshot stays.
        """
        before = self._begun
        while not self._loading.acquire(blocking=False):
            await self._ended.until(self._idle)
        try:
            # A load that began after this call, for another caller, serves this one as well.
            return self.snapshot if self._newest > before else await self._load()
        finally:
            self._release()

    async def wait_loaded(self) -> ZoneSnapshot:
        """Wait for the first snapshot and return the current one; without a `run()` or `refresh()` it waits on."""
        await self._ended.until(lambda: self.snapshot.loaded_at is not None)
        return self.snapshot

    def _idle(self) -> bool:
        return not self._loading.locked()

    def _release(self) -> None:
        self._loading.release()
        self._ended.ring()

    async def _load_if_due(self) -> None:
        try:
            # Another loop may have loaded between the look at the time and the lock.
            if self._due <= self._clock():
                await self._load()
        except Exception:  # noqa: BLE001, S110 - _load has counted and logged it; the loop must outlive every source
            pass
        finally:
            self._release()

    async def _load(self) -> ZoneSnapshot:
        self._begun += 1
        number, began = self._begun, self._clock()
        try:
            snapshot = ZoneSnapshot.of(await self._fetch(), loaded_at=began)
        except Exception as error:
            self._failed(error)
            raise
        self._newest = number
        self._succeeded(snapshot)
        return snapshot

    async def _fetch(self) -> Sequence[Zone]:
        with anyio.move_on_after(self._load_timeout):
            return await self._source.fetch()
        raise SourceUnavailable(f"the zones were not loaded within {self._load_timeout:g} s")

    def _succeeded(self, snapshot: ZoneSnapshot) -> None:
        self.snapshot = snapshot
        self._changed()
        self._refreshes += 1
        failed, self._in_a_row, self._error = self._in_a_row, 0, None
        # A table that is empty for the moment in which it is replaced must not empty contexts for a day.
        self._due = self._clock() + (self._ttl if snapshot.count else min(self._ttl, self._backoff.most))
        extra = {"zones": snapshot.count, "regions": len(snapshot.by_region), "failures": failed}
        if not snapshot.count:
            self._tell("empty", logging.WARNING, "zones: the source holds none, so no context has any", extra=extra)
        else:
            self._tell("ready", self._lost_at if failed else logging.INFO, "zones: loaded", extra=extra)

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        self._in_a_row += 1
        # Only our own messages are known to hold no address and no key; the error itself would hold all its frames.
        self._error = str(error) if isinstance(error, ContextError) else type(error).__name__
        delay = self._backoff.delay(self._in_a_row, self._rng())
        if isinstance(error, SourceUnavailable) and error.retry_after is not None:
            delay = max(delay, min(error.retry_after, self._backoff.most))
        self._due = self._clock() + delay
        level = logging.WARNING if isinstance(error, SourceUnavailable) else logging.ERROR
        extra = {
            "zones": self.snapshot.count,
            "failures": self._in_a_row,
            "retry_in": round(delay, 3),
            "error": self._error,
        }
        self._lost_at = level
        kind = f"failing with {type(error).__name__}"
        self._tell(kind, level, "zones: a load failed, the last snapshot stays", extra=extra, error=error)

    def _tell(
        self, state: str, level: int, message: str, *, extra: Mapping[str, object], error: Exception | None = None
    ) -> None:
        """Log at this level when the state has changed, so that a fault is told once and not at every try."""
        changed, self._told = state != self._told, state
        level = level if changed else logging.DEBUG
        if error is None:
            logger.log(level, message, extra=extra)
        else:
            log_failure(logger, level, message, error=error, extra=extra)
