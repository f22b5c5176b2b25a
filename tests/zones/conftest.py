"""The warehouse of the zone tests, and a clock that moves when it is told to."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import pytest

from ctxmiddleware.model import Zone
from examples.servers.bigquery import BigQueryStandIn

# Seconds no test comes near, and shorter than what a server that hangs on purpose is given.
DEADLINE = 60.0


class FakeClock:
    """Seconds that pass only by `advance`, for one event loop."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._sleepers: list[tuple[float, anyio.Event]] = []
        self._asleep = anyio.Event()

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        sleeper = (self.now + seconds, anyio.Event())
        self._sleepers.append(sleeper)
        self._asleep.set()
        try:
            await sleeper[1].wait()
        finally:
            self._sleepers.remove(sleeper)

    async def asleep(self) -> float:
        """Wait until somebody sleeps and return for how many seconds more."""
        with anyio.fail_after(DEADLINE):
            while not self._sleepers:
                self._asleep = anyio.Event()
                await self._asleep.wait()
        return min(deadline for deadline, _ in self._sleepers) - self.now

    async def advance(self, seconds: float) -> None:
        """Let time pass, and let those whose time has come run until they sleep again."""
        self.now += seconds
        due = [event for deadline, event in self._sleepers if deadline <= self.now]
        for event in due:
            event.set()
        while any(event in due for _, event in self._sleepers):
            await anyio.lowlevel.checkpoint()


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still until it is moved."""
    return FakeClock()


def some_zones(count: int, *, regions: int = 3) -> list[Zone]:
    """Return zones spread over regions R0, R1, ..."""
    return [
        Zone(id=f"z{number:04}", name=f"Zone {number}", region_code=f"R{number % regions}") for number in range(count)
    ]


@pytest.fixture(scope="session")
def warehouse_process() -> Iterator[BigQueryStandIn]:
    """The BigQuery stand-in with 25 zones over 7 regions in `geo.zones`, ten rows to a page."""
    rows = [{"id": f"z{number:02}", "name": f"Zone {number}", "region_code": f"R{number % 7}"} for number in range(25)]
    with BigQueryStandIn.start({"geo.zones": rows}, page_rows=10) as running:
        yield running


@pytest.fixture
def warehouse(warehouse_process: BigQueryStandIn) -> BigQueryStandIn:
    """The same server for all tests, well-behaved at the start of each."""
    if not warehouse_process.running:
        warehouse_process.restart()
    warehouse_process.behave()
    return warehouse_process
