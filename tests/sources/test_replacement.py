"""When a place is given on after its connection was closed."""

from __future__ import annotations

import anyio
import pytest

from ctxmiddleware.sources.pool import Pool, PoolOptions

pytestmark = pytest.mark.anyio


class Recorded:
    """A connection that notes when it was closed, and may fail or hang while it is."""

    def __init__(self, closing: str = "") -> None:
        self.closing = closing
        self.closed_at: float | None = None

    async def aclose(self) -> None:
        if self.closing == "hangs":
            await anyio.sleep_forever()
        await anyio.sleep(0.01)
        self.closed_at = anyio.current_time()
        if self.closing == "fails":
            raise OSError("already broken")


async def _spoiled(pool: Pool[Recorded]) -> None:
    with pytest.raises(ValueError, match="spoiled"):
        async with pool.lend("http://a"):
            raise ValueError("spoiled")


async def test_a_successor_comes_after_its_predecessor_has_gone() -> None:
    """A closed connection's place stays taken until the server has had time to hear of it."""
    made: list[Recorded] = []

    def connect(origin: str) -> Recorded:
        made.append(Recorded())
        return made[-1]

    async with anyio.create_task_group() as tasks:
        pool = Pool(PoolOptions(max_connections=1), connect, tasks)
        await _spoiled(pool)
        async with pool.lend("http://a"):
            assert made[0].closed_at is not None
            assert anyio.current_time() - made[0].closed_at >= 0.045  # uvloop counts whole milliseconds
    assert len(made) == 2


@pytest.mark.parametrize("closing", ["fails", "hangs"])
async def test_a_connection_that_will_not_close_frees_its_place(closing: str) -> None:
    """Neither an error nor silence while closing costs a place for good."""
    async with anyio.create_task_group() as tasks:
        pool = Pool(PoolOptions(max_connections=1), lambda _: Recorded(closing), tasks, close_within=0.05)
        await _spoiled(pool)
        async with pool.lend("http://a"):
            assert repr(pool) == "<Pool: 1 busy, 0 idle, of 1>"
        assert repr(pool) == "<Pool: 0 busy, 1 idle, of 1>"


async def test_a_caller_cancelled_while_waiting_takes_no_place() -> None:
    """Those who give up in the queue, at whatever moment, leave all places to the others."""
    async with anyio.create_task_group() as tasks:
        pool = Pool(PoolOptions(max_connections=1), lambda _: Recorded(), tasks)
        async with anyio.create_task_group() as callers:

            async def caller(patience: float) -> None:
                with anyio.move_on_after(patience):
                    async with pool.lend("http://a"):
                        await anyio.sleep(0.003)

            for number in range(60):
                callers.start_soon(caller, number * 0.001)
        lent: list[str] = []

        async def another() -> None:
            async with pool.lend("http://a"):
                lent.append("another")

        async with pool.lend("http://a"), anyio.create_task_group() as others:
            others.start_soon(another)
            await anyio.wait_all_tasks_blocked()
            assert lent == []
            others.cancel_scope.cancel()
